//! One block of a model at a time, over as many sequences as there are: what calibration runs on.
//!
//! The residual stream is the caller's, so that a sequence can be taken through a block, and the block be changed,
//! before the next. What linear layers take is shown to a [`Tap`].

use kernels::MatmulError;

use super::{Buffers, MAX_BATCH, attention, feed_forward, load_normed, rotations};
use crate::batch::{LogitsOf, Slot};
use crate::error::EngineError;
use crate::kv_cache::KvCache;
use crate::model::Model;
use crate::weights::Layer;

/// Which linear layers an input is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    /// wq, wk and wv: `[tokens, dim]`.
    Qkv,
    /// wo: `[tokens, n_heads * head_dim]`.
    Wo,
    /// w1 and w3: `[tokens, dim]`.
    GateUp,
    /// w2: `[tokens, hidden_dim]`.
    Down,
    /// The classifier: `[tokens, dim]`.
    Classifier,
}

impl Input {
    /// Those of a block, in the order of the forward pass.
    pub const OF_BLOCK: [Self; 4] = [Self::Qkv, Self::Wo, Self::GateUp, Self::Down];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qkv => "qkv",
            Self::Wo => "wo",
            Self::GateUp => "gate_up",
            Self::Down => "down",
            Self::Classifier => "classifier",
        }
    }

    /// The linear layers that take it; none of the classifier's, which is outside the blocks.
    pub fn linears(self, layer: &Layer) -> Vec<&crate::weights::Linear> {
        match self {
            Self::Qkv => vec![&layer.wq, &layer.wk, &layer.wv],
            Self::Wo => vec![&layer.wo],
            Self::GateUp => vec![&layer.w1, &layer.w3],
            Self::Down => vec![&layer.w2],
            Self::Classifier => Vec::new(),
        }
    }
}

impl Input {
    /// [`Input::linears`] to be changed.
    pub fn linears_mut(self, layer: &mut Layer) -> Vec<&mut crate::weights::Linear> {
        match self {
            Self::Qkv => vec![&mut layer.wq, &mut layer.wk, &mut layer.wv],
            Self::Wo => vec![&mut layer.wo],
            Self::GateUp => vec![&mut layer.w1, &mut layer.w3],
            Self::Down => vec![&mut layer.w2],
            Self::Classifier => Vec::new(),
        }
    }
}

/// Hears of the inputs of linear layers, `[tokens, cols]` each.
pub type Tap<'a> = dyn FnMut(Input, &[f32]) + 'a;

/// Working space to run single blocks.
#[derive(Debug)]
pub struct Layerwise<'m> {
    model: &'m Model,
    cache: KvCache,
    buffers: Buffers,
}

impl<'m> Layerwise<'m> {
    /// For sequences of up to `context` tokens.
    ///
    /// # Errors
    /// A context beyond the model's.
    pub fn new(model: &'m Model, context: usize) -> Result<Self, EngineError> {
        let buffers = Buffers::new(model, context.min(MAX_BATCH), context);
        Ok(Self { model, cache: model.cache(context)?, buffers })
    }

    /// The residual stream before the first block, `[tokens, dim]`.
    ///
    /// # Errors
    /// Ids outside the vocabulary.
    pub fn embed(&mut self, ids: &[u32]) -> Result<Vec<f32>, EngineError> {
        self.cache.truncate(0);
        crate::batch::check(self.model, &self.cache, ids)?;
        let slots = [Slot { cache: &mut self.cache, ids, logits: LogitsOf::None }];
        super::embed(self.model, &slots, &mut self.buffers)?;
        Ok(self.buffers.x.clone())
    }

    /// x += the attention of `layer`, run as block `l`; `x` is a whole sequence, `[tokens, dim]`.
    ///
    /// # Errors
    /// Matrices of another shape than the model's.
    pub fn attention(
        &mut self,
        l: usize,
        layer: &Layer,
        x: &mut [f32],
        tap: &mut Tap<'_>,
    ) -> Result<(), EngineError> {
        self.by_batch(x, |model, slots, b| {
            rotations(model, slots, &model.frequencies.all, &mut b.rotations);
            rotations(model, slots, &model.frequencies.sliding, &mut b.sliding_rotations);
            load_normed(model, &b.x, &layer.rms_att, &mut b.input);
            tap(Input::Qkv, b.input.f32());
            attention(model, layer, l, slots, b)?;
            tap(Input::Wo, b.input.f32());
            Ok(())
        })
    }

