//! Products of bfloat16 by pairs: a packed number holds two elements that follow each other along the sum, the first in its
//! lower half, and one instruction multiplies and adds up both.

use super::{Lanes, Part, pack_panel};
use crate::vector::LANES;

/// Lanes that hold pairs; moved as if they were floats.
pub(crate) trait Pairs: Lanes {
    /// The rounded elements of `low` each with that of `high`.
    fn join(low: &[f32; LANES], high: &[f32; LANES]) -> Self;
    /// Rounded elements that follow each other, two by two: those of `first`, then those of `second`.
    fn neighbours(first: &[f32; LANES], second: &[f32; LANES]) -> Self;
    /// Asks for the cache line of `x[at]`, if there is one.
    fn prefetch(x: &[f32], at: usize);
}

/// Elements along the sum that are packed at once.
const AT_ONCE: usize = 2 * LANES;

/// Columns ahead of those in work that are asked for: each lies on a page of its own, which no processor foresees.
const AHEAD: usize = 16;

/// The part as panels of `W` rows of pairs, `[panels, k_part / 2 rounded up, W]`; missing rows, and what an odd end lacks,
/// are 0.
#[inline(always)]
pub(crate) fn pack_pairs<V: Pairs, const W: usize>(part: Part<'_>, to: &mut [f32]) {
    let side_by_side = if part.from.row == 1 { part.count / W } else { 0 };
    if side_by_side > 0 {
        pack_columns::<V, W>(part, side_by_side, to);
    }
    let depth = part.k_part.div_ceil(2);
    for (panel, to) in to.chunks_exact_mut(depth * W).enumerate().skip(side_by_side) {
        let (part, to) = (part.panel(panel, W), to.as_chunks_mut::<W>().0);
        let done = if part.count == W && part.from.col == 1 { pack_rows::<V, W>(part, to) } else { 0 };
        let mut floats = [[0.0; W]; AT_ONCE];
        for (block, to) in to[done..].chunks_mut(AT_ONCE / 2).enumerate() {
            let at = 2 * done + block * AT_ONCE;
            let count = AT_ONCE.min(part.k_part - at);
            pack_panel(Part { k0: part.k0 + at, ..part }, &mut floats[..count]);
            floats[count..].fill([0.0; W]);
            for ([low, high], to) in floats.as_chunks::<2>().0.iter().zip(to) {
                join::<V, W>(low, high, to);
            }
        }
    }
}

/// Pairs of `W` elements of two columns; what lies behind them may be read, too.
#[inline(always)]
fn join<V: Pairs, const W: usize>(low: &[f32], high: &[f32], to: &mut [f32]) {
    let whole = |x: &[f32]| match x.first_chunk() {
        Some(x) => *x,
        None => {
            let mut all = [0.0; LANES];
            all[..x.len()].copy_from_slice(x);
            all
        }
    };
    for from in (0..W).step_by(LANES) {
        let mut pairs = [0.0; LANES];
        V::join(&whole(&low[from..]), &whole(&high[from..])).store(&mut pairs);
        let len = LANES.min(W - from);
        to[from..from + len].copy_from_slice(&pairs[..len]);
    }
}

/// Of rows whose elements lie side by side, as far as whole registers go; how many pairs of each row that are. Row by row,
/// as the processor's prefetching follows best.
#[inline(always)]
fn pack_rows<V: Pairs, const W: usize>(part: Part<'_>, to: &mut [[f32; W]]) -> usize {
    let Part { from, first, k0, k_part, .. } = part;
    let blocks = &mut to.as_chunks_mut::<LANES>().0[..k_part / AT_ONCE];
    for i in 0..W {
        let x = &from.data[(first + i) * from.row + k0..][..k_part];
        for ([first, second], block) in x.as_chunks().0.as_chunks::<2>().0.iter().zip(&mut *blocks) {
            let mut pairs = [0.0; LANES];
            V::neighbours(first, second).store(&mut pairs);
            for (to, pair) in block.iter_mut().zip(pairs) {
                to[i] = pair;
            }
        }
    }
    k_part / AT_ONCE * LANES
}

/// The first panels of a transposed matrix.
#[inline(always)]
fn pack_columns<V: Pairs, const W: usize>(part: Part<'_>, panels: usize, to: &mut [f32]) {
    let Part { from, first, k0, k_part, .. } = part;
    let depth = k_part.div_ceil(2);
    let nothing = [0.0; W];
    let column = |k: usize| &from.data[first + (k0 + k) * from.col..];
    for pair in 0..depth {
        for k in (2 * pair + AHEAD..2 * pair + AHEAD + 2).take_while(|&k| k < k_part) {
            (0..panels * W).step_by(LANES).for_each(|at| V::prefetch(column(k), at));
        }
        let low = column(2 * pair);
        let high = (2 * pair + 1 < k_part).then(|| column(2 * pair + 1));
        for panel in 0..panels {
            let high = high.map_or(&nothing[..], |high| &high[panel * W..]);
            join::<V, W>(&low[panel * W..], high, &mut to[(panel * depth + pair) * W..][..W]);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::dispatch::gemm_pairs;
    use crate::gemm::{Gemm, Output, Precision, Size, View};

    /// What bfloat16 holds exactly is multiplied exactly, and what is no number stays none.
    #[test]
    fn small_integers_are_exact_and_nan_is_kept() {
        let (m, n, k) = (13, 70, 301);
        let a: Vec<f32> = (0..m * k).map(|i| (i * 37 % 255) as f32 - 127.0).collect();
        let mut b: Vec<f32> = (0..k * n).map(|i| (i * 7 % 3) as f32 - 1.0).collect();
        let product = |b: &[f32], precision| {
            let mut c = vec![0.0; m * n];
            let (a, b) = (View::rows(&a, k), View::rows(b, n));
            let mut gemm = Gemm::new(precision);
            gemm.multiply(Size { m, n, k }, a, b, Output::Write, &mut c, n);
            c
        };
        assert_eq!(product(&b, Precision::Bf16), product(&b, Precision::F32));
        if gemm_pairs().is_none() {
            eprintln!("this processor has no products of bfloat16: those of f32 stand in");
        }
        b[300 * n + 69] = f32::NAN;
        let c = product(&b, Precision::Bf16);
        assert!((0..m * n).all(|i| c[i].is_nan() == (i % n == 69)));
    }
}
