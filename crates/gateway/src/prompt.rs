//! Conversations as a model reads them.

use engine::chat_template::Message;
use serde_json::Value;

use crate::card::Card;
use crate::error::ApiError;
use crate::limits;

/// The tokens of a conversation that ends where the assistant's answer begins.
///
/// # Errors
/// 400 when the template refuses it or it does not fit the context.
pub(crate) fn conversation(
    card: &Card,
    messages: &[Message],
    tools: Option<&Value>,
) -> Result<Vec<u32>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::param("messages", "there must be at least one message"));
    }
    if messages.len() > limits::MESSAGES {
        return Err(ApiError::param("messages", format!("at most {} messages", limits::MESSAGES)));
    }
    let Some(template) = &card.template else {
        let message =
            format!("the model '{}' has no chat template; /v1/completions takes plain text", card.name);
        return Err(ApiError::param("messages", message));
    };
    let prompt = template.encode(card.tokenizer()?, messages, tools, true)?;
    fits(card, prompt, "messages")
}

/// The prompt, if it fits the context.
pub(crate) fn fits(card: &Card, prompt: Vec<u32>, param: &str) -> Result<Vec<u32>, ApiError> {
    if prompt.is_empty() {
        return Err(ApiError::param(param, "there are no tokens in it"));
    }
    if prompt.len() > card.context {
        return Err(ApiError::context_length(param, prompt.len(), card.context));
    }
    Ok(prompt)
}
