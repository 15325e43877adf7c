//! `/api/generate`.

use axum::extract::State;
use axum::response::Response;
use engine::chat_template::Message;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::options::{Options, Short, format};
use super::request::{Wanted, loaded, open, refuse, run};
use crate::body;
use crate::error::ApiError;
use crate::openai::knobs::logprobs;
use crate::openai::types::OneOrMany;
use crate::prompt::{self, Prepared, fits};
use crate::state::App;

/// A prompt to be answered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerateRequest {
    /// Name of a model; the server's first by default.
    model: Option<String>,
    /// None or an empty one only loads the model.
    prompt: Option<String>,
    system: Option<String>,
    /// The prompt goes to the model as it is, without its template.
    raw: Option<bool>,
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
    /// Only an empty list: the models read text.
    #[schema(max_items = 0)]
    images: Option<Vec<String>>,
    /// Only the empty text.
    #[schema(max_length = 0)]
    suffix: Option<String>,
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

/// Answers a prompt.
pub(crate) async fn create(
    State(app): State<App>,
    body::Json(request): body::Json<GenerateRequest>,
) -> Result<Response, ApiError> {
    refuse("think", request.think == Some(true))?;
    refuse("images", request.images.as_ref().is_some_and(|images| !images.is_empty()))?;
    refuse("suffix", request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()))?;
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
    let prompt = request.prompt.unwrap_or_default();
    let options = request.options.unwrap_or_default().or(short);
    let grammar = format(request.format)?;
    if prompt.is_empty() {
        options.check(&opened.handle)?;
        return Ok(loaded(opened, false));
    }
    let card = &opened.handle.card;
    let prepared = if request.raw == Some(true) || card.template.is_none() {
        Prepared { prompt: fits(card, card.encode(&prompt)?, "prompt")?, grammar, calls: None }
    } else {
        let system = request.system.iter().map(|text| Message::new("system", text));
        let messages = system.chain([Message::new("user", prompt)]).collect();
        prompt::prepare(card, messages, None, grammar)?
    };
    run(opened, prepared, &options, Wanted { chat: false, stream, logprobs }).await
}
