//! Messages of Anthropic's interface, and those of a chat that mean the same.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::error::ApiError;

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InputMessage {
    role: Role,
    content: Content,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AnthropicRole)]
pub(super) enum Role {
    User,
    Assistant,
}

/// A text, or blocks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = AnthropicContent)]
pub(super) enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

/// A block of a message. `cache_control` and `citations` are accepted: they change nothing here.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block {
    Text {
        text: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[schema(value_type = Object)]
        input: Value,
    },
    ToolResult {
        tool_use_id: String,
        // A content of its own: the description of a type must come to an end.
        #[schema(no_recursion)]
        content: Option<Content>,
        is_error: Option<bool>,
    },
    Thinking {
        thinking: String,
    },
    RedactedThinking {},
    Image {},
    Document {},
}

impl InputMessage {
    /// Adds the messages that this one means: a tool's result is a message of its own in a chat.
    pub(super) fn append(self, path: &str, messages: &mut Vec<Value>) -> Result<(), ApiError> {
        let blocks = match self.content {
            Content::Text(text) => vec![Block::Text { text }],
            Content::Blocks(blocks) => blocks,
        };
        let (mut text, mut thoughts, mut calls) = (String::new(), String::new(), Vec::new());
        for (i, block) in blocks.into_iter().enumerate() {
            let here = format!("{path}.content[{i}]");
            match (block, self.role) {
                (Block::Text { text: more }, _) => text.push_str(&more),
                (Block::Thinking { thinking }, Role::Assistant) => thoughts.push_str(&thinking),
                (Block::RedactedThinking {}, Role::Assistant) => {}
                (Block::ToolUse { id, name, input }, Role::Assistant) => {
                    let function = json!({ "name": name, "arguments": input.to_string() });
                    calls.push(json!({ "id": id, "type": "function", "function": function }));
                }
                (Block::ToolResult { tool_use_id, content, is_error }, Role::User) => {
                    if !text.is_empty() {
                        messages.push(json!({ "role": "user", "content": std::mem::take(&mut text) }));
                    }
                    let result =
                        content.map(|content| plain(content, &here)).transpose()?.unwrap_or_default();
                    let result = if is_error == Some(true) { format!("Error: {result}") } else { result };
                    messages.push(json!({ "role": "tool", "tool_call_id": tool_use_id, "content": result }));
                }
                (Block::Image {} | Block::Document {}, _) => return Err(no_pictures(&here)),
                (_, Role::User) => {
                    return Err(ApiError::param(here, "a user's message has text and tool_result blocks"));
                }
                (_, Role::Assistant) => {
                    return Err(ApiError::param(
                        here,
                        "an assistant's message has text, thinking and tool_use blocks",
                    ));
                }
            }
        }
        if self.role == Role::User {
            if !text.is_empty() {
                messages.push(json!({ "role": "user", "content": text }));
            }
            return Ok(());
        }
        let mut message = json!({ "role": "assistant", "content": text });
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        if !thoughts.is_empty() {
            message["reasoning_content"] = thoughts.into();
        }
        messages.push(message);
        Ok(())
    }
}

/// The text of a content that may have nothing else.
pub(super) fn plain(content: Content, path: &str) -> Result<String, ApiError> {
    let blocks = match content {
        Content::Text(text) => return Ok(text),
        Content::Blocks(blocks) => blocks,
    };
    let text = |(i, block): (usize, Block)| match block {
        Block::Text { text } => Ok(text),
        _ => Err(no_pictures(&format!("{path}[{i}]"))),
    };
    blocks.into_iter().enumerate().map(text).collect()
}

fn no_pictures(path: &str) -> ApiError {
    ApiError::unsupported(path, "image input is not supported: this model reads text only")
}
