//! One model against another on a text: their distributions, and their hidden states layer by layer.

use crate::error::EngineError;
use crate::forward::MAX_BATCH;
use crate::hidden_states::HiddenStates;
use crate::model::Model;
use crate::sampler::argmax;
use crate::sequence::Sequence;
use crate::tokenizer::EncodeOptions;

use super::windows::{Stride, Window, windows};
use super::{divergence, log_softmax_at};

/// Result of [`kl`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// Mean of KL(reference || model) over the scored positions, in nats.
    pub mean: f64,
    /// Its 99th percentile.
    pub p99: f64,
    /// Its largest value.
    pub max: f64,
    /// Share of positions where both find the same token most likely.
    pub top1_agreement: f64,
    /// Scored positions.
    pub tokens: usize,
    /// Perplexity of the reference on the same positions.
    pub reference_perplexity: f64,
    /// Perplexity of the model on the same positions.
    pub perplexity: f64,
}

/// How far the hidden state behind a layer is from the reference's, over all tokens that were run. Each token counts
/// alike: the first one of a text has a hidden state many times longer than the others, and would hide them in a sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerError {
    /// Mean of |h - h'| / |h|, h the reference's.
    pub relative_error: f64,
    /// Mean cosine of the angle between the two.
    pub cosine: f64,
    /// Mean square of the difference of an element.
    pub mse: f64,
}

/// What [`compare`] does.
#[derive(Debug, Clone, Copy)]
pub struct Compare {
    /// Tokens of a chunk.
    pub context: usize,
    /// Chunks at most; `None` for all of the text.
    pub chunks: Option<usize>,
    /// Whether hidden states are compared, too.
    pub layers: bool,
}

/// Result of [`compare`].
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Of the distributions.
    pub divergence: Divergence,
    /// Of the hidden states behind each layer; empty unless asked for.
    pub layers: Vec<LayerError>,
}

