//! Several sequences in one pass over the weights.

use crate::error::EngineError;
use crate::forward::{Buffers, MAX_BATCH, forward};
use crate::head::LIKELY;
use crate::hidden_states::HiddenStates;
use crate::kv_cache::KvCache;
use crate::model::Model;
use crate::profile::Profile;

/// Which of a slot's tokens get logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitsOf {
    /// None: a piece of a prompt with more to come.
    None,
    /// The last one.
    Last,
    /// The last one, for the most likely token: with a large vocabulary only those logits are exact that could be the
    /// greatest, and it takes less time. The greatest one is that of [`LogitsOf::Last`].
    Best,
    /// The last one, for a random choice: as [`LogitsOf::Best`], and all are exact that are likely enough to matter.
    Likely,
    /// Every one.
    All,
}

/// One sequence's share of a batch: its next tokens, one to go on generating or a piece of a prompt.
#[derive(Debug)]
pub struct Slot<'s> {
    /// What the sequence has seen; the tokens are added to it.
    pub cache: &'s mut KvCache,
    /// The tokens.
    pub ids: &'s [u32],
    /// Which of them get logits.
    pub logits: LogitsOf,
}

impl LogitsOf {
    /// How far below the greatest logit the others have to be exact; `None` where all do.
    pub(crate) fn window(self) -> Option<f32> {
        match self {
            Self::None | Self::Last | Self::All => None,
            Self::Best => Some(0.0),
            Self::Likely => Some(LIKELY),
        }
    }
}

impl Slot<'_> {
    /// Rows of logits that it gets.
    pub fn rows(&self) -> usize {
        match self.logits {
            LogitsOf::None => 0,
            LogitsOf::Last | LogitsOf::Best | LogitsOf::Likely => 1,
            LogitsOf::All => self.ids.len(),
        }
    }
}

/// Runs batches of sequences on one model: each weight is read once for all of them. A sequence's numbers are
/// those that it would have alone, bit for bit.
#[derive(Debug)]
pub struct Batch<'m> {
    model: &'m Model,
    buffers: Buffers,
}

impl<'m> Batch<'m> {
    /// Working space for up to `tokens` tokens at once (at most [`MAX_BATCH`]), with sequences of up to
    /// `context` positions. More sequences and tokens than that are worked on too, at the price of an allocation.
    pub fn new(model: &'m Model, tokens: usize, context: usize) -> Self {
        let buffers = Buffers::new(model, tokens.min(MAX_BATCH), context);
        Self { model, buffers }
    }

    /// Runs the tokens of all slots, [`MAX_BATCH`] at most in all, and returns the logits, `[rows, vocab_size]`,
    /// slot after slot ([`Slot::rows`] of each).
    ///
    /// Errors: too many tokens, a slot without tokens or with another model's cache, ids outside the vocabulary, a full context: then
    /// nothing has changed. Logits that are not finite: then no sequence has moved on.
    pub fn forward(&mut self, slots: &mut [Slot<'_>]) -> Result<&[f32], EngineError> {
        let tokens: usize = slots.iter().map(|slot| slot.ids.len()).sum();
        if tokens > MAX_BATCH {
            return Err(EngineError::Request(format!("{tokens} tokens at once: at most {MAX_BATCH}")));
        }
        slots.iter().try_for_each(|slot| check(self.model, slot.cache, slot.ids))?;
        forward(self.model, slots, &mut self.buffers)?;
        self.check_logits(slots)?;
        slots.iter_mut().for_each(|slot| slot.cache.extend(slot.ids.len()));
        Ok(&self.buffers.logits)
    }

    /// From now on the time of every operation is taken.
    pub fn start_profile(&mut self) {
        self.buffers.profile = Some(Profile::new(self.model.config.n_layers));
    }

    /// What was taken since [`Batch::start_profile`], and no more is.
    pub fn take_profile(&mut self) -> Option<Profile> {
        self.buffers.profile.take()
    }

    /// From now on the hidden states behind each layer are kept.
    pub fn keep_hidden_states(&mut self) {
        self.buffers.hidden_states =
            Some(HiddenStates::new(self.model.config.n_layers, self.model.config.dim));
    }

    /// Those of the last batch, slot after slot, since [`Batch::keep_hidden_states`].
    pub fn hidden_states(&self) -> Option<&HiddenStates> {
        self.buffers.hidden_states.as_ref()
    }

    /// The logits of the last batch.
    pub(crate) fn logits(&self) -> &[f32] {
        &self.buffers.logits
    }

    /// The last layer's output of the rows of the last batch that got logits, `[rows, dim]`, before the final norm.
    pub(crate) fn hidden(&self) -> &[f32] {
        &self.buffers.x
    }

    fn check_logits(&self, slots: &[Slot<'_>]) -> Result<(), EngineError> {
        let Some(at) = self.buffers.logits.iter().position(|x| !x.is_finite()) else { return Ok(()) };
        let mut row = at / self.model.config.vocab_size;
        let mut position = 0;
        for slot in slots {
            if row < slot.rows() {
                position = slot.cache.position() + slot.ids.len() - slot.rows() + row;
                break;
            }
            row -= slot.rows();
        }
        let culprit = self.model.weights.find_not_finite();
        Err(EngineError::NotFinite {
            position,
            culprit: culprit.map_or_else(String::new, |(tensor, row)| {
                format!(": tensor {tensor} holds NaN or infinity in row {row}")
            }),
        })
    }
}

/// Whether a sequence can go on with these tokens.
pub(crate) fn check(model: &Model, cache: &KvCache, ids: &[u32]) -> Result<(), EngineError> {
    let vocab_size = model.config.vocab_size;
    if !cache.fits(&model.config) {
        return Err(EngineError::Request("a cache made for another model".to_owned()));
    }
    if ids.is_empty() {
        return Err(EngineError::Request("no tokens to run".to_owned()));
    }
    if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
        return Err(EngineError::TokenId { id, vocab_size });
    }
    let tokens = cache.position().saturating_add(ids.len());
    if tokens > cache.context() {
        return Err(EngineError::ContextFull { tokens, context: cache.context() });
    }
    Ok(())
}
