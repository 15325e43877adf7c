//! `/v1/ws`: several requests over one connection, each with a name, and a way to cancel them.
//!
//! A request names one of the paths of [`PATHS`] and carries the body that this path takes; it goes through the same
//! router as any other, so it is checked, limited and answered alike. What would be an event of a stream becomes a
//! message. The protocol stands in `docs/src/websocket.md`.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, AbortHandle, Abortable, BoxStream, SelectAll};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::error::ApiError;
use crate::limits;
use crate::sse::Lines;
use crate::state::Gate;

/// Where requests may go.
const PATHS: [&str; 5] =
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages", "/v1/responses"];
/// Requests of one connection at a time.
const REQUESTS: usize = 64;
/// Bytes of a request's name.
const ID_BYTES: usize = 64;
/// How long one message may take to leave. A client that reads too slowly holds up its own requests, and nobody else's.
const SEND_TIME: Duration = Duration::from_secs(30);

/// What a client says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FromClient {
    #[serde(rename = "type")]
    kind: Kind,
    id: String,
    /// Of a request.
    path: Option<String>,
    /// Of a request; read where it goes.
    body: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Asks.
    Request,
    /// Takes a question back.
    Cancel,
}

/// Turns a request into a connection. A page of another origin may open one only where the configuration lets its
/// origin in: browsers do not ask before they connect.
pub(crate) async fn open(
    State(gate): State<Gate>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !is_welcome(&headers, &gate.app.config.cors) {
        return ApiError::forbidden("This origin may not connect (--cors lets it in)").into_response();
    }
    let upgrade = upgrade.max_message_size(limits::BODY).max_frame_size(limits::BODY);
    upgrade.on_upgrade(move |socket| Connection::new(gate, &headers).run(socket))
}

fn is_welcome(headers: &HeaderMap, allowed: &[String]) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return true };
    let same = origin.split_once("://").is_some_and(|(_, host)| Some(host) == text(header::HOST));
    same || allowed.iter().any(|other| other == "*" || other == origin)
}

/// What a connection sends next.
struct Outgoing {
    id: String,
    message: Message,
    /// Whether the request has ended with it.
    last: bool,
}

/// One connection.
struct Connection {
    gate: Gate,
    /// What says who asks.
    credentials: HeaderMap,
    /// What the requests that run have to say. One that is dropped is cancelled, and says no more.
    answers: SelectAll<Abortable<BoxStream<'static, Outgoing>>>,
    running: HashMap<String, AbortHandle>,
}

impl Connection {
    fn new(gate: Gate, headers: &HeaderMap) -> Self {
        let mut credentials = HeaderMap::new();
        for name in [header::AUTHORIZATION, HeaderName::from_static("x-api-key")] {
            if let Some(value) = headers.get(&name) {
                credentials.insert(name, value.clone());
            }
        }
        Self { gate, credentials, answers: SelectAll::new(), running: HashMap::new() }
    }

    /// Answers until one side closes.
    async fn run(mut self, socket: WebSocket) {
        let (mut sink, mut incoming) = socket.split();
        // Keeps the server from stopping while requests run.
        let mut busy = None;
        let mut alive = tokio::time::interval(limits::KEEP_ALIVE);
        loop {
            let message = tokio::select! {
                Some(next) = self.answers.next(), if !self.answers.is_empty() => {
                    if next.last {
                        self.running.remove(&next.id);
                    }
                    Some(next.message)
                }
                message = incoming.next() => match message {
                    Some(Ok(Message::Text(text))) => self.take(text.as_bytes()),
                    Some(Ok(Message::Binary(bytes))) => self.take(&bytes),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                },
                _ = alive.tick() => Some(Message::Ping(Bytes::new())),
            };
            let message = message.map(|message| tokio::time::timeout(SEND_TIME, sink.send(message)));
            if let Some(sending) = message
                && !matches!(sending.await, Ok(Ok(())))
            {
                return;
            }
            if !self.running.is_empty() {
                busy.get_or_insert_with(|| self.gate.app.in_flight.enter());
                continue;
            }
            busy = None;
            if self.gate.app.is_draining() {
                // A client that has gone already needs no farewell.
                let _ = sink.send(Message::Close(None)).await;
                return;
            }
        }
    }

