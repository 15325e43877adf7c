//! NF4, the 4-bit type of QLoRA (Dettmers et al., arXiv 2305.14314, appendix E): 16 values that are equally likely under a
//! normal distribution, times the largest magnitude of a block.

use std::ops::Range;

/// Weights that share a factor.
const BLOCK: usize = 64;

/// What the codes stand for.
#[rustfmt::skip]
const VALUES: [f32; 16] = [
    -1.0, -0.696_192_8, -0.525_073_05, -0.394_917_5, -0.284_441_38, -0.184_773_43, -0.091_050_036, 0.0,
    0.079_580_3, 0.160_930_2, 0.246_112_3, 0.337_915_24, 0.440_709_83, 0.562_617, 0.722_956_84, 1.0,
];

/// A matrix in NF4. Blocks end with their row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Nf4 {
    cols: usize,
    /// Two codes a byte, the first in the low half; a row begins with a byte of its own.
    codes: Vec<u8>,
    /// The largest magnitude of each block.
    scales: Vec<f32>,
}

impl Nf4 {
    /// Rounds rows of `cols` weights, which `row` writes one after another.
    pub(crate) fn new(rows: usize, cols: usize, mut row: impl FnMut(usize, &mut [f32])) -> Self {
        let mut values = vec![0.0; cols];
        let mut made = Self {
            cols,
            codes: Vec::with_capacity(rows * cols.div_ceil(2)),
            scales: Vec::with_capacity(rows * cols.div_ceil(BLOCK)),
        };
        for r in 0..rows {
            row(r, &mut values);
            for block in values.chunks_mut(BLOCK) {
                let scale = block.iter().fold(0.0f32, |m, w| m.max(w.abs()));
                made.scales.push(scale);
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                block.iter_mut().for_each(|w| *w *= inverse);
            }
            let pairs = values.chunks(2);
            made.codes
                .extend(pairs.map(|pair| nearest(pair[0]) | pair.get(1).map_or(0, |&w| nearest(w)) << 4));
        }
        made
    }

    /// Writes some rows to `out`.
    pub(crate) fn rows(&self, rows: Range<usize>, out: &mut [f32]) {
        let (row_codes, row_scales) = (self.cols.div_ceil(2), self.cols.div_ceil(BLOCK));
        let codes = self.codes[rows.start * row_codes..rows.end * row_codes].chunks_exact(row_codes);
        let scales = self.scales[rows.start * row_scales..rows.end * row_scales].chunks_exact(row_scales);
        for ((codes, scales), out) in codes.zip(scales).zip(out.chunks_exact_mut(self.cols)) {
            for ((codes, &scale), out) in codes.chunks(BLOCK / 2).zip(scales).zip(out.chunks_mut(BLOCK)) {
                for (&code, out) in codes.iter().zip(out.chunks_mut(2)) {
                    out[0] = VALUES[usize::from(code & 15)] * scale;
                    if let Some(out) = out.get_mut(1) {
                        *out = VALUES[usize::from(code >> 4)] * scale;
                    }
                }
            }
        }
    }

    /// Bytes that it takes.
    pub(crate) fn byte_len(&self) -> usize {
        self.codes.len() + 4 * self.scales.len()
    }
}

/// The code whose value is nearest to `w`, which is between -1 and 1.
fn nearest(w: f32) -> u8 {
    let above = VALUES.partition_point(|&value| value < w).min(VALUES.len() - 1);
    let below = above.saturating_sub(1);
    (if w - VALUES[below] < VALUES[above] - w { below } else { above }) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of the definition: quantiles of the normal distribution, eight below zero and seven above, divided
    /// by the greatest (bitsandbytes' `create_normal_map`, with its offset).
    #[test]
    fn values_are_quantiles_of_the_normal_distribution() {
        let offset = 0.967_708_3;
        let at = |i: usize, n: usize| offset + (0.5 - offset) * i as f64 / n as f64;
        let above: Vec<f64> = (0..8).map(|i| quantile(at(i, 8))).collect();
        let below: Vec<f64> = (0..7).map(|i| -quantile(at(i, 7))).collect();
        let mut all: Vec<f64> =
            above.into_iter().chain([0.0]).chain(below).map(|v| v / quantile(offset)).collect();
        all.sort_by(f64::total_cmp);
        for (value, want) in VALUES.iter().zip(&all) {
            assert!((f64::from(*value) - want).abs() < 2e-5, "{value} for {want}: {all:?}");
        }
    }

    /// The argument at which the normal distribution function is `p`, by bisection of its integral.
    fn quantile(p: f64) -> f64 {
        let distribution = |x: f64| {
            let n = 4000;
            let density = |t: f64| (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt();
            let h = x / f64::from(n);
            let sum: f64 =
                (1..n).map(|i| density(f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
            0.5 + h / 3.0 * (density(0.0) + sum + density(x))
        };
        let (mut low, mut high) = (0.0, 4.0);
        for _ in 0..50 {
            let middle = (low + high) / 2.0;
            if distribution(middle) < p { low = middle } else { high = middle }
        }
        low
    }

    #[test]
    fn each_weight_becomes_the_nearest_value_of_its_block() {
        // 70: a block and a bit; 5: an odd number of codes.
        for cols in [70, 5, 64] {
            let weight = |r: usize, c: usize| ((r * cols + c) as f32 * 0.7).sin() * (r + 1) as f32;
            let row =
                |r: usize, out: &mut [f32]| out.iter_mut().enumerate().for_each(|(c, w)| *w = weight(r, c));
            let matrix = Nf4::new(3, cols, row);
            let mut out = vec![f32::NAN; 2 * cols];
            matrix.rows(1..3, &mut out);
            for (i, got) in out.iter().enumerate() {
                let (r, c) = (1 + i / cols, i % cols);
                let block = c / BLOCK * BLOCK..cols.min((c / BLOCK + 1) * BLOCK);
                let scale = block.map(|c| weight(r, c).abs()).fold(0.0, f32::max);
                let error = (got - weight(r, c)).abs();
                let least = VALUES.iter().map(|v| (v * scale - weight(r, c)).abs()).fold(f32::MAX, f32::min);
                assert!(error <= least + 1e-6, "{cols}: {got} for {}", weight(r, c));
            }
        }
        let zeros = Nf4::new(1, 4, |_, out| out.fill(0.0));
        let mut out = [f32::NAN; 4];
        zeros.rows(0..1, &mut out);
        assert_eq!(out, [0.0; 4]);
    }
}
