//! The answer of `/v1/completions` as it comes.

use std::sync::Arc;

use engine::scheduler::Event;

use super::answer::{Shape, TextChoice, TextLogprobs};
use crate::engine_thread::Handle;
use crate::openai::chunks::Chunks;
use crate::openai::types::finish_reason;
use crate::stream::Render;

/// Writes the events of completions.
pub(crate) struct TextStream {
    chunks: Chunks,
    shape: Shape,
    /// Choices that have begun, and the characters that each has.
    lengths: Vec<Option<usize>>,
}

impl TextStream {
    pub(crate) fn new(handle: Arc<Handle>, shape: Shape, include_usage: bool) -> Self {
        let chunks = Chunks::new(handle, "text_completion", "cmpl-", include_usage);
        Self { chunks, shape, lengths: Vec::new() }
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
        let card = &self.chunks.handle.card;
        let Some(text) = self.shape.echoed(card, index) else { return };
        let mut logprobs = TextLogprobs::default();
        for (i, &id) in self.shape.echo.get(index / self.shape.best_of).into_iter().flatten().enumerate() {
            logprobs.push(card, id, i.checked_sub(1).and_then(|i| prompt.get(i)));
        }
        self.lengths[index] = Some(logprobs.length());
        let logprobs = self.shape.logprobs.map(|_| logprobs);
        self.chunks.write(&[TextChoice { text, index, logprobs, finish_reason: None }], out);
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
                    logprobs.push(&self.chunks.handle.card, l.id, Some(&l));
                    self.lengths[index] = Some(logprobs.length());
                    logprobs
                });
                if !text.is_empty() || logprobs.is_some() {
                    self.chunks.write(&[TextChoice { text, index, logprobs, finish_reason: None }], out);
                }
            }
            Event::Finished { text, reason, usage } => {
                self.begin(index, &[], out);
                let finish_reason = Some(finish_reason(reason));
                self.chunks.write(&[TextChoice { text, index, logprobs: None, finish_reason }], out);
                self.chunks.finished(index, usage);
            }
            Event::Failed(error) => self.chunks.failed(error, out),
            Event::Embedded { .. } => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.chunks.end(self.shape.best_of, out);
    }
}
