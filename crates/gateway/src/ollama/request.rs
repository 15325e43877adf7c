//! What requests of Ollama's routes have in common, from the model that they name to the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::response::{IntoResponse, Response};
use engine::scheduler::Job;
use serde_json::Value;

use super::answer::{Lines, Writer};
use super::options::{Options, keep_alive};
use crate::collect::collect;
use crate::engine_thread::Handle;
use crate::error::ApiError;
use crate::generation::submit;
use crate::prompt::Prepared;
use crate::state::App;
use crate::stream::respond;

/// A model that a request has asked for.
pub(super) struct Opened {
    pub(super) handle: Arc<Handle>,
    /// How long it is kept after the request, if the request says so.
    keep: Option<Duration>,
    /// When the request came.
    pub(super) started: Instant,
    /// What loading the model took of it.
    pub(super) load: Duration,
}

/// The model of a request, loaded, and kept as long as the request says.
///
/// # Errors
/// 400 for a `keep_alive` that is none; those of [`crate::models::Models::get`].
pub(super) async fn open(app: &App, name: Option<&str>, keep: Option<&Value>) -> Result<Opened, ApiError> {
    let started = Instant::now();
    let keep = keep_alive(keep)?;
    let handle = app.models.get(name).await?;
    app.models.keep(&handle.card.name, keep);
    Ok(Opened { handle, keep, started, load: started.elapsed() })
}

/// How an answer is wanted.
pub(super) struct Wanted {
    /// As a message, or as a plain text.
    pub(super) chat: bool,
    /// Line by line, or whole.
    pub(super) stream: bool,
    /// With log-probabilities, and this many of the likeliest tokens.
    pub(super) logprobs: Option<usize>,
}

/// Runs a prompt and writes the answer.
pub(super) async fn run(
    opened: Opened,
    prepared: Prepared,
    options: &Options,
    wanted: Wanted,
) -> Result<Response, ApiError> {
    let Opened { handle, started, load, .. } = opened;
    let grammar = prepared.grammar.as_ref();
    let constraint = grammar.map(|grammar| handle.grammars.constraint(&handle.card, grammar)).transpose()?;
    let job = Job {
        max_tokens: options.max_tokens(&handle, prepared.prompt.len())?,
        prompt: prepared.prompt,
        sampling: options.sampling(&handle)?,
        stop: options.stops()?,
        logprobs: wanted.logprobs,
        constraint,
        ..Job::default()
    };
    let generation = submit(handle.clone(), vec![job]).await?;
    let writer = Writer { handle, chat: wanted.chat, calls: prepared.calls, started, load };
    if wanted.stream {
        return Ok(respond(generation, Lines::new(writer)));
    }
    let answers = collect(generation).await?;
    let line = answers.first().map(|answer| writer.whole(answer));
    Ok(Json(line).into_response())
}

/// The answer to a request that only loads a model, or lets it go.
pub(super) fn loaded(opened: Opened, chat: bool) -> Response {
    let Opened { handle, keep, started, load } = opened;
    let writer = Writer { handle, chat, calls: None, started, load };
    let mut line = writer.line(Vec::new(), Vec::new());
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
