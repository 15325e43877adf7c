//! `/`, `/health`, `/live`, `/ready`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::state::App;

/// What this server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Service {
    name: &'static str,
    version: &'static str,
    status: &'static str,
    models: Vec<String>,
    uptime_seconds: u64,
    endpoints: [&'static str; 9],
}

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    status: &'static str,
    /// Whether the database of keys and usage answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'static str>,
    /// Whether the Redis of the limits answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<&'static str>,
}

/// All is well.
const OK: Status = Status { status: "ok", database: None, redis: None };

/// What this server is; a browser is sent to the chat page.
pub(crate) async fn root(State(app): State<App>, headers: HeaderMap) -> Response {
    let accept = headers.get("accept").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") {
        return Redirect::temporary("/ui").into_response();
    }
    Json(Service {
        name: "EdgeLLM",
        version: env!("CARGO_PKG_VERSION"),
        status: if app.is_draining() { "stopping" } else { "running" },
        models: app.models.slots().iter().map(|slot| slot.source.name.clone()).collect(),
        uptime_seconds: app.started.elapsed().as_secs(),
        endpoints: [
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/responses",
            "/v1/messages",
            "/api/chat",
            "/api/generate",
            "/openapi.json",
            "/ui",
        ],
    })
    .into_response()
}

/// 200 when requests are answered, as llama.cpp's server has it; and whether what stands behind the server answers.
pub(crate) async fn health(State(app): State<App>) -> Result<Json<Status>, ApiError> {
    check(&app)?;
    let word = |answers| if answers { "ok" } else { "gone" };
    let access = app.access.as_ref();
    let database = access.map(|access| word(access.database_answers()));
    let redis = access.and_then(|access| access.limiter.shared_answers()).map(word);
    Ok(Json(Status { database, redis, ..OK }))
}

/// 200 while the process runs.
pub(crate) async fn live() -> Json<Status> {
    Json(OK)
}

/// 200 when requests are answered; 503 while the model is loaded and once the server is to stop.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    match check(&app) {
        Ok(()) => Json(json!({ "status": "ready" })).into_response(),
        Err(error) => error.into_response(),
    }
}

/// 503 when no request is taken.
pub(crate) fn check(app: &App) -> Result<(), ApiError> {
    if app.is_draining() {
        return Err(ApiError::unavailable("The server is stopping"));
    }
    if let Some(error) = app.models.error() {
        return Err(ApiError::unavailable(error));
    }
    if !app.models.is_ready() {
        return Err(ApiError::unavailable("Loading model"));
    }
    Ok(())
}
