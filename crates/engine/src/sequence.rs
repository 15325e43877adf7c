//! A text in progress: the positions seen so far and their cached keys and values.

use crate::batch::{Batch, LogitsOf, Slot, check};
use crate::error::EngineError;
use crate::forward::MAX_BATCH;
use crate::hidden_states::HiddenStates;
use crate::kv_cache::KvCache;
use crate::model::Model;
use crate::profile::Profile;
use crate::realtime;

/// What [`Sequence::forward_all`] calls with the index of each token and its logits `[vocab_size]`.
pub type EachLogits<'a> = dyn FnMut(usize, &[f32]) -> Result<(), EngineError> + 'a;

/// One sequence of tokens on one model.
#[derive(Debug)]
pub struct Sequence<'m> {
    model: &'m Model,
    cache: KvCache,
    batch: Batch<'m>,
    refused: Vec<String>,
}

impl<'m> Sequence<'m> {
    /// An empty sequence with room for `context` positions (at most what the model was made for).
    pub fn new(model: &'m Model, context: usize) -> Result<Self, EngineError> {
        let (cache, batch) = (model.cache(context)?, Batch::new(model, context, context));
        let mut sequence = Self { model, cache, batch, refused: Vec::new() };
        if let Some(refused) = &model.realtime {
            sequence.refused.clone_from(refused);
            sequence.prepare();
        }
        Ok(sequence)
    }

    /// What the system refused of [`crate::LoadOptions::realtime`]; empty where it was not asked for.
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// Brings everything that decoding touches into memory, and locks it there.
    fn prepare(&mut self) {
        for matrix in self.model.weights.matrices() {
            if let Ok(view) = matrix.view() {
                (0..view.rows()).for_each(|r| realtime::touch(view.row(r)));
            }
        }
        self.cache.touch();
        // A batch of any tokens gives every thread its buffers. What is wrong with the model shows here too, but it
        // is for the first real tokens to say so.
        let ids = [0; MAX_BATCH];
        let _ = self.step(&ids[..MAX_BATCH.min(self.context())], LogitsOf::Best);
        self.truncate(0);
        self.refused.extend(realtime::lock_memory().err());
    }

    /// Tokens seen so far.
    pub fn position(&self) -> usize {
        self.cache.position()
    }

    /// Positions that there is room for.
    pub fn context(&self) -> usize {
        self.cache.context()
    }

    /// Forgets everything from `position` on.
    pub fn truncate(&mut self, position: usize) {
        self.cache.truncate(position);
    }

    /// From now on the time of every operation is taken.
    pub fn start_profile(&mut self) {
        self.batch.start_profile();
    }

    /// What was taken since [`Sequence::start_profile`], and no more is.
    pub fn take_profile(&mut self) -> Option<Profile> {
        self.batch.take_profile()
    }

    /// From now on the hidden states behind each layer are kept.
    pub fn keep_hidden_states(&mut self) {
        self.batch.keep_hidden_states();
    }

    /// Those of the last tokens, [`MAX_BATCH`] of them at most, since [`Sequence::keep_hidden_states`].
    pub fn hidden_states(&self) -> Option<&HiddenStates> {
        self.batch.hidden_states()
    }

    /// Runs `ids` and returns the logits `[vocab_size]` of the last one.
    pub fn forward(&mut self, ids: &[u32]) -> Result<&[f32], EngineError> {
        self.forward_for(ids, LogitsOf::Last)
    }

    /// Runs `ids` and returns the logits of `last` ([`LogitsOf`]).
    pub fn forward_for(&mut self, ids: &[u32], last: LogitsOf) -> Result<&[f32], EngineError> {
        check(self.model, &self.cache, ids)?;
        let batches = ids.len().div_ceil(MAX_BATCH);
        for (i, ids) in ids.chunks(MAX_BATCH).enumerate() {
            self.step(ids, if i + 1 == batches { last } else { LogitsOf::None })?;
        }
        Ok(self.batch.logits())
    }

    /// Row `row` of the logits that the last run was asked for; the first where there is only one.
    pub(crate) fn logits_of_row(&self, row: usize) -> &[f32] {
        let vocab_size = self.model.config.vocab_size;
        let logits = self.batch.logits();
        logits.get(row * vocab_size..(row + 1) * vocab_size).unwrap_or(logits)
    }

    /// Runs `ids` and calls `each` with the index in `ids` and the logits `[vocab_size]` of every one, in
    /// order. An error of `each` ends the run.
    pub fn forward_all(&mut self, ids: &[u32], each: &mut EachLogits<'_>) -> Result<(), EngineError> {
        check(self.model, &self.cache, ids)?;
        for (b, ids) in ids.chunks(MAX_BATCH).enumerate() {
            self.step(ids, LogitsOf::All)?;
            let rows = self.batch.logits().chunks_exact(self.model.config.vocab_size);
            for (t, logits) in rows.enumerate() {
                each(b * MAX_BATCH + t, logits)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, ids: &[u32], logits: LogitsOf) -> Result<(), EngineError> {
        self.batch.forward(&mut [Slot { cache: &mut self.cache, ids, logits }])?;
        Ok(())
    }
}
