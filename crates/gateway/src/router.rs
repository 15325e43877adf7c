//! All routes and layers, on one page.

use std::any::Any;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::error::ApiError;
use crate::keys::routes as keys;
use crate::state::{App, Gate};
use crate::usage::routes as usage;
use crate::{
    anthropic, auth, batch, cors, health, in_flight, limits, llama_cpp, metrics, ollama, openai, openapi,
    tokenize, ui, ws,
};

/// All routes of a server: those of plain HTTP, and those that send requests through them.
pub(crate) fn router(gate: Gate) -> Router {
    let through = Router::new()
        .route("/v1/ws", get(ws::open))
        .route("/v1/batches", get(batch::batches::list).post(batch::batches::create))
        .route("/v1/batches/{id}", get(batch::batches::get))
        .route("/v1/batches/{id}/cancel", post(batch::batches::cancel))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed());
    let app = gate.app.clone();
    let through = layered(through.with_state(gate.clone()), &app);
    gate.api.merge(through)
}

/// What requests go through whose routes are those of plain HTTP.
pub(crate) fn gate(app: App) -> Gate {
    Gate { api: api(app.clone()), store: app.store.clone(), app }
}

/// The routes that programs use.
pub(crate) fn api(app: App) -> Router {
    // What answers while no model does.
    let open = Router::new()
        .route("/", get(health::root))
        .route("/health", get(health::health))
        .route("/v1/health", get(health::health))
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::show))
        .route("/openapi.json", get(openapi::show))
        .route("/docs", get(openapi::show_page))
        .route("/ui", get(|| async { Redirect::permanent("/ui/") }))
        .route("/ui/", get(ui::index))
        .route("/ui/{*path}", get(ui::asset));
    let files = Router::new()
        .route("/v1/files", get(batch::files::list))
        .route("/v1/files", post(batch::files::create).layer(DefaultBodyLimit::max(limits::FILE)))
        .route("/v1/files/{id}", get(batch::files::get).delete(batch::files::delete))
        .route("/v1/files/{id}/content", get(batch::files::content));
    let models = Router::new()
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::get))
        .route("/models", get(openai::models::list));
    let generation = Router::new()
        .route("/v1/chat/completions", post(openai::chat::create))
        .route("/chat/completions", post(openai::chat::create))
        .route("/v1/completions", post(openai::completions::create))
        .route("/v1/embeddings", post(openai::embeddings::create))
        .route("/v1/responses", post(openai::responses::create))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .layer(from_fn_with_state(app.clone(), ready));
    let anthropic = Router::new()
        .route("/v1/messages", post(anthropic::create))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .layer(from_fn_with_state(app.clone(), ready))
        .layer(map_response(anthropic::errors));
    // Paths that llama.cpp's server has besides.
    let llama_cpp = Router::new()
        .route("/apply-template", post(llama_cpp::apply_template))
        .route("/chat/completions/input_tokens", post(llama_cpp::input_tokens))
        .route("/v1/chat/completions/input_tokens", post(llama_cpp::input_tokens))
        .route("/embeddings", post(openai::embeddings::create))
        .route("/responses", post(openai::responses::create))
        .route("/props", get(llama_cpp::props))
        .layer(from_fn_with_state(app.clone(), ready));
    let ollama_models = Router::new()
        .route("/api/tags", get(ollama::models::tags))
        .route("/api/ps", get(ollama::models::ps))
        .route("/api/version", get(ollama::models::version))
        .route("/api/models", get(ollama::models::names));
    let ollama = Router::new()
        .route("/api/generate", post(ollama::generate::create))
        .route("/api/chat", post(ollama::chat::create))
        .route("/api/embed", post(ollama::embed::create))
        .route("/api/embeddings", post(ollama::embed::create_old))
        .route("/api/show", post(ollama::models::show))
        .layer(from_fn_with_state(app.clone(), ready))
        .merge(ollama_models)
        .layer(map_response(ollama::errors));
    // Keys, and what they have used.
    let admin = Router::new()
        .route("/api/keys", get(keys::list).post(keys::create))
        .route("/api/keys/{id}", get(keys::get).delete(keys::revoke))
        .route("/api/keys/{id}/rotate", post(keys::rotate))
        .route("/api/stats", get(usage::own))
        .route("/api/stats/detailed", get(usage::detailed))
        .route("/api/stats/export.csv", get(usage::own_csv))
        .route("/api/admin/stats", get(usage::all))
        .route("/api/admin/stats/export.csv", get(usage::all_csv))
        .route("/api/admin/audit", get(keys::audit));
    let all = Router::new()
        .merge(open)
        .merge(files)
        .merge(models)
        .merge(generation)
        .merge(ollama)
        .merge(anthropic)
        .merge(llama_cpp)
        .merge(admin)
        .fallback(async || ApiError::not_found("There is nothing at this path"))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed());
    layered(all.with_state(app.clone()), &app)
}

/// What every request passes, the last line first.
fn layered(routes: Router, app: &App) -> Router {
    let routes = routes
        .layer(DefaultBodyLimit::max(limits::BODY))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), front));
    if app.config.cors.is_empty() { routes } else { routes.layer(cors::layer(&app.config.cors)) }
}

/// Names a request and tells of it, counts it, and asks whose it is. One layer, because each costs as much as an empty route.
async fn front(State(app): State<App>, request: Request, next: Next) -> Response {
    let app = &app;
    let known = async |request| auth::guard(app, request, next).await;
    let counted = async |request| metrics::count(app, request, known).await;
    in_flight::track(app, request, counted).await
}

/// Refuses requests while the model is loaded and once the server is to stop.
async fn ready(State(app): State<App>, request: Request, next: Next) -> Response {
    match health::check(&app) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// A fault of ours ends the request and not the server.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    ApiError::internal("The server made a mistake").into_response()
}
