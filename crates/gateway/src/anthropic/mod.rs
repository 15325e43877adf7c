//! Anthropic's interface: `/v1/messages`, a translation of the chat of [`crate::openai::chat`].

mod answer;
mod message;
mod request;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::body;
use crate::error::ApiError;
use crate::generation::submit;
use crate::openai::chat;
use crate::state::App;
use crate::stream::respond;
use crate::translate::{self, Translated};
pub(crate) use answer::MessagesAnswer;
use answer::MessagesStream;
pub(crate) use request::MessagesRequest;

/// The length of a prompt.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenCount {
    pub(crate) input_tokens: usize,
}

/// Answers a conversation.
pub(crate) async fn create(
    State(app): State<App>,
    body::Json(request): body::Json<MessagesRequest>,
) -> Result<Response, ApiError> {
    let handle = app.models.get(Some(&request.model)).await?;
    let stream = request.stream.unwrap_or(false);
    let stops = request.stop_sequences.clone();
    let valid = chat::validate(body::convert(&request.into_chat(true)?)?, &handle)?;
    let prompt_tokens = valid.jobs.first().map_or(0, |job| job.prompt.len());
    let generation = submit(handle.clone(), valid.jobs).await?;
    if stream {
        let events = MessagesStream::new(handle.card.name.clone(), prompt_tokens, stops);
        return Ok(respond(
            generation,
            Translated::new(chat::ChatStream::new(handle, valid.logprobs, valid.calls, false), events),
        ));
    }
    let answer = translate::whole(&handle.card, generation, valid.logprobs, valid.calls).await?;
    Ok(Json(MessagesAnswer::of(&answer.chat, answer.reason, &answer.usage, &stops)).into_response())
}

/// Counts the tokens of a conversation without answering it.
pub(crate) async fn count_tokens(
    State(app): State<App>,
    body::Json(request): body::Json<MessagesRequest>,
) -> Result<Json<TokenCount>, ApiError> {
    let handle = app.models.get(Some(&request.model)).await?;
    let valid = chat::validate(body::convert(&request.into_chat(false)?)?, &handle)?;
    Ok(Json(TokenCount { input_tokens: valid.jobs.first().map_or(0, |job| job.prompt.len()) }))
}

/// Gives errors the form of Anthropic's.
pub(crate) async fn errors(response: Response) -> Response {
    let Some(error) = ApiError::of(&response) else { return response };
    let kind = match error.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        status if status.is_server_error() => "api_error",
        _ => "invalid_request_error",
    };
    let body = json!({ "type": "error", "error": { "type": kind, "message": error.message } });
    error.response(body)
}
