//! Ternary weights with a scale for each 32 of a row: the kernels' TG1, and TG2 of two planes, as they are learned.
//!
//! One plane: a weight beyond 0.7 of its group's mean magnitude becomes the mean magnitude of those, any other 0 (Li et al.,
//! Ternary Weight Networks, arXiv 1605.04711). Two planes, one three times the other: a weight becomes the nearest of nine levels
//! of which the outermost is the group's largest magnitude. The scale is rounded as it is written. Gradients pass as if nothing had
//! been rounded.

use kernels::codec::grouped::{GROUP, encode, round_group, scale_code, scale_value};
use kernels::row::RowType;

/// Of the mean magnitude of a group: weights below become 0.
const THRESHOLD: f32 = 0.7;

/// Levels on each side of 0 of two planes.
const LEVELS: f32 = 4.0;

/// Ternary planes that are added up to a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planes {
    /// -1, 0 and 1 times a scale: 1.875 bits a weight.
    One,
    /// 3 a + b of two digits, -4 to 4, times a scale: 3.5 bits a weight.
    Two,
}

impl Planes {
    /// How many.
    pub fn number(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// The kernels' type of the rows.
    pub(crate) fn row_type(self) -> RowType {
        match self {
            Self::One => RowType::TG1,
            Self::Two => RowType::TG2,
        }
    }

    /// The codes of a group's weights are written to `q`; returns that of its scale.
    fn round(self, group: &[f32], q: &mut [i8]) -> u8 {
        match self {
            Self::One => {
                let mean = group.iter().map(|w| w.abs()).sum::<f32>() / group.len().max(1) as f32;
                let threshold = THRESHOLD * mean;
                let (mut sum, mut n) = (0.0f32, 0.0f32);
                for (q, w) in q.iter_mut().zip(group) {
                    let counts = w.abs() > threshold;
                    let (magnitude, one) = if counts { (w.abs(), 1.0) } else { (0.0, 0.0) };
                    sum += magnitude;
                    n += one;
                    *q = i8::from(counts) * (1 - 2 * i8::from(*w < 0.0));
                }
                scale_code(sum / n.max(1.0))
            }
            Self::Two => {
                let code = scale_code(group.iter().fold(0.0f32, |max, w| max.max(w.abs())) / LEVELS);
                round_group(RowType::TG2, group, code, q);
                code
            }
        }
    }
}

/// `out = w + share (rounded(w) - w)` of a matrix with rows of `cols`: at share 0 the weights, at 1 exactly what [`ternary_row`]
/// writes.
pub(crate) fn mix(planes: Planes, weights: &[f32], cols: usize, share: f32, out: &mut [f32]) {
    let mut q = [0i8; GROUP];
    for (row, out) in weights.chunks(cols.max(1)).zip(out.chunks_mut(cols.max(1))) {
        for (group, out) in row.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
            let scale = scale_value(planes.round(group, &mut q));
            for ((out, &w), &q) in out.iter_mut().zip(group).zip(&q) {
                let rounded = scale * f32::from(q);
                *out = if share < 1.0 { w + share * (rounded - w) } else { rounded };
            }
        }
    }
}

/// Writes a row in the planes' type to `out`, which has as many bytes as that takes.
pub(crate) fn ternary_row(planes: Planes, row: &[f32], out: &mut [u8]) {
    let (mut q, mut scales) = (vec![0; row.len()], Vec::with_capacity(row.len().div_ceil(GROUP)));
    for (group, q) in row.chunks(GROUP).zip(q.chunks_mut(GROUP)) {
        scales.push(planes.round(group, q));
    }
    encode(planes.row_type(), &q, &scales, out);
}

#[cfg(test)]
mod tests {
    use kernels::codec::dequantize_row;

    use super::*;

    #[test]
    fn what_is_written_is_what_was_learned_at_every_width() {
        let widths = [32, 64, 100, 172];
        for (planes, cols) in widths.iter().flat_map(|&cols| [(Planes::One, cols), (Planes::Two, cols)]) {
            let weights: Vec<f32> = (0..3 * cols).map(|i| (i as f32 * 1.7).sin().powi(3) * 0.3).collect();
            let (mut all, mut half, mut none) =
                (vec![0.0; 3 * cols], vec![0.0; 3 * cols], vec![0.0; 3 * cols]);
            mix(planes, &weights, cols, 1.0, &mut all);
            mix(planes, &weights, cols, 0.5, &mut half);
            mix(planes, &weights, cols, 0.0, &mut none);
            assert_eq!(none, weights);
            // What is rounded stays as it is: a training may begin with a ternary model.
            let mut again = vec![0.0; 3 * cols];
            mix(planes, &all, cols, 1.0, &mut again);
            assert_eq!(again, all);
            for ((half, all), w) in half.iter().zip(&all).zip(&weights) {
                assert!((half - (all + w) / 2.0).abs() < 1e-6);
            }
            for (row, all) in weights.chunks(cols).zip(all.chunks(cols)) {
                let mut bytes = vec![0; planes.row_type().row_bytes(cols).unwrap()];
                ternary_row(planes, row, &mut bytes);
                let mut read = vec![0.0; cols];
                dequantize_row(planes.row_type(), &bytes, &mut read).unwrap();
                assert_eq!(read, all);
            }
            // Three levels are left of each group, or nine, and they are near the weights.
            let error: f32 = weights.iter().zip(&all).map(|(w, r)| (w - r) * (w - r)).sum();
            let energy: f32 = weights.iter().map(|w| w * w).sum();
            let bound = [0.5, 0.2][planes.number() - 1];
            assert!((error / energy).sqrt() < bound, "{planes:?} {cols}: {}", (error / energy).sqrt());
        }
    }

    #[test]
    fn a_group_of_zeros_stays_one() {
        for planes in [Planes::One, Planes::Two] {
            let mut out = [1.0; 40];
            mix(planes, &[0.0; 40], 40, 1.0, &mut out);
            assert_eq!(out, [0.0; 40]);
        }
    }
}
