//! Conversations as a model reads them.

use engine::chat_template::{ChatTemplate, Message};
use serde_json::{Value, json};

use crate::card::Card;
use crate::error::ApiError;
use crate::grammar::Grammar;
use crate::limits;
use crate::tools::{Format, Toolbox, instructions};

/// A conversation that can be run.
pub(crate) struct Prepared {
    /// Its tokens, up to where the assistant's answer begins.
    pub(crate) prompt: Vec<u32>,
    /// What the answer must be.
    pub(crate) grammar: Option<Grammar>,
    /// How calls are written in it, if there may be some.
    pub(crate) calls: Option<Format>,
}

/// A conversation, the tools that may be called in it, and what the answer must be if no tool is called.
///
/// # Errors
/// 400 when the template refuses it, it does not fit the context, or tools and `grammar` exclude each other.
pub(crate) fn prepare(
    card: &Card,
    mut messages: Vec<Message>,
    tools: Option<&Toolbox>,
    grammar: Option<Grammar>,
) -> Result<Prepared, ApiError> {
    let Some(tools) = tools else {
        return Ok(Prepared { prompt: conversation(card, &messages, None)?, grammar, calls: None });
    };
    if grammar.is_some() {
        return Err(ApiError::unsupported("response_format", "not together with 'tools'"));
    }
    let (format, knows_tools) =
        card.template.as_ref().map_or((Format::Tagged, false), |t| Format::of(t.source()));
    let prompt = if knows_tools {
        conversation(card, &messages, Some(&tools.list()))?
    } else {
        explain(&mut messages, tools);
        conversation(card, &messages, None)?
    };
    Ok(Prepared { prompt, grammar: Some(tools.grammar(format)?), calls: Some(format) })
}

/// Tells of tools in messages, for a template that knows of none.
fn explain(messages: &mut Vec<Message>, tools: &Toolbox) {
    let instructions = instructions(tools);
    match messages.first_mut().filter(|message| message.role == "system") {
        Some(system) => system.content = format!("{}\n\n{instructions}", system.content),
        None => messages.insert(0, Message::new("system", instructions)),
    }
    for message in messages {
        let calls = message.fields.remove("tool_calls");
        for call in calls.as_ref().and_then(Value::as_array).into_iter().flatten() {
            let call =
                json!({ "name": call["function"]["name"], "arguments": call["function"]["arguments"] });
            let line = format!("<tool_call>\n{call}\n</tool_call>");
            let gap = if message.content.is_empty() { "" } else { "\n" };
            message.content = format!("{}{gap}{line}", message.content);
        }
        if message.role == "tool" {
            message.role = "user".to_owned();
            message.content = format!("<tool_response>\n{}\n</tool_response>", message.content);
        }
    }
}

/// The tokens of a conversation that ends where the assistant's answer begins.
///
/// # Errors
/// 400 when the template refuses it or it does not fit the context.
pub(crate) fn conversation(
    card: &Card,
    messages: &[Message],
    tools: Option<&Value>,
) -> Result<Vec<u32>, ApiError> {
    let prompt = layout(card, messages)?.encode(card.tokenizer()?, messages, tools, true)?;
    fits(card, prompt, "messages")
}

/// The model's chat template, for messages of which there are some and not too many.
///
/// # Errors
/// 400 when it has none, and for the number of messages.
pub(crate) fn layout<'c>(card: &'c Card, messages: &[Message]) -> Result<&'c ChatTemplate, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::param("messages", "there must be at least one message"));
    }
    if messages.len() > limits::MESSAGES {
        return Err(ApiError::param("messages", format!("at most {} messages", limits::MESSAGES)));
    }
    card.template.as_ref().ok_or_else(|| {
        let message =
            format!("the model '{}' has no chat template; /v1/completions takes plain text", card.name);
        ApiError::param("messages", message)
    })
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
