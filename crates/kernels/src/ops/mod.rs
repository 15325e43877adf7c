//! What happens to a vector between two matrix products. Sixteen elements at a time; the results have the same
//! bits on every instruction set and do not depend on how many tokens are worked on together.

pub(crate) mod body;

use crate::dispatch::vector_ops;
use crate::threads::{Shared, Team};

/// Root mean square norm (Zhang and Sennrich, arXiv 1910.07467): `out = x / sqrt(mean(x^2) + eps) * weight`.
/// Without a weight every factor is 1.
///
/// # Panics
/// When lengths differ.
pub fn rms_norm(x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    // SAFETY: `vector_ops()` gives only functions that this processor can run.
    unsafe { (vector_ops().rms_norm)(x, weight, eps, out) };
}

/// [`rms_norm`] of each row of `x`, `[rows, cols]`, rows shared among the team.
///
/// # Panics
/// When lengths differ.
pub fn rms_norm_rows(team: &Team, x: &[f32], cols: usize, weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "a norm's output is as long as its input");
    let out = Shared::new(out);
    team.split(x.len() / cols, 1, x.len() * NORM_WORK, &|rows| {
        for row in rows {
            // SAFETY: `split` gives each row to one call, and rows do not overlap.
            let out = unsafe { out.slice(row * cols..(row + 1) * cols) };
            rms_norm(&x[row * cols..][..cols], weight, eps, out);
        }
    });
}

/// [`rms_norm`] onto its own input.
///
/// # Panics
/// When lengths differ.
pub fn rms_norm_in_place(x: &mut [f32], weight: Option<&[f32]>, eps: f32) {
    // SAFETY: `vector_ops()` gives only functions that this processor can run.
    unsafe { (vector_ops().rms_norm_in_place)(x, weight, eps) };
}

/// [`rms_norm_in_place`] of each row of `x`, `[rows, weight.len()]`, rows shared among the team.
pub fn rms_norm_rows_in_place(team: &Team, x: &mut [f32], weight: &[f32], eps: f32) {
    let work = x.len() * NORM_WORK;
    team.for_each_chunk(x, weight.len(), work, &|_, row| {
        if row.len() == weight.len() {
            rms_norm_in_place(row, Some(weight), eps);
        }
    });
}

/// The non-linearity of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x): Llama, Qwen.
    Silu,
    /// The tanh form of GELU: Gemma.
    GeluTanh,
    /// max(x, 0)^2: BitNet b1.58.
    Relu2,
}

/// What an element of a norm costs beside a multiply-add of a matrix product.
const NORM_WORK: usize = 2;

/// What an element of a gated activation costs beside a multiply-add: mostly its exponential.
const GATE_WORK: usize = 4;

impl Activation {
    /// `gate = f(gate) * up`. The error of f is at most 3e-7 |f| + 1e-30 for SiLU, 4e-7 |f| + 1e-8 for GELU, and
    /// a rounding for ReLU^2.
    ///
    /// # Panics
    /// When lengths differ.
    pub fn gate(self, gate: &mut [f32], up: &[f32]) {
        // SAFETY: `vector_ops()` gives only functions that this processor can run.
        unsafe { (vector_ops().gate)(self, gate, up) };
    }

    /// [`Activation::gate`], shared among the team.
    ///
    /// # Panics
    /// When lengths differ.
    pub fn gate_on(self, team: &Team, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "a gate is as long as what it lets through");
        let work = gate.len() * GATE_WORK;
        team.for_each_chunk(gate, CHUNK, work, &|i, gate| self.gate(gate, &up[i * CHUNK..][..gate.len()]));
    }
}

/// Elements that a member of the team takes at a time.
const CHUNK: usize = 4096;

/// `x += y`.
///
/// # Panics
/// When lengths differ.
pub fn add(x: &mut [f32], y: &[f32]) {
    // SAFETY: `vector_ops()` gives only functions that this processor can run.
    unsafe { (vector_ops().add)(x, y) };
}

/// [`add`], shared among the team.
///
/// # Panics
/// When lengths differ.
pub fn add_on(team: &Team, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "only vectors of one length are added");
    let work = x.len();
    team.for_each_chunk(x, CHUNK, work, &|i, x| add(x, &y[i * CHUNK..][..x.len()]));
}

/// `x = e^(x - shift)`, and the sum of the results. The error of each is that of the crate's exponential: relative 2.4e-7
/// for arguments between -87.3 and 88, to which they are cut.
pub fn exp_sum(x: &mut [f32], shift: f32) -> f32 {
    // SAFETY: `vector_ops()` gives only functions that this processor can run.
    unsafe { (vector_ops().exp_sum)(x, shift) }
}

/// The greatest element, NaN left out; minus infinity where there is none.
pub fn max(x: &[f32]) -> f32 {
    // SAFETY: `vector_ops()` gives only functions that this processor can run.
    unsafe { (vector_ops().max)(x) }
}

/// Index of the greatest element, the first of equals, NaN left out; 0 where there is none.
pub fn argmax(x: &[f32]) -> usize {
    let (mut best, mut at) = (f32::NEG_INFINITY, 0);
    for (i, chunk) in x.chunks(CHUNK).enumerate() {
        let max = max(chunk);
        if max > best {
            (best, at) = (max, i);
        }
    }
    let first = at * CHUNK;
    let inside = x.get(first..).and_then(|rest| rest.iter().position(|&x| x == best));
    inside.map_or(0, |inside| first + inside)
}

#[cfg(test)]
mod tests;
