//! What every request passes: who asks, may he, and has he not asked too much.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::call::Call;
use super::identity::{Identity, Role};
use crate::access::Access;
use crate::error::ApiError;
use crate::limiter::Standing;
use crate::log::Who;
use crate::state::App;
use crate::{anthropic, ollama};

/// The routes that are open. All others, and all that is no route, are closed to whoever does not show who he is.
pub(crate) const OPEN: [&str; 7] = ["/", "/health", "/live", "/ready", "/ui", "/ui/", "/ui/{*path}"];

/// The routes that run a model: they are limited, and what they use is written down.
pub(crate) const METERED: [&str; 18] = [
    "/v1/chat/completions",
    "/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/embeddings",
    "/v1/responses",
    "/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/chat/completions/input_tokens",
    "/chat/completions/input_tokens",
    "/apply-template",
    "/tokenize",
    "/detokenize",
    "/api/generate",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
];

/// The address that a connection came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Asks who is there, where the configuration says so.
pub(crate) async fn guard(app: &App, request: Request, next: Next) -> Response {
    let Some(access) = &app.access else { return next.run(request).await };
    let path = request.extensions().get::<MatchedPath>().cloned();
    let path = path.as_ref().map_or("", MatchedPath::as_str);
    if OPEN.contains(&path) {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let call = match admit(access, &head, path).await {
        Ok(call) => Arc::new(call),
        Err(error) => return refuse(error, head.uri.path()).await,
    };
    let mut response = call.clone().scope(next.run(Request::from_parts(head, body))).await;
    let mut standings = call.answered(response.status());
    standings.extend(ApiError::of(&response).and_then(|error| error.standing()));
    Standing::tell(&standings, response.headers_mut());
    response.extensions_mut().insert(Who(call.identity.subject.clone()));
    response
}

/// Lets a request in.
async fn admit(access: &Arc<Access>, head: &Parts, path: &str) -> Result<Call, ApiError> {
    let identity = match head.extensions.get::<Arc<Identity>>() {
        // One of our own requests, on behalf of somebody who was let in before.
        Some(identity) => identity.clone(),
        None => {
            let peer = head.extensions.get::<Peer>().map(|peer| peer.0);
            access.admit_address(peer, &head.headers)?;
            access.identify(&head.headers)?
        }
    };
    may(identity.role, &head.method, path)?;
    if head.method != Method::POST || !METERED.contains(&path) {
        let place = access.limiter.enter(&identity.meter, None).await?;
        return Ok(Call::new(access.clone(), identity, None, place, Vec::new()));
    }
    let limits = access.limits_of(&identity);
    let place = access.limiter.enter(&identity.meter, limits.parallel_requests).await?;
    let taken = access.limiter.take(&identity.meter, &limits.of_requests(), 1).await?;
    Ok(Call::new(access.clone(), identity, Some(path.into()), place, taken.standings))
}

/// Whether this role may do this.
fn may(role: Role, method: &Method, path: &str) -> Result<(), ApiError> {
    let of_keys = path == "/api/keys" || path.starts_with("/api/keys/");
    let needs_admin =
        path.starts_with("/api/admin/") || (of_keys && method != Method::GET && method != Method::HEAD);
    let allowed = match role {
        Role::Admin => true,
        Role::Monitor => path == "/metrics",
        Role::User => !needs_admin && path != "/metrics",
    };
    if allowed { Ok(()) } else { Err(ApiError::forbidden("This key may not do that: it needs another role")) }
}

/// A refusal in the words of the interface that was asked.
async fn refuse(error: ApiError, path: &str) -> Response {
    let (is_unknown, standing) = (error.status == StatusCode::UNAUTHORIZED, error.standing());
    let response = error.into_response();
    let mut response = if path.starts_with("/v1/messages") {
        anthropic::errors(response).await
    } else if OLLAMA.contains(&path) {
        ollama::errors(response).await
    } else {
        response
    };
    tell_refusal(response.headers_mut(), is_unknown, standing);
    response
}

/// The routes whose errors are Ollama's.
const OLLAMA: [&str; 9] = [
    "/api/generate",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/api/show",
    "/api/tags",
    "/api/ps",
    "/api/version",
    "/api/models",
];

fn tell_refusal(headers: &mut HeaderMap, is_unknown: bool, standing: Option<Standing>) {
    if is_unknown {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    Standing::tell(standing.as_slice(), headers);
}
