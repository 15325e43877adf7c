//! The answer of `/v1/chat/completions` as it comes.

use std::sync::Arc;

use engine::scheduler::Event;
use serde::Serialize;

use super::answer::{Logprob, Logprobs};
use crate::engine_thread::Handle;
use crate::openai::chunks::Chunks;
use crate::openai::types::finish_reason;
use crate::stream::Render;
use crate::tools::{Call, Format, Piece, Splitter};

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta<'a>; 1]>,
}

/// A piece of a call: its name first, then its arguments.
#[derive(Serialize)]
struct CallDelta<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta<'a>,
}

#[derive(Serialize)]
struct FunctionDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

/// Writes the events of a chat.
pub(crate) struct ChatStream {
    chunks: Chunks,
    logprobs: bool,
    calls: Option<Format>,
    /// Choices whose role has been told, and what their texts mean.
    begun: Vec<(usize, Splitter)>,
}

impl ChatStream {
    pub(crate) fn new(
        handle: Arc<Handle>,
        logprobs: bool,
        calls: Option<Format>,
        include_usage: bool,
    ) -> Self {
        let chunks = Chunks::new(handle, "chat.completion.chunk", "chatcmpl-", include_usage);
        Self { chunks, logprobs, calls, begun: Vec::new() }
    }

    fn delta(&self, index: usize, delta: Delta<'_>, logprobs: Option<Logprobs>, out: &mut Vec<u8>) {
        self.chunks.write(&[ChunkChoice { index, delta, logprobs, finish_reason: None }], out);
    }

    /// The first event of a choice says who speaks.
    fn begin(&mut self, index: usize, out: &mut Vec<u8>) {
        if !self.begun.iter().any(|(begun, _)| *begun == index) {
            self.begun.push((index, Splitter::new(self.calls)));
            let delta = Delta { role: Some("assistant"), content: Some(None), ..Delta::default() };
            self.delta(index, delta, None, out);
        }
    }

    fn text(&self, index: usize, text: &str, logprobs: Option<Logprobs>, out: &mut Vec<u8>) {
        if !text.is_empty() || logprobs.is_some() {
            self.delta(index, Delta { content: Some(Some(text)), ..Delta::default() }, logprobs, out);
        }
    }

    /// Gives text to the choice's splitter, and tells what is certain; all that is left at the end.
    fn split(
        &mut self,
        index: usize,
        text: &str,
        end: bool,
        logprobs: Option<Logprobs>,
        out: &mut Vec<u8>,
    ) -> usize {
        let Some((_, splitter)) = self.begun.iter_mut().find(|(begun, _)| *begun == index) else { return 0 };
        let mut calls = splitter.calls();
        let mut pieces = splitter.push(text);
        if end {
            pieces.extend(splitter.finish());
        }
        let mut logprobs = logprobs;
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.text(index, &text, logprobs.take(), out),
                Piece::Call(call) => {
                    self.call(index, calls, &call, out);
                    calls += 1;
                }
            }
        }
        self.text(index, "", logprobs, out);
        calls
    }

    fn call(&self, index: usize, place: usize, call: &Call, out: &mut Vec<u8>) {
        let (id, kind, name) = (Some(&*call.id), Some("function"), Some(&*call.name));
        let head = CallDelta { index: place, id, kind, function: FunctionDelta { name, arguments: "" } };
        self.delta(index, Delta { tool_calls: Some([head]), ..Delta::default() }, None, out);
        let arguments = call.arguments.to_string();
        let function = FunctionDelta { name: None, arguments: &arguments };
        let rest = CallDelta { index: place, id: None, kind: None, function };
        self.delta(index, Delta { tool_calls: Some([rest]), ..Delta::default() }, None, out);
    }
}

impl Render for ChatStream {
    fn start(&mut self, out: &mut Vec<u8>) {
        self.begin(0, out);
    }

    fn event(&mut self, index: usize, event: Event, out: &mut Vec<u8>) {
        self.begin(index, out);
        match event {
            Event::Token { text, logprob, .. } => {
                let card = &self.chunks.handle.card;
                let logprobs = logprob.filter(|_| self.logprobs);
                let logprobs =
                    logprobs.map(|l| Logprobs { content: vec![Logprob::new(card, &l)], refusal: None });
                self.split(index, &text, false, logprobs, out);
            }
            Event::Finished { text, reason, usage } => {
                let calls = self.split(index, &text, true, None, out);
                let finish_reason = Some(if calls > 0 { "tool_calls" } else { finish_reason(reason) });
                let last = ChunkChoice { index, delta: Delta::default(), logprobs: None, finish_reason };
                self.chunks.write(&[last], out);
                self.chunks.finished(index, usage);
            }
            Event::Failed(error) => self.chunks.failed(error, out),
            Event::Prompt(_) | Event::Embedded { .. } => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        // All choices have the same prompt.
        self.chunks.end(self.begun.len(), out);
    }
}
