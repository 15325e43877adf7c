//! Ollama's interface, and the shorter shapes of EdgeLLM's own beside it.
//!
//! A request of `/api/generate` or `/api/chat` that has `max_tokens`, `temperature` or another of the options at its top
//! level is one of EdgeLLM's own: then `stream` is false unless it says otherwise, and in Ollama's shape it is true.

pub(crate) mod answer;
pub(crate) mod chat;
pub(crate) mod embed;
pub(crate) mod generate;
pub(crate) mod models;
pub(crate) mod options;
mod request;

use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat};
use serde_json::json;

use crate::error::ApiError;

/// Errors as Ollama tells them.
pub(crate) async fn errors(response: Response) -> Response {
    match ApiError::of(&response) {
        Some(error) => {
            let message = if error.code == Some("model_not_found") {
                error.message.replace("The model ", "model ").replace("does not exist", "not found")
            } else {
                error.message.clone()
            };
            error.response(json!({ "error": message })).into_response()
        }
        None => response,
    }
}

/// A time as Ollama writes it.
pub(crate) fn time(seconds: u64) -> String {
    let time = DateTime::from_timestamp(i64::try_from(seconds).unwrap_or(0), 0).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
