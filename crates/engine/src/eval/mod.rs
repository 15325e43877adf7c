//! How good a model is: perplexity of a text, distance from another model, multiple-choice questions.

mod choice;
mod compare;
mod questions;
mod windows;

use crate::error::EngineError;
use crate::model::Model;
use crate::sequence::Sequence;

pub use choice::{ChoiceError, Choices, Share, choice, choice_log_likelihoods};
pub use compare::{Compare, Comparison, Divergence, LayerError, compare, kl};
pub use questions::{MAX_CHOICES, MAX_LINE_BYTES, Question, RowError, parse_questions};
pub use windows::{DOCUMENT_END, Stride};

use windows::windows;

/// Result of [`perplexity`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// exp(nll)
    pub perplexity: f64,
    /// Mean negative log likelihood a scored token, in nats.
    pub nll: f64,
    /// Scored tokens.
    pub tokens: usize,
    /// Bytes of text that the scored tokens stand for.
    pub bytes: usize,
    /// Bits of information a byte of text.
    pub bits_per_byte: f64,
}

/// Perplexity of `text` under `model`. `progress` hears of windows done, windows in all, and the perplexity
/// so far.
///
/// Errors: no tokenizer, a text too short for one score, a context beyond the model's.
pub fn perplexity(
    model: &Model,
    text: &str,
    context: usize,
    stride: Stride,
    progress: &mut dyn FnMut(usize, usize, f64),
) -> Result<Perplexity, EngineError> {
    let tokenizer = model.need_tokenizer()?;
    let windows = windows(tokenizer, text, context, stride)?;
    let mut sequence = Sequence::new(model, context)?;
    let (mut sum, mut tokens, mut bytes) = (0.0, 0, 0);
    for (i, window) in windows.iter().enumerate() {
        sequence.truncate(0);
        sequence.forward_all(&window.ids, &mut |t, logits| {
            if let Some(&next) = window.ids.get(t + 1).filter(|_| t + 1 >= window.first_scored) {
                sum -= log_softmax_at(logits, next);
                tokens += 1;
                bytes += tokenizer.token_bytes(next).map_or(0, |b| b.len());
            }
            Ok(())
        })?;
        progress(i + 1, windows.len(), (sum / tokens.max(1) as f64).exp());
    }
    if tokens == 0 {
        return Err(EngineError::Request("the text has nothing to score".to_owned()));
    }
    let nll = sum / tokens as f64;
    let bits_per_byte = sum / std::f64::consts::LN_2 / bytes.max(1) as f64;
    Ok(Perplexity { perplexity: nll.exp(), nll, tokens, bytes, bits_per_byte })
}

/// ln of the probability of `id`, in f64.
pub fn log_softmax_at(logits: &[f32], id: u32) -> f64 {
    f64::from(logits[id as usize]) - log_sum_exp(logits)
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x)));
    max + logits.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln()
}

/// KL(p || q) of two rows of logits, in nats; never negative beyond rounding.
pub fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p_sum, q_sum) = (log_sum_exp(p), log_sum_exp(q));
    let terms = p.iter().zip(q).map(|(&p, &q)| {
        let log_p = f64::from(p) - p_sum;
        log_p.exp() * (log_p - (f64::from(q) - q_sum))
    });
    terms.sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_softmax_and_divergence_at_known_points() {
        let p = [0.5f32.ln() + 3.0, 0.25f32.ln() + 3.0, 0.25f32.ln() + 3.0];
        assert!((log_softmax_at(&p, 0) - 0.5f64.ln()).abs() < 1e-6);
        assert!(divergence(&p, &p) < 1e-12);
        let q = [0.25f32.ln(), 0.5f32.ln(), 0.25f32.ln()];
        let expected = 0.5 * 2f64.ln() + 0.25 * 0.5f64.ln();
        assert!((divergence(&p, &q) - expected).abs() < 1e-6);
    }
}
