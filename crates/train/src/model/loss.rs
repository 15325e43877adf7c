//! The classifier and cross-entropy in one, by parts of the tokens: logits of a whole batch are never kept.

use kernels::gemm::{Output, Size, View};
use kernels::ops;

use super::distill::{Distance, TeacherRoom};
use super::elementwise::dot;
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

/// Logits of some tokens.
fn classify(weights: Weights<'_>, room: &mut Room, hidden: &[f32], logits: &mut Vec<f32>) {
    let (dim, vocab) = (weights.shape.dim, weights.shape.vocab_size);
    let tokens = hidden.len() / dim;
    logits.resize(tokens * vocab, 0.0);
    let x = View::rows(hidden, dim);
    for panel in weights.panels(weights.layout.head) {
        let size = Size { m: tokens, n: panel.len(), k: dim };
        let logits = &mut logits[panel.start..];
        let rows = View::rows(weights.rows(weights.layout.head, panel, &mut room.dense), dim);
        room.gemm.multiply(size, x, rows.transposed(), Output::Write, logits, vocab);
    }
}

/// Sums over all positions, by their weights: of `-ln p(id)`, and with a teacher of the divergence from what it says, both in
/// nats. `hidden` is `[tokens, dim]`, normed; a teacher's is in its room. With `d_hidden` the derivatives, too, of the
/// divergence if there is a teacher, else of the first, all times `factor`: written to `d_hidden` and added to the
/// classifier's, where those are wanted.
pub(crate) fn cross_entropy(
    weights: Weights<'_>,
    room: &mut Room,
    logits: &mut Vec<f32>,
    hidden: &[f32],
    targets: Targets<'_>,
    mut teacher: Option<(Weights<'_>, &mut TeacherRoom)>,
    mut backward: Option<(f32, &mut Gradients<'_>, &mut [f32])>,
) -> Distance {
    let (dim, vocab) = (weights.shape.dim, weights.shape.vocab_size);
    let head = weights.layout.head;
    let head_range = weights.layout.tensors[head].range.clone();
    let mut total = Distance::default();
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
        classify(weights, room, &hidden[part.clone()], logits);
        if let Some((weights, taught)) = &mut teacher {
            classify(*weights, room, &taught.normed[part.clone()], &mut taught.logits);
        }
        for (i, (row, (&id, &count))) in
            logits.chunks_exact_mut(vocab).zip(ids.iter().zip(counts)).enumerate()
        {
            if count == 0.0 {
                row.fill(0.0);
                continue;
            }
            let right = row[id as usize];
            let taught = teacher.as_mut().map(|(_, taught)| divergence(taught, row, i));
            let max = ops::max(row);
            let sum = ops::exp_sum(row, max);
            let lse = f64::from(max) + f64::from(sum).ln();
            total.nll += f64::from(count) * (lse - f64::from(right));
            let factor = backward.as_ref().map(|(factor, ..)| factor * count);
            match taught {
                None => {
                    if let Some(by) = factor {
                        // p - 1 at the right token, p elsewhere.
                        let scale = by / sum;
                        row.iter_mut().for_each(|p| *p *= scale);
                        row[id as usize] -= by;
                    }
                }
                Some((without, said, said_sum)) => {
                    total.kl += f64::from(count) * (without + lse);
                    if let Some(by) = factor {
                        let (scale, said_scale) = (by / sum, by / said_sum);
                        row.iter_mut().zip(said).for_each(|(p, q)| *p = *p * scale - q * said_scale);
                    }
                }
            }
        }
        if let Some((_, gradients, d_hidden)) = &mut backward {
            let d_logits = View::rows(logits, vocab);
            let d_hidden = &mut d_hidden[part.clone()];
            for panel in weights.panels(head) {
                let output = if panel.start == 0 { Output::Write } else { Output::Add };
                let size = Size { m: tokens, n: dim, k: panel.len() };
                let d_logits = View::rows(&logits[panel.start..], vocab);
                let rows = View::rows(weights.rows(head, panel, &mut room.dense), dim);
                room.gemm.multiply(size, d_logits, rows, output, d_hidden, dim);
            }
            if let (Some(d), true) = (gradients.model.as_deref_mut(), gradients.embedding) {
                let size = Size { m: vocab, n: dim, k: tokens };
                let d = &mut d[head_range.clone()];
                let x = View::rows(&hidden[part], dim);
                room.gemm.multiply(size, d_logits.transposed(), x, Output::Add, d, dim);
            }
        }
    }
    total
}

/// Of a position's divergence from its teacher what does not need the student's sum of exponentials: the rest is the logarithm
/// of that. With it the teacher's probabilities times their sum, and that sum. The teacher's logits are used up.
fn divergence<'t>(taught: &'t mut TeacherRoom, row: &[f32], position: usize) -> (f64, &'t [f32], f32) {
    let TeacherRoom { logits, probabilities, .. } = taught;
    let logits = &mut logits[position * row.len()..][..row.len()];
    probabilities.clear();
    probabilities.extend_from_slice(logits);
    let max = ops::max(logits);
    let sum = ops::exp_sum(probabilities, max);
    logits.iter_mut().zip(row).for_each(|(t, s)| *t -= s);
    let mean = f64::from(dot(probabilities, logits)) / f64::from(sum);
    (mean - f64::from(max) - f64::from(sum).ln(), probabilities, sum)
}
