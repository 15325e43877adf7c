//! Requests that are being answered, their bodies included.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use opentelemetry::context::FutureExt;
use tokio::sync::watch;

use crate::ids;
use crate::log::Told;
use crate::state::App;
use crate::trace::Span;

/// The header that names a request.
const REQUEST_ID: &str = "x-request-id";

/// How many there are.
#[derive(Debug)]
pub(crate) struct InFlight(watch::Sender<usize>);

impl InFlight {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// One more, until the guard is dropped.
    pub(crate) fn enter(&self) -> Guard {
        self.0.send_modify(|n| *n += 1);
        Guard(self.0.clone())
    }

    /// How many there are now.
    pub(crate) fn now(&self) -> usize {
        *self.0.borrow()
    }

    /// Ready when there is none.
    pub(crate) async fn none(&self) {
        // The sender is ours and lives as long as we wait.
        let _ = self.0.subscribe().wait_for(|n| *n == 0).await;
    }
}

/// One of them.
pub(crate) struct Guard(watch::Sender<usize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// A body whose request is in flight until it is sent or dropped.
struct Guarded {
    body: Body,
    _guard: Guard,
    /// Ends with it.
    _span: Option<Span>,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counts a request, gives its answer a name, and tells of it in the log and its trace.
pub(crate) async fn track(
    app: &App,
    request: Request,
    answer: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let guard = app.in_flight.enter();
    let started = Instant::now();
    let told = app.config.log.as_ref().map(|log| {
        let route = request.extensions().get::<MatchedPath>().cloned();
        (log, request.method().clone(), route)
    });
    let id = given(request.headers()).unwrap_or_else(|| ids::new("req_"));
    let span = app.trace.as_ref().map(|trace| trace.begin(&request));
    let response = match &span {
        Some(span) => answer(request).with_context(span.context()).await,
        None => answer(request).await,
    };
    if let Some(span) = &span {
        span.answered(response.status(), &id);
    }
    let mut response = response.map(|body| Body::new(Guarded { body, _guard: guard, _span: span }));
    if let Some((log, method, route)) = told {
        log.request(&Told {
            id: &id,
            method: &method,
            route: route.as_ref().map_or("none", MatchedPath::as_str),
            status: response.status(),
            who: response.extensions().get(),
            time: started.elapsed(),
        });
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HeaderName::from_static(REQUEST_ID), id);
    }
    response
}

/// The name that the client gave, if it is one that can stand in a log.
fn given(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (!id.is_empty() && id.len() <= 64 && id.bytes().all(is_name)).then(|| id.to_owned())
}
