//! Answers that are sent while they come.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use engine::scheduler::Event;
use futures_util::stream;
use serde::Serialize;

use crate::generation::Generation;
use crate::limits;

/// Events that are written at once at most.
const AT_ONCE: usize = 64;

/// Turns events into bytes of one interface.
pub(crate) trait Render: Send + 'static {
    /// What comes before all events.
    fn start(&mut self, out: &mut Vec<u8>);

    /// What an event of job `index` becomes.
    fn event(&mut self, index: usize, event: Event, out: &mut Vec<u8>);

    /// What comes when all jobs have ended.
    fn end(&mut self, out: &mut Vec<u8>);

    /// What shows that the stream is alive while nothing happens.
    fn keep_alive(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b": keep-alive\n\n");
    }

    /// The media type.
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }
}

/// Appends a line `data: …` and an empty one.
pub(crate) fn data(value: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    json(value, out);
    out.extend_from_slice(b"\n\n");
}

/// Appends `event: name` and its data.
pub(crate) fn named(name: &str, value: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    data(value, out);
}

/// Appends a value in one line.
pub(crate) fn json(value: &impl Serialize, out: &mut Vec<u8>) {
    let before = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        // Our own types have string keys and finite numbers; what cannot be written is left out whole.
        out.truncate(before);
    }
}

/// A response that sends the events of a generation as they come. When the client goes, the generation is dropped and
/// its jobs are cancelled.
pub(crate) fn respond(generation: Generation, render: impl Render) -> Response {
    let content_type = render.content_type();
    let state = State { generation, render, started: false, open: 0, done: false, events: Vec::new() };
    let state = State { open: state.generation.jobs, ..state };
    let body = Body::from_stream(stream::unfold(state, next));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // Proxies such as nginx would otherwise collect the stream.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

struct State<R> {
    generation: Generation,
    render: R,
    started: bool,
    /// Jobs that have not ended.
    open: usize,
    done: bool,
    events: Vec<(usize, Event)>,
}

async fn next<R: Render>(mut state: State<R>) -> Option<(Result<Bytes, Infallible>, State<R>)> {
    if state.done {
        return None;
    }
    let mut out = Vec::new();
    if !state.started {
        state.started = true;
        state.render.start(&mut out);
        if !out.is_empty() {
            return Some((Ok(out.into()), state));
        }
    }
    loop {
        let wait = state.generation.next(&mut state.events, AT_ONCE);
        match tokio::time::timeout(limits::KEEP_ALIVE, wait).await {
            Err(_) => state.render.keep_alive(&mut out),
            Ok(false) => state.open = 0,
            Ok(true) => {}
        }
        for (index, event) in state.events.drain(..) {
            state.open = state.open.saturating_sub(usize::from(event.is_last()));
            state.render.event(index, event, &mut out);
        }
        if state.open == 0 {
            state.render.end(&mut out);
            state.done = true;
        }
        if !out.is_empty() || state.done {
            return Some((Ok(out.into()), state));
        }
    }
}
