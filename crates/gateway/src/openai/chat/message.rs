//! Messages of a conversation, and what the model's template makes of them.

use engine::chat_template::Message;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::error::ApiError;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    System,
    /// OpenAI's newer word for system.
    Developer,
    User,
    Assistant,
    Tool,
}

/// A message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatMessage {
    pub(crate) role: Role,
    /// What was said; an assistant's that calls tools may have none.
    pub(crate) content: Option<Content>,
    pub(crate) name: Option<String>,
    /// Tools that an assistant called.
    pub(crate) tool_calls: Option<Vec<ToolCall>>,
    /// The call that a tool's message answers.
    pub(crate) tool_call_id: Option<String>,
    /// What the assistant thought, for templates that show it.
    pub(crate) reasoning_content: Option<String>,
    /// Accepted because clients send an answer's message back as it came.
    #[expect(dead_code, reason = "accepted, and nothing follows from it")]
    pub(crate) refusal: Option<String>,
    /// Must be empty; see `refusal`.
    #[schema(value_type = Option<Vec<String>>, max_items = 0)]
    pub(crate) annotations: Option<Value>,
    /// Must be null; see `refusal`.
    #[schema(value_type = Option<String>, max_length = 0)]
    pub(crate) audio: Option<Value>,
    /// Must be null; see `refusal`.
    #[schema(value_type = Option<String>, max_length = 0)]
    pub(crate) function_call: Option<Value>,
}

/// What was said.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Content {
    /// As a text.
    Text(String),
    /// In parts.
    Parts(Vec<Part>),
}

/// A part of a content: only text can be read.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct Part {
    #[serde(rename = "type")]
    #[schema(pattern = "^text$")]
    kind: String,
    text: Option<String>,
    /// What no part of text has.
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Map<String, Value>,
}

/// A tool that was called.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct ToolCall {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    function: CalledFunction,
}

/// The function of a tool that was called.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct CalledFunction {
    name: String,
    /// JSON as a text.
    arguments: String,
}

/// The messages as templates take them.
///
/// # Errors
/// 400 that names the message and its field.
pub(crate) fn messages(messages: Vec<ChatMessage>) -> Result<Vec<Message>, ApiError> {
    messages.into_iter().enumerate().map(|(i, message)| one(message, &format!("messages[{i}]"))).collect()
}

fn one(message: ChatMessage, path: &str) -> Result<Message, ApiError> {
    let role = match message.role {
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    for (field, value) in [("audio", &message.audio), ("function_call", &message.function_call)] {
        if value.as_ref().is_some_and(|value| !value.is_null()) {
            return Err(ApiError::unsupported(
                format!("{path}.{field}"),
                "the model reads text and tool_calls",
            ));
        }
    }
    if message.annotations.as_ref().is_some_and(|a| a.as_array().is_some_and(|a| !a.is_empty())) {
        return Err(ApiError::unsupported(format!("{path}.annotations"), "the model reads none"));
    }
    let calls = message.tool_calls.unwrap_or_default();
    if message.content.is_none() && (message.role != Role::Assistant || calls.is_empty()) {
        return Err(ApiError::param(format!("{path}.content"), "this parameter is required"));
    }
    let mut fields = Map::new();
    if !calls.is_empty() {
        if message.role != Role::Assistant {
            return Err(ApiError::param(format!("{path}.tool_calls"), "only an assistant calls tools"));
        }
        let calls = calls.into_iter().map(call).collect::<Vec<_>>();
        fields.insert("tool_calls".to_owned(), calls.into());
    }
    if message.role == Role::Tool && message.tool_call_id.is_none() {
        return Err(ApiError::param(format!("{path}.tool_call_id"), "this parameter is required"));
    }
    for (key, value) in [
        ("tool_call_id", message.tool_call_id),
        ("name", message.name),
        ("reasoning_content", message.reasoning_content),
    ] {
        if let Some(value) = value {
            fields.insert(key.to_owned(), value.into());
        }
    }
    let content = message.content.map(|content| text(content, path)).transpose()?.unwrap_or_default();
    Ok(Message { fields, ..Message::new(role, content) })
}

/// Templates write a call's arguments as JSON themselves, so they want the value and not its text.
fn call(call: ToolCall) -> Value {
    let arguments = serde_json::from_str::<Value>(&call.function.arguments)
        .ok()
        .filter(Value::is_object)
        .unwrap_or(Value::String(call.function.arguments));
    json!({
        "id": call.id.unwrap_or_default(),
        "type": call.kind.unwrap_or_else(|| "function".to_owned()),
        "function": { "name": call.function.name, "arguments": arguments },
    })
}

fn text(content: Content, path: &str) -> Result<String, ApiError> {
    let parts = match content {
        Content::Text(text) => return Ok(text),
        Content::Parts(parts) => parts,
    };
    let part = |(i, part): (usize, Part)| match part {
        Part { kind, text: Some(text), rest } if kind == "text" => match rest.keys().next() {
            None => Ok(text),
            Some(field) => Err(ApiError::unsupported(
                format!("{path}.content[{i}].{field}"),
                "this parameter is not known here",
            )),
        },
        Part { kind, .. } => Err(ApiError::unsupported(
            format!("{path}.content[{i}].type"),
            format!("{kind:?} parts: this model reads text only"),
        )),
    };
    // Each in lines of its own, as other servers have it: parts are paragraphs, not pieces of words.
    let texts = parts.into_iter().enumerate().map(part).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join("\n"))
}
