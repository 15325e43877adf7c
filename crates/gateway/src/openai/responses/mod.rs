//! `/v1/responses`, a translation of the chat: nothing is stored, and the only tools are functions.

mod answer;
mod input;
mod request;
mod stream;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::body;
use crate::error::ApiError;
use crate::generation::submit;
use crate::openai::chat;
use crate::state::App;
use crate::stream::respond;
use crate::translate::{self, Translated};
pub(crate) use answer::ResponseObject;
pub(crate) use request::ResponsesRequest;
use stream::ResponseStream;

/// Answers an input.
pub(crate) async fn create(
    State(app): State<App>,
    body::Json(request): body::Json<ResponsesRequest>,
) -> Result<Response, ApiError> {
    let handle = app.models.get(request.model.as_deref()).await?;
    let stream = request.stream.unwrap_or(false);
    let response = ResponseObject::new(&handle.card.name, request.echo(handle.defaults));
    let valid = chat::validate(body::convert(&request.into_chat()?)?, &handle)?;
    let generation = submit(handle.clone(), valid.jobs).await?;
    if stream {
        let events = chat::ChatStream::new(handle, valid.logprobs, valid.calls, false);
        return Ok(respond(generation, Translated::new(events, ResponseStream::new(response))));
    }
    let answer = translate::whole(&handle.card, generation, valid.logprobs, valid.calls).await?;
    Ok(Json(response.of(&answer.chat, answer.reason, &answer.usage)).into_response())
}
