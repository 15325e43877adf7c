//! How good a model is: perplexity of a text, divergence from another model, raw logits.

use crate::error::EngineError;
use crate::model::Model;
use crate::sequence::Sequence;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// Which tokens of a text are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stride {
    /// llama.cpp's method: the text in chunks of the context, BOS in the place of each chunk's first token,
    /// the second half scored. Tokens behind the last whole chunk are not used.
    Half,
    /// Every token of every document once. A document longer than the context goes on in windows whose first
    /// half repeats what was scored before.
    Full,
}

/// What separates the documents of a text under [`Stride::Full`].
pub const DOCUMENT_END: &str = "<|endoftext|>";

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

/// A run of tokens of which those from `first_scored` on are scored (each predicted by those before it).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    ids: Vec<u32>,
    first_scored: usize,
}

fn windows(
    tokenizer: &Tokenizer,
    text: &str,
    context: usize,
    stride: Stride,
) -> Result<Vec<Window>, EngineError> {
    if context < 2 {
        return Err(EngineError::Request(format!(
            "a context of {context} tokens scores nothing: take 2 or more"
        )));
    }
    match stride {
        Stride::Half => {
            let options = EncodeOptions { add_special: true, parse_special: false };
            let ids = tokenizer.encode(text, options)?;
            if ids.len() < 2 * context {
                return Err(EngineError::Request(format!(
                    "the text has {} tokens: at least {} are needed, two chunks of the context",
                    ids.len(),
                    2 * context
                )));
            }
            let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
            let chunk = |ids: &[u32]| {
                let mut ids = ids.to_vec();
                if let Some(bos) = bos {
                    ids[0] = bos;
                }
                // Position j predicts token j + 1; llama.cpp scores positions context / 2 to context - 2.
                Window { ids, first_scored: context / 2 + 1 }
            };
            Ok(ids.chunks_exact(context).map(chunk).collect())
        }
        Stride::Full => {
            let mut all = Vec::new();
            for document in text.split(DOCUMENT_END) {
                let document = document.trim_start_matches('\n');
                if !document.is_empty() {
                    document_windows(tokenizer, document, context, &mut all)?;
                }
            }
            Ok(all)
        }
    }
}

fn document_windows(
    tokenizer: &Tokenizer,
    document: &str,
    context: usize,
    windows: &mut Vec<Window>,
) -> Result<(), EngineError> {
    let options = EncodeOptions { add_special: false, parse_special: false };
    let mut ids: Vec<u32> = tokenizer.bos().or(tokenizer.eos().first().copied()).into_iter().collect();
    ids.extend(tokenizer.encode(document, options)?);
    let mut scored = 1;
    while scored < ids.len() {
        let from = if scored == 1 { 0 } else { scored - context / 2 };
        let to = ids.len().min(from + context);
        windows.push(Window { ids: ids[from..to].to_vec(), first_scored: scored - from });
        scored = to;
    }
    Ok(())
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

/// Kullback-Leibler divergence of `model` from `reference` on `text`, in llama.cpp's chunks.
///
/// Errors: those of [`perplexity`], and models whose vocabularies or tokenizers differ.
pub fn kl(
    model: &Model,
    reference: &Model,
    text: &str,
    context: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Divergence, EngineError> {
    let (ours, theirs) = (model.config.vocab_size, reference.config.vocab_size);
    if ours != theirs {
        return Err(EngineError::Request(format!(
            "the model has a vocabulary of {ours} and the reference one of {theirs}: they cannot be compared"
        )));
    }
    let options = EncodeOptions { add_special: true, parse_special: false };
    let tokenizer = reference.need_tokenizer()?;
    if let Some(own) = &model.tokenizer
        && own.encode(text, options)? != tokenizer.encode(text, options)?
    {
        return Err(EngineError::Request("the two models' tokenizers split the text differently".to_owned()));
    }
    let windows = windows(tokenizer, text, context, Stride::Half)?;
    let mut sequence = Sequence::new(model, context)?;
    let mut reference_sequence = Sequence::new(reference, context)?;
    let mut divergences = Vec::new();
    let (mut agree, mut nll, mut reference_nll) = (0usize, 0.0, 0.0);
    for (i, window) in windows.iter().enumerate() {
        sequence.truncate(0);
        reference_sequence.truncate(0);
        // Batch by batch, so that only one batch of logits of each model is in memory.
        for (b, batch) in window.ids.chunks(crate::forward::MAX_BATCH).enumerate() {
            let mut expected = Vec::new();
            reference_sequence.forward_all(batch, &mut |_, logits| {
                expected.extend_from_slice(logits);
                Ok(())
            })?;
            sequence.forward_all(batch, &mut |t, logits| {
                let at = b * crate::forward::MAX_BATCH + t + 1;
                if let Some(&next) = window.ids.get(at).filter(|_| at >= window.first_scored) {
                    let expected = &expected[t * ours..][..ours];
                    divergences.push(divergence(expected, logits));
                    agree += usize::from(crate::sampler::argmax(expected) == crate::sampler::argmax(logits));
                    nll -= log_softmax_at(logits, next);
                    reference_nll -= log_softmax_at(expected, next);
                }
                Ok(())
            })?;
        }
        progress(i + 1, windows.len());
    }
    let n = divergences.len();
    if n == 0 {
        return Err(EngineError::Request("the text has nothing to score".to_owned()));
    }
    divergences.sort_unstable_by(f64::total_cmp);
    Ok(Divergence {
        mean: divergences.iter().sum::<f64>() / n as f64,
        p99: divergences[(n * 99 / 100).min(n - 1)],
        max: divergences[n - 1],
        top1_agreement: agree as f64 / n as f64,
        tokens: n,
        reference_perplexity: (reference_nll / n as f64).exp(),
        perplexity: (nll / n as f64).exp(),
    })
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
