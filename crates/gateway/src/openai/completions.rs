//! `/v1/completions`: text that goes on.

mod answer;
mod request;
mod stream;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use engine::scheduler::Job;

use super::chunks::include_usage;
use super::knobs::{choices, stops, user};
use crate::body;
use crate::card::Card;
use crate::collect::collect;
use crate::engine_thread::Handle;
use crate::error::ApiError;
use crate::generation::submit;
use crate::limits;
use crate::prompt::fits;
use crate::state::App;
use crate::stream::respond;
use answer::Shape;
pub(crate) use answer::TextCompletion;
pub(crate) use request::CompletionRequest;
pub(crate) use request::Prompt;
use stream::TextStream;

/// Tokens of an answer whose length is not said, as OpenAI has it.
const DEFAULT_TOKENS: usize = 16;

/// A request that can be run.
pub(crate) struct ValidCompletion {
    pub(crate) jobs: Vec<Job>,
    pub(crate) shape: Shape,
}

/// Goes on with a text.
pub(crate) async fn create(
    State(app): State<App>,
    body::Json(request): body::Json<CompletionRequest>,
) -> Result<Response, ApiError> {
    let handle = app.models.get(request.model.as_deref()).await?;
    let stream = request.stream.unwrap_or(false);
    let include_usage = include_usage(request.stream_options.as_ref(), stream)?;
    let ValidCompletion { jobs, shape } = validate(request, &handle)?;
    let generation = submit(handle.clone(), jobs).await?;
    if stream {
        return Ok(respond(generation, TextStream::new(handle, shape, include_usage)));
    }
    let answers = collect(generation).await?;
    Ok(Json(TextCompletion::new(&handle.card, answers, &shape)).into_response())
}

/// The jobs of a request: all choices of the first prompt, then those of the second.
///
/// # Errors
/// 400 that names the parameter.
pub(crate) fn validate(request: CompletionRequest, handle: &Handle) -> Result<ValidCompletion, ApiError> {
    let card = &handle.card;
    let n = choices(request.n, "n")?;
    let best_of = choices(request.best_of.or(request.n), "best_of")?;
    if best_of < n {
        return Err(ApiError::param("best_of", "must be at least 'n'"));
    }
    if best_of > n && request.stream == Some(true) {
        return Err(ApiError::param(
            "best_of",
            "the best can only be told when all are whole: not with 'stream'",
        ));
    }
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::unsupported("suffix", "the model was not made to fill in"));
    }
    let logprobs = request.logprobs.map(|n| super::knobs::top(Some(n), "logprobs")).transpose()?;
    let sampling = request.knobs().sampling(handle)?;
    let user = user(request.user.as_deref());
    let stop = stops(request.stop, "stop")?;
    let max_tokens = request.max_tokens.or(handle.defaults.max_tokens).unwrap_or(DEFAULT_TOKENS);
    let echo = request.echo.unwrap_or(false);
    let prompts = prompts(card, request.prompt.unwrap_or(Prompt::Text(String::new())))?;
    if prompts.is_empty() || prompts.len() > limits::PROMPTS {
        return Err(ApiError::param("prompt", format!("1 to {} prompts", limits::PROMPTS)));
    }
    let mut jobs = Vec::new();
    for prompt in &prompts {
        if let Some(id) = prompt.iter().find(|id| **id as usize >= card.vocab_size) {
            return Err(ApiError::param("prompt", format!("token {id} is not in the vocabulary")));
        }
        let prompt = fits(card, prompt.clone(), "prompt")?;
        for i in 0..best_of {
            let mut sampling = sampling.clone();
            sampling.seed = sampling.seed.wrapping_add(i as u64);
            jobs.push(Job {
                user,
                prompt: prompt.clone(),
                max_tokens: Some(max_tokens),
                sampling,
                stop: stop.clone(),
                ignore_eos: request.ignore_eos.unwrap_or(false),
                // The best is told by its probability.
                logprobs: logprobs.or((best_of > n).then_some(0)),
                prompt_logprobs: echo && logprobs.is_some(),
                ..Job::default()
            });
        }
    }
    let prompts = if echo { prompts } else { Vec::new() };
    Ok(ValidCompletion { jobs, shape: Shape { n, best_of, logprobs, echo: prompts } })
}

/// The tokens of each prompt.
pub(crate) fn prompts(card: &Card, prompt: Prompt) -> Result<Vec<Vec<u32>>, ApiError> {
    match prompt {
        Prompt::Text(text) => Ok(vec![card.encode(&text)?]),
        Prompt::Texts(texts) => texts.iter().map(|text| card.encode(text)).collect(),
        Prompt::Ids(ids) => Ok(vec![ids]),
        Prompt::IdLists(lists) => Ok(lists),
    }
}
