//! `/api/generate`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use engine::chat_template::Message;
use engine::scheduler::Job;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::{Lines, Writer};
use super::options::{Options, Short, format, keep_alive};
use crate::body;
use crate::collect::collect;
use crate::engine_thread::Handle;
use crate::error::ApiError;
use crate::generation::submit;
use crate::openai::types::OneOrMany;
use crate::prompt::{self, Prepared, fits};
use crate::state::App;
use crate::stream::respond;

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
    #[schema(value_type = Option<Object>)]
    format: Option<Value>,
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
    let started = Instant::now();
    refuse("think", request.think == Some(true))?;
    refuse("images", request.images.as_ref().is_some_and(|images| !images.is_empty()))?;
    refuse("suffix", request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()))?;
    let keep = keep_alive(request.keep_alive.as_ref())?;
    let handle = app.models.get(request.model.as_deref()).await?;
    let load = started.elapsed();
    app.models.keep(&handle.card.name, keep);
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
    if prompt.is_empty() {
        return Ok(loaded(handle, false, keep, started, load));
    }
    let options = request.options.unwrap_or_default().or(short);
    let grammar = format(request.format)?;
    let card = &handle.card;
    let prepared = if request.raw == Some(true) || card.template.is_none() {
        Prepared { prompt: fits(card, card.encode(&prompt)?, "prompt")?, grammar, calls: None }
    } else {
        let system = request.system.iter().map(|text| Message::new("system", text));
        let messages = system.chain([Message::new("user", prompt)]).collect();
        prompt::prepare(card, messages, None, grammar)?
    };
    run(handle, prepared, &options, stream, Writing { chat: false, started, load }).await
}

/// What an answer looks like.
pub(super) struct Writing {
    pub(super) chat: bool,
    pub(super) started: Instant,
    pub(super) load: Duration,
}

/// Runs a prompt and writes the answer.
pub(super) async fn run(
    handle: Arc<Handle>,
    prepared: Prepared,
    options: &Options,
    stream: bool,
    writing: Writing,
) -> Result<Response, ApiError> {
    let card = &handle.card;
    let constraint = prepared.grammar.as_ref().map(|g| handle.grammars.constraint(card, g)).transpose()?;
    let job = Job {
        prompt: prepared.prompt,
        max_tokens: options.max_tokens(),
        sampling: options.sampling(card)?,
        stop: options.stops()?,
        constraint,
        ..Job::default()
    };
    let generation = submit(handle.clone(), vec![job]).await?;
    let Writing { chat, started, load } = writing;
    let writer = Writer { handle, chat, calls: prepared.calls, started, load };
    if stream {
        return Ok(respond(generation, Lines::new(writer)));
    }
    let answers = collect(generation).await?;
    let line = answers.first().map(|answer| writer.whole(answer));
    Ok(Json(line).into_response())
}

/// The answer to a request that only loads a model, or lets it go.
pub(super) fn loaded(
    handle: Arc<Handle>,
    chat: bool,
    keep: Option<Duration>,
    started: Instant,
    load: Duration,
) -> Response {
    let writer = Writer { handle, chat, calls: None, started, load };
    let mut line = writer.line(Vec::new());
    line.done = true;
    line.done_reason = Some(if keep == Some(Duration::ZERO) { "unload" } else { "load" });
    Json(line).into_response()
}

/// 400 that names the parameter.
pub(super) fn refuse(param: &str, is_used: bool) -> Result<(), ApiError> {
    if is_used {
        return Err(ApiError::unsupported(param, "this model cannot do that"));
    }
    Ok(())
}
