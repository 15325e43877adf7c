//! Gradients that are not longer than they may be.

/// The length of a gradient, which is shortened to `most` if it is longer; 0: never.
pub fn clip(d: &mut [f32], most: f32) -> f64 {
    let length = d.iter().map(|&d| f64::from(d).powi(2)).sum::<f64>().sqrt();
    if most > 0.0 && length > f64::from(most) && length.is_finite() {
        let factor = (f64::from(most) / length) as f32;
        d.iter_mut().for_each(|d| *d *= factor);
    }
    length
}
