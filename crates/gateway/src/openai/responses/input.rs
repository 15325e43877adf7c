//! What `/v1/responses` is to answer: a text, or the items of a conversation.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::error::ApiError;

/// A text, or items.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Input {
    Text(String),
    Items(Vec<Item>),
}

/// An item of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Item {
    Typed(TypedItem),
    /// A message without its type.
    Message(Message),
}

/// An item that says what it is. What an answer's items have besides is accepted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum TypedItem {
    Message(Message),
    FunctionCall { call_id: String, name: String, arguments: String },
    FunctionCallOutput { call_id: String, output: Content },
    Reasoning {},
}

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Message {
    #[schema(pattern = "^(user|assistant|system|developer)$")]
    role: String,
    content: Content,
}

/// A text, or parts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ResponsesContent)]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part: only text can be read.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponsesPart)]
pub(super) struct Part {
    #[serde(rename = "type")]
    #[schema(pattern = "^(input_text|output_text|text)$")]
    kind: String,
    text: Option<String>,
}

impl Input {
    /// The messages of a chat that mean the same.
    ///
    /// # Errors
    /// 400 that names the item.
    pub(super) fn append(self, messages: &mut Vec<Value>) -> Result<(), ApiError> {
        match self {
            Self::Text(text) => messages.push(json!({ "role": "user", "content": text })),
            Self::Items(items) => {
                for (i, item) in items.into_iter().enumerate() {
                    item.append(&format!("input[{i}]"), messages)?;
                }
            }
        }
        Ok(())
    }
}

impl Item {
    fn append(self, path: &str, messages: &mut Vec<Value>) -> Result<(), ApiError> {
        match self {
            Self::Message(message) | Self::Typed(TypedItem::Message(message)) => {
                let content = message.content.text(path)?;
                messages.push(json!({ "role": message.role, "content": content }));
            }
            Self::Typed(TypedItem::FunctionCall { call_id, name, arguments }) => {
                let call = json!({ "id": call_id, "type": "function", "function": { "name": name, "arguments": arguments } });
                // Calls that follow each other, or what was said before them, are one message of the assistant.
                match messages.last_mut() {
                    Some(last) if last["role"] == "assistant" => match last["tool_calls"].as_array_mut() {
                        Some(calls) => calls.push(call),
                        None => last["tool_calls"] = json!([call]),
                    },
                    _ => messages.push(json!({ "role": "assistant", "content": "", "tool_calls": [call] })),
                }
            }
            Self::Typed(TypedItem::FunctionCallOutput { call_id, output }) => {
                let output = output.text(path)?;
                messages.push(json!({ "role": "tool", "tool_call_id": call_id, "content": output }));
            }
            Self::Typed(TypedItem::Reasoning {}) => {}
        }
        Ok(())
    }
}

impl Content {
    fn text(self, path: &str) -> Result<String, ApiError> {
        let parts = match self {
            Self::Text(text) => return Ok(text),
            Self::Parts(parts) => parts,
        };
        let text = |(i, part): (usize, Part)| match part {
            Part { kind, text: Some(text) }
                if ["input_text", "output_text", "text"].contains(&kind.as_str()) =>
            {
                Ok(text)
            }
            Part { kind, .. } => Err(ApiError::unsupported(
                format!("{path}.content[{i}].type"),
                format!("{kind:?} parts: this model reads text only"),
            )),
        };
        parts.into_iter().enumerate().map(text).collect()
    }
}