/// Kullback-Leibler divergence of `model` from `reference` on `text`, in llama.cpp's chunks. `progress` hears of chunks
/// done and chunks in all.
///
/// # Errors
/// Those of [`super::perplexity`], and models whose vocabularies or tokenizers differ.
pub fn kl(
    model: &Model,
    reference: &Model,
    text: &str,
    context: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Divergence, EngineError> {
    let what = Compare { context, chunks: None, layers: false };
    Ok(compare(model, reference, text, what, progress)?.divergence)
}

/// Distance of `model` from `reference` on `text`, in llama.cpp's chunks; both run side by side, a batch at a time, so
/// that only one batch of logits and hidden states of each is in memory. `progress` as in [`kl`].
///
/// # Errors
/// Those of [`kl`]; with [`Compare::layers`] models that differ in `dim` or `n_layers`.
pub fn compare(
    model: &Model,
    reference: &Model,
    text: &str,
    what: Compare,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Comparison, EngineError> {
    let mut windows = check(model, reference, text, what)?;
    windows.truncate(what.chunks.unwrap_or(usize::MAX));
    let mut ours = Sequence::new(model, what.context)?;
    let mut theirs = Sequence::new(reference, what.context)?;
    let mut sums = Sums::default();
    if what.layers {
        ours.keep_hidden_states();
        theirs.keep_hidden_states();
        sums.layers = vec![LayerSums::default(); model.config.n_layers];
    }
    for (i, window) in windows.iter().enumerate() {
        ours.truncate(0);
        theirs.truncate(0);
        for from in (0..window.ids.len()).step_by(MAX_BATCH) {
            sums.add_batch(&mut ours, &mut theirs, window, from)?;
        }
        progress(i + 1, windows.len());
    }
    sums.finish()
}

/// The chunks of the text, if both models can run them.
fn check(model: &Model, reference: &Model, text: &str, what: Compare) -> Result<Vec<Window>, EngineError> {
    let (ours, theirs) = (&model.config, &reference.config);
    if ours.vocab_size != theirs.vocab_size {
        return Err(EngineError::Request(format!(
            "the model has a vocabulary of {} and the reference one of {}: they cannot be compared",
            ours.vocab_size, theirs.vocab_size
        )));
    }
    if what.layers && (ours.n_layers, ours.dim) != (theirs.n_layers, theirs.dim) {
        return Err(EngineError::Request(format!(
            "the model has {} layers of {} and the reference {} of {}: their hidden states cannot be compared",
            ours.n_layers, ours.dim, theirs.n_layers, theirs.dim
        )));
    }
    let options = EncodeOptions { add_special: true, parse_special: false };
    let tokenizer = reference.need_tokenizer()?;
    if let Some(own) = &model.tokenizer
        && own.encode(text, options)? != tokenizer.encode(text, options)?
    {
        return Err(EngineError::Request("the two models' tokenizers split the text differently".to_owned()));
    }
    windows(tokenizer, text, what.context, Stride::Half)
}

/// What is added up over the text.
#[derive(Default)]
struct Sums {
    divergences: Vec<f64>,
    agree: usize,
    nll: f64,
    reference_nll: f64,
    /// Logits of the reference in the current batch.
    expected: Vec<f32>,
    layers: Vec<LayerSums>,
    tokens: usize,
}

#[derive(Clone, Default)]
struct LayerSums {
    relative_error: f64,
    cosine: f64,
    square_error: f64,
    elements: usize,
}

impl Sums {
    /// Runs the tokens from `from` on, a batch of them, on both.
    fn add_batch(
        &mut self,
        ours: &mut Sequence<'_>,
        theirs: &mut Sequence<'_>,
        window: &Window,
        from: usize,
    ) -> Result<(), EngineError> {
        let batch = &window.ids[from..window.ids.len().min(from + MAX_BATCH)];
        self.expected.clear();
        theirs.forward_all(batch, &mut |_, logits| {
            self.expected.extend_from_slice(logits);
            Ok(())
        })?;
        ours.forward_all(batch, &mut |t, logits| {
            let at = from + t + 1;
            if let Some(&next) = window.ids.get(at).filter(|_| at >= window.first_scored) {
                let expected = &self.expected[t * logits.len()..][..logits.len()];
                self.divergences.push(divergence(expected, logits));
                self.agree += usize::from(argmax(expected) == argmax(logits));
                self.nll -= log_softmax_at(logits, next);
                self.reference_nll -= log_softmax_at(expected, next);
            }
            Ok(())
        })?;
        if let (Some(ours), Some(theirs)) = (ours.hidden_states(), theirs.hidden_states()) {
            self.tokens += batch.len();
            self.layers.iter_mut().enumerate().for_each(|(l, sums)| sums.add(ours, theirs, l));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Comparison, EngineError> {
        let n = self.divergences.len();
        if n == 0 {
            return Err(EngineError::Request("the text has nothing to score".to_owned()));
        }
        self.divergences.sort_unstable_by(f64::total_cmp);
        let divergence = Divergence {
            mean: self.divergences.iter().sum::<f64>() / n as f64,
            p99: self.divergences[(n * 99 / 100).min(n - 1)],
            max: self.divergences[n - 1],
            top1_agreement: self.agree as f64 / n as f64,
            tokens: n,
            reference_perplexity: (self.reference_nll / n as f64).exp(),
            perplexity: (self.nll / n as f64).exp(),
        };
        let tokens = self.tokens.max(1) as f64;
        let layer = |sums: &LayerSums| LayerError {
            relative_error: sums.relative_error / tokens,
            cosine: sums.cosine / tokens,
            mse: sums.square_error / sums.elements.max(1) as f64,
        };
        Ok(Comparison { divergence, layers: self.layers.iter().map(layer).collect() })
    }
}

impl LayerSums {
    /// Adds the tokens of a batch.
    fn add(&mut self, ours: &HiddenStates, theirs: &HiddenStates, layer: usize) {
        for (h, reference) in ours.layer(layer).zip(theirs.layer(layer)) {
            let (mut error, mut square, mut reference_square, mut product) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
            for (&a, &b) in h.iter().zip(reference) {
                let (a, b) = (f64::from(a), f64::from(b));
                error += (a - b) * (a - b);
                square += a * a;
                reference_square += b * b;
                product += a * b;
            }
            // Two states of zeros are the same.
            let over = |x: f64, y: f64, otherwise: f64| if y > 0.0 { x / y } else { otherwise };
            self.relative_error += over(error, reference_square, 0.0).sqrt();
            self.cosine += over(product, (square * reference_square).sqrt(), 1.0);
            self.square_error += error;
            self.elements += h.len();
        }
    }
}
