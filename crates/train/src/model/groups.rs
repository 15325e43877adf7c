//! Ternary weights with a scale for each 32 of a row: the kernels' TG1, as it is learned.
//!
//! A weight beyond 0.7 of its group's mean magnitude becomes the mean magnitude of those, any other 0 (Li et al., Ternary
//! Weight Networks, arXiv 1605.04711), the scale rounded as it is written. Gradients pass as if nothing had been rounded.

use kernels::codec::grouped::{GROUP, encode, scale_code, scale_value};
use kernels::row::RowType;

/// Of the mean magnitude of a group: weights below become 0.
const THRESHOLD: f32 = 0.7;

/// The code of a group's scale, and the magnitude from which on its weights are that large.
fn grid(group: &[f32]) -> (u8, f32) {
    let mean = group.iter().map(|w| w.abs()).sum::<f32>() / group.len().max(1) as f32;
    let threshold = THRESHOLD * mean;
    let (mut sum, mut n) = (0.0f32, 0.0f32);
    for w in group {
        let (magnitude, counts) = if w.abs() > threshold { (w.abs(), 1.0) } else { (0.0, 0.0) };
        sum += magnitude;
        n += counts;
    }
    (scale_code(sum / n.max(1.0)), threshold)
}

/// `out = w + share (rounded(w) - w)` of a matrix with rows of `cols`: at share 0 the weights, at 1 exactly what [`ternary_row`]
/// writes.
pub(crate) fn mix(weights: &[f32], cols: usize, share: f32, out: &mut [f32]) {
    for (row, out) in weights.chunks(cols.max(1)).zip(out.chunks_mut(cols.max(1))) {
        for (group, out) in row.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
            let (code, threshold) = grid(group);
            let scale = scale_value(code);
            for (out, &w) in out.iter_mut().zip(group) {
                let rounded = if w.abs() > threshold { scale.copysign(w) } else { 0.0 };
                *out = if share < 1.0 { w + share * (rounded - w) } else { rounded };
            }
        }
    }
}

/// Writes a row in TG1 to `out`, which has as many bytes as that takes.
pub(crate) fn ternary_row(row: &[f32], out: &mut [u8]) {
    let (mut q, mut scales) = (Vec::with_capacity(row.len()), Vec::with_capacity(row.len().div_ceil(GROUP)));
    for group in row.chunks(GROUP) {
        let (code, threshold) = grid(group);
        scales.push(code);
        q.extend(group.iter().map(|w| match w.abs() > threshold {
            true => 1f32.copysign(*w) as i8,
            false => 0,
        }));
    }
    encode(RowType::TG1, &q, &scales, out);
}

#[cfg(test)]
mod tests {
    use kernels::codec::dequantize_row;

    use super::*;

    #[test]
    fn what_is_written_is_what_was_learned_at_every_width() {
        for cols in [32, 64, 100, 172] {
            let weights: Vec<f32> = (0..3 * cols).map(|i| (i as f32 * 1.7).sin().powi(3) * 0.3).collect();
            let (mut all, mut half, mut none) =
                (vec![0.0; 3 * cols], vec![0.0; 3 * cols], vec![0.0; 3 * cols]);
            mix(&weights, cols, 1.0, &mut all);
            mix(&weights, cols, 0.5, &mut half);
            mix(&weights, cols, 0.0, &mut none);
            assert_eq!(none, weights);
            // What is rounded stays as it is: a training may begin with a ternary model.
            let mut again = vec![0.0; 3 * cols];
            mix(&all, cols, 1.0, &mut again);
            assert_eq!(again, all);
            for ((half, all), w) in half.iter().zip(&all).zip(&weights) {
                assert!((half - (all + w) / 2.0).abs() < 1e-6);
            }
            for (row, all) in weights.chunks(cols).zip(all.chunks(cols)) {
                let mut bytes = vec![0; RowType::TG1.row_bytes(cols).unwrap()];
                ternary_row(row, &mut bytes);
                let mut read = vec![0.0; cols];
                dequantize_row(RowType::TG1, &bytes, &mut read).unwrap();
                assert_eq!(read, all);
            }
            // Three levels are left of each group, and they are near the weights.
            let error: f32 = weights.iter().zip(&all).map(|(w, r)| (w - r) * (w - r)).sum();
            let energy: f32 = weights.iter().map(|w| w * w).sum();
            assert!((error / energy).sqrt() < 0.5, "{cols}: {}", (error / energy).sqrt());
        }
    }

    #[test]
    fn a_group_of_zeros_stays_one() {
        let mut out = [1.0; 40];
        mix(&[0.0; 40], 40, 1.0, &mut out);
        assert_eq!(out, [0.0; 40]);
    }
}
