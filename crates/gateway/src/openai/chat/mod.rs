//! `/v1/chat/completions`.

mod answer;
mod format;
mod message;
mod request;
mod stream;
mod tools;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use engine::scheduler::Job;

use crate::body;
use crate::collect::collect;
use crate::engine_thread::Handle;
use crate::error::ApiError;
use crate::generation::submit;
use crate::openai::chunks::include_usage;
use crate::openai::knobs::{choices, logprobs, stops, user};
use crate::prompt;
use crate::state::App;
use crate::stream::respond;
use crate::tools::Format;
pub(crate) use answer::{Completion, FINGERPRINT, Logprob};
use format::ResponseFormat;
pub(crate) use message::messages;
pub(crate) use request::ChatRequest;
pub(crate) use stream::ChatStream;
pub(crate) use tools::ToolDefinition;
use tools::toolbox;

/// A request that can be run.
pub(crate) struct ValidChat {
    pub(crate) jobs: Vec<Job>,
    pub(crate) logprobs: bool,
    /// How calls of tools are written in the answer, if there may be some.
    pub(crate) calls: Option<Format>,
}

/// Answers a conversation.
pub(crate) async fn create(
    State(app): State<App>,
    body::Json(request): body::Json<ChatRequest>,
) -> Result<Response, ApiError> {
    let handle = app.models.get(request.model.as_deref()).await?;
    let stream = request.stream.unwrap_or(false);
    let include_usage = include_usage(request.stream_options.as_ref(), stream)?;
    let valid = validate(request, &handle)?;
    let generation = submit(handle.clone(), valid.jobs).await?;
    if stream {
        return Ok(respond(generation, ChatStream::new(handle, valid.logprobs, valid.calls, include_usage)));
    }
    let answers = collect(generation).await?;
    Ok(Json(Completion::new(&handle.card, answers, valid.logprobs, valid.calls)).into_response())
}

/// The jobs of a request.
///
/// # Errors
/// 400 that names the parameter.
pub(crate) fn validate(request: ChatRequest, handle: &Handle) -> Result<ValidChat, ApiError> {
    let card = &handle.card;
    request.refuse_what_is_not_done()?;
    let n = choices(request.n, "n")?;
    let logprobs = logprobs(request.logprobs, request.top_logprobs)?;
    let max_tokens = request.max_completion_tokens.or(request.max_tokens);
    if max_tokens == Some(0) {
        let name =
            if request.max_completion_tokens.is_some() { "max_completion_tokens" } else { "max_tokens" };
        return Err(ApiError::param(name, "must be at least 1"));
    }
    let sampling = request.knobs().sampling(handle)?;
    let user = user(request.safety_identifier.as_deref().or(request.user.as_deref()));
    let stop = stops(request.stop, "stop")?;
    let tools = toolbox(request.tools, request.tool_choice, request.parallel_tool_calls)?;
    let grammar = request.response_format.map_or(Ok(None), ResponseFormat::grammar)?;
    let ignore_eos = request.ignore_eos.unwrap_or(false);
    let prepared = prompt::prepare(card, messages(request.messages)?, tools.as_ref(), grammar)?;
    let jobs = (0..n).map(|i| {
        let mut sampling = sampling.clone();
        sampling.seed = sampling.seed.wrapping_add(i as u64);
        let constraint =
            prepared.grammar.as_ref().map(|g| handle.grammars.constraint(card, g)).transpose()?;
        Ok(Job {
            user,
            prompt: prepared.prompt.clone(),
            max_tokens: max_tokens.or(handle.defaults.max_tokens),
            sampling,
            stop: stop.clone(),
            ignore_eos,
            logprobs,
            constraint,
            ..Job::default()
        })
    });
    Ok(ValidChat {
        jobs: jobs.collect::<Result<_, ApiError>>()?,
        logprobs: logprobs.is_some(),
        calls: prepared.calls,
    })
}