    /// x += the feed-forward of `layer`; `x` is a whole sequence, `[tokens, dim]`.
    ///
    /// # Errors
    /// Matrices of another shape than the model's.
    pub fn feed_forward(
        &mut self,
        l: usize,
        layer: &Layer,
        x: &mut [f32],
        tap: &mut Tap<'_>,
    ) -> Result<(), EngineError> {
        self.by_batch(x, |model, slots, b| {
            load_normed(model, &b.x, &layer.rms_ffn, &mut b.input);
            tap(Input::GateUp, b.input.f32());
            feed_forward(model, layer, l, slots, b)?;
            tap(Input::Down, b.input.f32());
            Ok(())
        })
    }

    /// What a norm with these weights makes of `x`, as the input of linear layers.
    pub fn normed(&mut self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        load_normed(self.model, x, weight, &mut self.buffers.input);
        self.buffers.input.f32().to_vec()
    }

    /// The logits of each token of `x`, `[tokens, vocab_size]`.
    ///
    /// # Errors
    /// Matrices of another shape than the model's.
    pub fn logits(&mut self, x: &[f32]) -> Result<&[f32], EngineError> {
        let c = &self.model.config;
        let ids = vec![0; x.len() / c.dim];
        self.buffers.x.clear();
        self.buffers.x.extend_from_slice(x);
        let slots = [Slot { cache: &mut self.cache, ids: &ids, logits: LogitsOf::All }];
        super::logits(self.model, &slots, &mut self.buffers)?;
        Ok(&self.buffers.logits)
    }

    /// Takes a sequence through a step in batches.
    fn by_batch(
        &mut self,
        x: &mut [f32],
        mut step: impl FnMut(&Model, &mut [Slot<'_>], &mut Buffers) -> Result<(), MatmulError>,
    ) -> Result<(), EngineError> {
        let dim = self.model.config.dim;
        self.cache.truncate(0);
        let ids = [0; MAX_BATCH];
        for x in x.chunks_mut(MAX_BATCH * dim) {
            let ids = &ids[..x.len() / dim];
            crate::batch::check(self.model, &self.cache, ids)?;
            self.buffers.x.clear();
            self.buffers.x.extend_from_slice(x);
            let mut slots = [Slot { cache: &mut self.cache, ids, logits: LogitsOf::None }];
            step(self.model, &mut slots, &mut self.buffers)?;
            slots[0].cache.extend(ids.len());
            x.copy_from_slice(&self.buffers.x);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::LoadOptions;
    use crate::sequence::Sequence;

    /// Block by block is what the whole pass does, bit for bit.
    #[test]
    fn equals_the_forward_pass() {
        for name in ["qwen3-tiny", "gemma3-tiny", "llama3-scaled-tiny"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name);
            let options = LoadOptions { threads: Some(1), ..LoadOptions::default() };
            let model = Model::load(&path, &options).unwrap();
            let ids: Vec<u32> = (0..100).map(|i| i * 7 % 50).collect();
            let mut expected = Vec::new();
            let mut sequence = Sequence::new(&model, ids.len()).unwrap();
            sequence
                .forward_all(&ids, &mut |_, logits| {
                    expected.extend_from_slice(logits);
                    Ok(())
                })
                .unwrap();
            let mut layerwise = Layerwise::new(&model, ids.len()).unwrap();
            let mut x = layerwise.embed(&ids).unwrap();
            let mut seen = Vec::new();
            for (l, layer) in model.weights.layers.iter().enumerate() {
                let mut tap = |input: Input, values: &[f32]| {
                    let cols = input.linears(layer)[0].weight.cols;
                    assert!(values.len().is_multiple_of(cols), "{input:?}");
                    seen.push((input, values.len() / cols));
                };
                layerwise.attention(l, layer, &mut x, &mut tap).unwrap();
                layerwise.feed_forward(l, layer, &mut x, &mut tap).unwrap();
            }
            assert_eq!(layerwise.logits(&x).unwrap(), expected, "{name}");
            for input in Input::OF_BLOCK {
                let tokens: usize = seen.iter().filter(|(of, _)| *of == input).map(|(_, n)| n).sum();
                assert_eq!(tokens, ids.len() * model.weights.layers.len(), "{input:?}");
            }
        }
    }
}