    /// Does what a message says; gives what is answered at once.
    fn take(&mut self, bytes: &[u8]) -> Option<Message> {
        match serde_json::from_slice(bytes) {
            Ok(FromClient { kind: Kind::Request, id, path, body }) => {
                let path = path.unwrap_or_default();
                let started = match body {
                    Some(body) => self.start(&id, &path, &body),
                    None => Err(ApiError::param("body", "this parameter is required")),
                };
                started.err().map(|error| failed(&id, error.status, &error.object()))
            }
            Ok(FromClient { kind: Kind::Cancel, id, .. }) => {
                // What has ended already needs no word: its `done` is on its way.
                self.running.remove(&id)?.abort();
                Some(message(&json!({ "type": "cancelled", "id": id })))
            }
            Err(problem) => {
                let error = ApiError::bad_request(format!("This message is not understood: {problem}"));
                Some(failed("", error.status, &error.object()))
            }
        }
    }

    fn start(&mut self, id: &str, path: &str, body: &RawValue) -> Result<(), ApiError> {
        if id.is_empty() || id.len() > ID_BYTES {
            return Err(ApiError::param("id", format!("a name has 1 to {ID_BYTES} bytes")));
        }
        if self.running.contains_key(id) {
            return Err(ApiError::param("id", "a request of this name is still running"));
        }
        if !PATHS.contains(&path) {
            return Err(ApiError::param("path", format!("it must be one of {}", PATHS.join(", "))));
        }
        if self.running.len() >= REQUESTS {
            return Err(ApiError::overloaded());
        }
        let request = post(path, &self.credentials, body.get().to_owned())?;
        let api = self.gate.api.clone();
        let name = id.to_owned();
        let answer = async move {
            let Ok(response) = api.oneshot(request).await;
            outgoing(name, response).await
        };
        let (answer, handle) = stream::abortable(stream::once(answer).flatten().boxed());
        self.answers.push(answer);
        self.running.insert(id.to_owned(), handle);
        Ok(())
    }
}

/// A request in JSON to one of our own routes.
///
/// # Errors
/// A path that is none.
pub(crate) fn post(path: &str, credentials: &HeaderMap, body: String) -> Result<Request<Body>, ApiError> {
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::try_from(path).map_err(|error| ApiError::param("path", error.to_string()))?;
    *request.headers_mut() = credentials.clone();
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(request)
}

/// What a response becomes.
async fn outgoing(id: String, response: Response) -> BoxStream<'static, Outgoing> {
    let done =
        Outgoing { message: message(&json!({ "type": "done", "id": id })), id: id.clone(), last: true };
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        let mut lines = Lines::default();
        let events = response
            .into_body()
            .into_data_stream()
            .flat_map(move |bytes| stream::iter(bytes.map(|bytes| lines.events(&bytes)).unwrap_or_default()));
        // OpenAI's mark of the end; `done` says it here.
        let events = events.filter(|data| std::future::ready(data != "[DONE]"));
        let events = events.map(move |data| {
            // Put together as text: the data is JSON already.
            let id_text = Value::from(id.as_str());
            let text = format!(r#"{{"type":"event","id":{id_text},"data":{data}}}"#);
            Outgoing { id: id.clone(), message: Message::Text(text.into()), last: false }
        });
        return events.chain(stream::once(std::future::ready(done))).boxed();
    }
    let status = response.status();
    let body = Limited::new(response.into_body(), limits::FILE).collect().await;
    let value =
        body.ok().and_then(|body| serde_json::from_slice::<Value>(&body.to_bytes()).ok()).unwrap_or_default();
    if !status.is_success() {
        let message = failed(&id, status, value.get("error").unwrap_or(&value));
        return stream::iter([Outgoing { id, message, last: true }]).boxed();
    }
    let message = message(&json!({ "type": "response", "id": id, "data": value }));
    stream::iter([Outgoing { id, message, last: false }, done]).boxed()
}

fn failed(id: &str, status: StatusCode, error: &Value) -> Message {
    message(&json!({ "type": "error", "id": id, "status": status.as_u16(), "error": error }))
}

fn message(value: &Value) -> Message {
    Message::Text(value.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("chat.example:8080"));
        if !origin.is_empty() {
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        headers
    }

    #[test]
    fn pages_of_other_origins_are_let_in_by_name_only() {
        let allowed = ["https://app.example".to_owned()];
        assert!(is_welcome(&headers(""), &[]), "a program");
        assert!(is_welcome(&headers("https://chat.example:8080"), &[]), "the server's own page");
        assert!(!is_welcome(&headers("https://chat.example"), &allowed), "another port");
        assert!(!is_welcome(&headers("https://evil.example"), &allowed));
        assert!(!is_welcome(&headers("null"), &allowed));
        assert!(is_welcome(&headers("https://app.example"), &allowed));
        assert!(is_welcome(&headers("https://evil.example"), &["*".to_owned()]));
    }
}
