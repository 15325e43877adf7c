//! `/api/chat`.

use axum::extract::State;
use axum::response::Response;
use engine::chat_template::Message;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::options::{Options, Short, format};
use super::request::{Wanted, loaded, open, refuse, run};
use crate::body;
use crate::error::ApiError;
use crate::openai::chat::ToolDefinition;
use crate::openai::knobs::logprobs;
use crate::openai::types::OneOrMany;
use crate::prompt;
use crate::state::App;
use crate::tools::{Choice, Toolbox};

/// A conversation to be answered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OllamaChatRequest {
    /// Name of a model; the server's first by default.
    model: Option<String>,
    /// None only loads the model.
    messages: Option<Vec<OllamaTurn>>,
    /// Functions that the model may call.
    #[schema(max_items = 128)]
    tools: Option<Vec<ToolDefinition>>,
    stream: Option<bool>,
    /// `json`, or a JSON schema.
    format: Option<Value>,
    #[serde(default, deserialize_with = "crate::body::object")]
    options: Option<Options>,
    /// How long the model is kept: seconds, or a text such as `5m`.
    #[schema(value_type = Option<String>)]
    keep_alive: Option<Value>,
    /// Only false: the models do not think apart.
    think: Option<bool>,
    logprobs: Option<bool>,
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<usize>,
    #[schema(minimum = 1)]
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
}

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OllamaTurn {
    #[schema(pattern = "^(system|user|assistant|tool)$")]
    role: String,
    content: Option<String>,
    /// Only an empty list: the models read text.
    #[schema(max_items = 0)]
    images: Option<Vec<String>>,
    tool_calls: Option<Vec<OllamaMadeCall>>,
    tool_name: Option<String>,
    tool_call_id: Option<String>,
    /// What the assistant thought, for templates that show it.
    thinking: Option<String>,
}

/// A call that the assistant made.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct OllamaMadeCall {
    function: OllamaMadeFunction,
}

/// What was called, with which arguments.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct OllamaMadeFunction {
    name: String,
    #[schema(value_type = Object)]
    arguments: Value,
}

/// Answers a conversation.
pub(crate) async fn create(
    State(app): State<App>,
    body::Json(request): body::Json<OllamaChatRequest>,
) -> Result<Response, ApiError> {
    refuse("think", request.think == Some(true))?;
    let logprobs = logprobs(request.logprobs, request.top_logprobs)?;
    let opened = open(&app, request.model.as_deref(), request.keep_alive.as_ref()).await?;
    let short = Short {
        max_tokens: request.max_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        seed: request.seed,
        stop: request.stop,
    };
    let stream = request.stream.unwrap_or(!short.is_used());
    let turns = request.messages.unwrap_or_default();
    let options = request.options.unwrap_or_default().or(short);
    let grammar = format(request.format)?;
    if turns.is_empty() {
        options.check(&opened.handle)?;
        return Ok(loaded(opened, true));
    }
    let messages =
        turns.into_iter().enumerate().map(|(i, turn)| message(turn, i)).collect::<Result<_, _>>()?;
    let tools = request.tools.unwrap_or_default().into_iter().map(ToolDefinition::tool).collect();
    let tools = Toolbox::new(tools, Choice::Auto, true)?;
    let prepared = prompt::prepare(&opened.handle.card, messages, tools.as_ref(), grammar)?;
    run(opened, prepared, &options, Wanted { chat: true, stream, logprobs }).await
}

fn message(turn: OllamaTurn, i: usize) -> Result<Message, ApiError> {
    refuse(&format!("messages[{i}].images"), turn.images.is_some_and(|images| !images.is_empty()))?;
    if !["system", "user", "assistant", "tool"].contains(&turn.role.as_str()) {
        return Err(ApiError::param(format!("messages[{i}].role"), "system, user, assistant or tool"));
    }
    let mut fields = Map::new();
    let calls = turn.tool_calls.unwrap_or_default().into_iter().map(|OllamaMadeCall { function }| {
        json!({ "type": "function", "function": { "name": function.name, "arguments": function.arguments } })
    });
    let calls: Vec<Value> = calls.collect();
    if !calls.is_empty() {
        fields.insert("tool_calls".to_owned(), calls.into());
    }
    let named =
        [("name", turn.tool_name), ("tool_call_id", turn.tool_call_id), ("reasoning_content", turn.thinking)];
    for (key, value) in named {
        if let Some(value) = value {
            fields.insert(key.to_owned(), value.into());
        }
    }
    Ok(Message { fields, ..Message::new(turn.role, turn.content.unwrap_or_default()) })
}
