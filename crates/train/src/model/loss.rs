//! The classifier and cross-entropy in one, by parts of the tokens: logits of a whole batch are never kept.

use kernels::gemm::{Output, Size, View};
use kernels::ops;

use super::linear::{Gradients, Room, Weights};

/// Tokens whose logits are made at once.
const TOKENS: usize = 128;

/// What each position should have said.
#[derive(Clone, Copy)]
pub(crate) struct Targets<'a> {
    /// The right token of each position.
    pub(crate) ids: &'a [u32],
    /// How much each position counts; 0: not at all.
    pub(crate) weights: &'a [f32],
}

/// Sum of `weight * -ln p(id)` over all positions, in nats. `hidden` is `[tokens, dim]`, normed. With `d_hidden` the
/// derivatives, too, all times `factor`: written to `d_hidden` and added to the classifier's.
pub(crate) fn cross_entropy(
    weights: Weights<'_>,
    room: &mut Room,
    logits: &mut Vec<f32>,
    hidden: &[f32],
    targets: Targets<'_>,
    mut backward: Option<(f32, &mut Gradients<'_>, &mut [f32])>,
) -> f64 {
    let (dim, vocab) = (weights.shape.dim, weights.shape.vocab_size);
    let head = weights.layout.head;
    let head_range = weights.layout.tensors[head].range.clone();
    let mut total = 0.0;
    for from in (0..targets.ids.len()).step_by(TOKENS) {
        let to = (from + TOKENS).min(targets.ids.len());
        let (ids, counts) = (&targets.ids[from..to], &targets.weights[from..to]);
        let part = from * dim..to * dim;
        let tokens = to - from;
        if counts.iter().all(|&w| w == 0.0) {
            if let Some((_, _, d_hidden)) = &mut backward {
                d_hidden[part].fill(0.0);
            }
            continue;
        }
        logits.resize(tokens * vocab, 0.0);
        let x = View::rows(&hidden[part.clone()], dim);
        for panel in weights.panels(head) {
            let size = Size { m: tokens, n: panel.len(), k: dim };
            let logits = &mut logits[panel.start..];
            let rows = View::rows(weights.rows(head, panel, &mut room.dense), dim);
            room.gemm.multiply(size, x, rows.transposed(), Output::Write, logits, vocab);
        }
        for ((row, &id), &count) in logits.chunks_exact_mut(vocab).zip(ids).zip(counts) {
            if count == 0.0 {
                row.fill(0.0);
                continue;
            }
            let right = row[id as usize];
            let max = ops::max(row);
            let sum = ops::exp_sum(row, max);
            total += f64::from(count) * (f64::from(max) + f64::from(sum).ln() - f64::from(right));
            if let Some((factor, ..)) = backward {
                // p - 1 at the right token, p elsewhere.
                let by = factor * count;
                let scale = by / sum;
                row.iter_mut().for_each(|p| *p *= scale);
                row[id as usize] -= by;
            }
        }
        if let Some((_, gradients, d_hidden)) = &mut backward {
            let d_logits = View::rows(logits, vocab);
            let d_hidden = &mut d_hidden[part];
            for panel in weights.panels(head) {
                let output = if panel.start == 0 { Output::Write } else { Output::Add };
                let size = Size { m: tokens, n: dim, k: panel.len() };
                let d_logits = View::rows(&logits[panel.start..], vocab);
                let rows = View::rows(weights.rows(head, panel, &mut room.dense), dim);
                room.gemm.multiply(size, d_logits, rows, output, d_hidden, dim);
            }
            if let Some(d) = gradients.model.as_deref_mut() {
                let size = Size { m: vocab, n: dim, k: tokens };
                let d = &mut d[head_range.clone()];
                room.gemm.multiply(size, d_logits.transposed(), x, Output::Add, d, dim);
            }
        }
    }
    total
}
