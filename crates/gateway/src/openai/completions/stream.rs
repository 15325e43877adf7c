//! The answer of `/v1/completions` as it comes.

use std::sync::Arc;

use engine::scheduler::{Event, Usage};
use serde::Serialize;
use serde_json::json;

use super::answer::{Shape, TextChoice, TextLogprobs};
use crate::engine_thread::Handle;
use crate::error::ApiError;
use crate::ids;
use crate::openai::chat::FINGERPRINT;
use crate::openai::types::{TokenUsage, finish_reason};
use crate::stream::{Render, data};

/// One event of the stream.
#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: &'a [TextChoice],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<TokenUsage>>,
}

/// Writes the events of completions.
pub(crate) struct TextStream {
    handle: Arc<Handle>,
    id: String,
    created: u64,
    shape: Shape,
    include_usage: bool,
    /// Choices that have begun, and the characters that each has.
    lengths: Vec<Option<usize>>,
    usages: Vec<(usize, Usage)>,
    failed: bool,
}

impl TextStream {
    pub(crate) fn new(handle: Arc<Handle>, shape: Shape, include_usage: bool) -> Self {
        Self {
            handle,
            id: ids::new("cmpl-"),
            created: ids::now(),
            shape,
            include_usage,
            lengths: Vec::new(),
            usages: Vec::new(),
            failed: false,
        }
    }

    fn chunk(&self, choices: &[TextChoice], usage: Option<TokenUsage>, out: &mut Vec<u8>) {
        let chunk = Chunk {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.handle.card.name,
            system_fingerprint: FINGERPRINT,
            choices,
            usage: self.include_usage.then_some(usage),
        };
        data(&chunk, out);
    }

    /// The prompt, if it is to be given back, comes before the first token.
    fn begin(&mut self, index: usize, prompt: &[engine::scheduler::TokenLogprob], out: &mut Vec<u8>) {
        if self.lengths.len() <= index {
            self.lengths.resize(index + 1, None);
        }
        if self.lengths[index].is_some() {
            return;
        }
        self.lengths[index] = Some(0);
        let card = &self.handle.card;
        let Some(text) = self.shape.echoed(card, index) else { return };
        let mut logprobs = TextLogprobs::default();
        for (i, &id) in self.shape.echo.get(index / self.shape.best_of).into_iter().flatten().enumerate() {
            logprobs.push(card, id, i.checked_sub(1).and_then(|i| prompt.get(i)));
        }
        self.lengths[index] = Some(logprobs.length());
        let logprobs = self.shape.logprobs.map(|_| logprobs);
        self.chunk(&[TextChoice { text, index, logprobs, finish_reason: None }], None, out);
    }
}

impl Render for TextStream {
    fn start(&mut self, _out: &mut Vec<u8>) {}

    fn event(&mut self, index: usize, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Prompt(logprobs) => self.begin(index, &logprobs, out),
            Event::Token { text, logprob, .. } => {
                self.begin(index, &[], out);
                let logprobs = self.shape.logprobs.and(logprob).map(|l| {
                    let mut logprobs = TextLogprobs::at(self.lengths[index].unwrap_or(0));
                    logprobs.push(&self.handle.card, l.id, Some(&l));
                    self.lengths[index] = Some(logprobs.length());
                    logprobs
                });
                if !text.is_empty() || logprobs.is_some() {
                    self.chunk(&[TextChoice { text, index, logprobs, finish_reason: None }], None, out);
                }
            }
            Event::Finished { text, reason, usage } => {
                self.begin(index, &[], out);
                let finish_reason = Some(finish_reason(reason));
                self.chunk(&[TextChoice { text, index, logprobs: None, finish_reason }], None, out);
                self.usages.push((index, usage));
            }
            Event::Failed(error) => {
                self.failed = true;
                data(&json!({ "error": ApiError::from(error).object() }), out);
            }
            Event::Embedded { .. } => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.include_usage && !self.failed {
            self.usages.sort_unstable_by_key(|(index, _)| *index);
            let usages: Vec<Usage> = self.usages.iter().map(|(_, usage)| *usage).collect();
            self.chunk(&[], Some(TokenUsage::of(&usages, self.shape.best_of)), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}
