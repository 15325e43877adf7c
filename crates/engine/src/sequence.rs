//! A text in progress: the positions seen so far and their cached keys and values.

use crate::error::EngineError;
use crate::forward::{Buffers, LogitsOf, MAX_BATCH, forward};
use crate::kv_cache::KvCache;
use crate::model::Model;

/// What [`Sequence::forward_all`] calls with the index of each token and its logits `[vocab_size]`.
pub type EachLogits<'a> = dyn FnMut(usize, &[f32]) -> Result<(), EngineError> + 'a;

/// One sequence of tokens on one model.
#[derive(Debug)]
pub struct Sequence<'m> {
    model: &'m Model,
    cache: KvCache,
    buffers: Buffers,
    position: usize,
}

impl<'m> Sequence<'m> {
    /// An empty sequence with room for `context` positions (at most what the model was made for).
    pub fn new(model: &'m Model, context: usize) -> Result<Self, EngineError> {
        let limit = model.config.seq_len;
        if context == 0 || context > limit {
            return Err(EngineError::Request(format!(
                "a context of {context} tokens: this model takes 1 to {limit}"
            )));
        }
        let cache = KvCache::new(model.kv_type, context, &model.config);
        Ok(Self { model, cache, buffers: Buffers::default(), position: 0 })
    }

    /// Tokens seen so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Positions that there is room for.
    pub fn context(&self) -> usize {
        self.cache.context()
    }

    /// Forgets everything from `position` on.
    pub fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Runs `ids` and returns the logits `[vocab_size]` of the last one.
    pub fn forward(&mut self, ids: &[u32]) -> Result<&[f32], EngineError> {
        self.check(ids)?;
        for batch in ids.chunks(MAX_BATCH) {
            self.step(batch, LogitsOf::Last)?;
        }
        Ok(&self.buffers.logits)
    }

    /// Runs `ids` and calls `each` with the index in `ids` and the logits `[vocab_size]` of every one, in
    /// order. An error of `each` ends the run.
    pub fn forward_all(&mut self, ids: &[u32], each: &mut EachLogits<'_>) -> Result<(), EngineError> {
        self.check(ids)?;
        for (b, batch) in ids.chunks(MAX_BATCH).enumerate() {
            self.step(batch, LogitsOf::All)?;
            for (t, logits) in self.buffers.logits.chunks_exact(self.model.config.vocab_size).enumerate() {
                each(b * MAX_BATCH + t, logits)?;
            }
        }
        Ok(())
    }

    fn check(&self, ids: &[u32]) -> Result<(), EngineError> {
        let vocab_size = self.model.config.vocab_size;
        if ids.is_empty() {
            return Err(EngineError::Request("no tokens to run".to_owned()));
        }
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(EngineError::TokenId { id, vocab_size });
        }
        let tokens = self.position.saturating_add(ids.len());
        if tokens > self.context() {
            return Err(EngineError::ContextFull { tokens, context: self.context() });
        }
        Ok(())
    }

    fn step(&mut self, batch: &[u32], logits_of: LogitsOf) -> Result<(), EngineError> {
        forward(self.model, &mut self.cache, batch, self.position, logits_of, &mut self.buffers)?;
        let vocab_size = self.model.config.vocab_size;
        if let Some(at) = self.buffers.logits.iter().position(|x| !x.is_finite()) {
            let first = if logits_of == LogitsOf::All { 0 } else { batch.len() - 1 };
            let culprit = self.model.weights.find_not_finite();
            return Err(EngineError::NotFinite {
                position: self.position + first + at / vocab_size,
                culprit: culprit.map_or_else(String::new, |(tensor, row)| {
                    format!(": tensor {tensor} holds NaN or infinity in row {row}")
                }),
            });
        }
        self.position += batch.len();
        Ok(())
    }
}
