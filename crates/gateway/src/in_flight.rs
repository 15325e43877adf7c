//! Requests that are being answered, their bodies included.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tokio::sync::watch;

use crate::ids;
use crate::state::App;

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

/// Counts a request, and gives its answer a name.
pub(crate) async fn track(State(app): State<App>, request: Request, next: Next) -> Response {
    let guard = app.in_flight.enter();
    let mut response = next.run(request).await.map(|body| Body::new(Guarded { body, _guard: guard }));
    if let Ok(id) = HeaderValue::from_str(&ids::new("req_")) {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
    }
    response
}
