//! BitNet b1.58's rounding (Ma et al., arXiv 2402.17764), as transformers' `autobitlinear` does it in training.
//!
//! Gradients pass both as if nothing had been rounded (the straight-through estimator).

/// `1.5 * 2^23`: added to a number and taken away again, it leaves the nearest integer, ties to even.
const NEAREST: f32 = 12_582_912.0;

/// Mean magnitude below which a matrix counts as this large.
const MIN_MEAN: f32 = 1e-5;

/// Magnitude below which a token's largest activation counts as this large.
const MIN_ABSMAX: f32 = 1e-5;

/// The scale of a ternary matrix: the mean magnitude of its weights.
pub(crate) fn ternary_scale(weights: &[f32]) -> f32 {
    // Summed by rows of a fixed length, so that the error stays that of a short sum.
    let sum: f64 = weights.chunks(256).map(|c| f64::from(c.iter().map(|w| w.abs()).sum::<f32>())).sum();
    ((sum / weights.len().max(1) as f64) as f32).max(MIN_MEAN)
}

/// `out`: the weights of a whole matrix as -scale, 0 or scale, whichever is nearest.
pub(crate) fn round_weights(weights: &[f32], out: &mut [f32]) {
    let scale = ternary_scale(weights);
    let inverse = 1.0 / scale;
    for (out, &w) in out.iter_mut().zip(weights) {
        // Cut first: what is added to must stay small.
        *out = (((w * inverse).clamp(-1.0, 1.0) + NEAREST) - NEAREST) / inverse;
    }
}

/// What [`round_weights`] makes of a matrix, as -1, 0 and 1, and the scale.
pub(crate) fn round_codes(weights: &[f32]) -> (Vec<i8>, f32) {
    let scale = ternary_scale(weights);
    let inverse = 1.0 / scale;
    // The same rounding: a weight is what it was in training.
    let codes = weights.iter().map(|w| (((w * inverse).clamp(-1.0, 1.0) + NEAREST) - NEAREST) as i8);
    (codes.collect(), 1.0 / inverse)
}

/// Rounds each row of `x`, `[tokens, cols]`, to 8 bits by its largest magnitude.
pub(crate) fn round_activations(x: &mut [f32], cols: usize) {
    for row in x.chunks_exact_mut(cols) {
        let mut lanes = [0.0f32; 16];
        let (chunks, tail) = row.as_chunks::<16>();
        for chunk in chunks {
            for (max, x) in lanes.iter_mut().zip(chunk) {
                *max = if x.abs() > *max { x.abs() } else { *max };
            }
        }
        let max = lanes.iter().chain(tail).fold(0.0f32, |m, x| m.max(x.abs()));
        let scale = 127.0 / max.max(MIN_ABSMAX);
        for x in row {
            *x = ((*x * scale + NEAREST) - NEAREST) / scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_become_three_values_by_their_mean() {
        let weights = [0.3, -0.1, 0.9, -2.0, 0.0, 0.21];
        let scale = ternary_scale(&weights);
        assert!((scale - 3.51 / 6.0).abs() < 1e-6);
        let mut out = [0.0; 6];
        round_weights(&weights, &mut out);
        for (got, want) in out.iter().zip([1.0, 0.0, 1.0, -1.0, 0.0, 0.0]) {
            assert!((got - want * scale).abs() < 1e-6, "{out:?}");
        }
        assert_eq!(ternary_scale(&[0.0; 4]), 1e-5);
    }

    #[test]
    fn activations_become_multiples_of_a_127th_of_the_largest() {
        let mut x: Vec<f32> = (0..40).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        x.extend([0.0; 40]);
        let before = x.clone();
        round_activations(&mut x, 40);
        let max = before[..40].iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for (got, before) in x.iter().zip(&before) {
            assert!((got - (before * 127.0 / max).round_ties_even() * max / 127.0).abs() < 1e-6);
        }
    }
}
