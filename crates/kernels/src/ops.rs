//! What happens to a vector between two matrix products.

/// Root mean square norm (Zhang and Sennrich, arXiv 1910.07467): `out = x / sqrt(mean(x^2) + eps) * weight`.
/// Without a weight every factor is 1.
pub fn rms_norm(x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let scale = inverse_rms(x, eps);
    match weight {
        Some(weight) => {
            for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
                *out = x * scale * w;
            }
        }
        None => {
            for (out, &x) in out.iter_mut().zip(x) {
                *out = x * scale;
            }
        }
    }
}

/// [`rms_norm`] onto its own input.
pub fn rms_norm_in_place(x: &mut [f32], weight: Option<&[f32]>, eps: f32) {
    let scale = inverse_rms(x, eps);
    match weight {
        Some(weight) => x.iter_mut().zip(weight).for_each(|(x, &w)| *x = *x * scale * w),
        None => x.iter_mut().for_each(|x| *x *= scale),
    }
}

fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let sum: f32 = crate::arch::scalar::dot_f32(x, x);
    1.0 / (sum / x.len() as f32 + eps).sqrt()
}

/// Softmax in place, shifted by the maximum. All-equal and single inputs are exact.
pub fn softmax(x: &mut [f32]) {
    let max = x.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let mut sum = 0.0;
    for x in x.iter_mut() {
        *x = (*x - max).exp();
        sum += *x;
    }
    let scale = 1.0 / sum;
    for x in x.iter_mut() {
        *x *= scale;
    }
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

impl Activation {
    /// The function at one point.
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::GeluTanh => {
                const SQRT_2_OVER_PI: f32 = 0.797_884_6;
                0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)).tanh())
            }
            Self::Relu2 => {
                let x = x.max(0.0);
                x * x
            }
        }
    }

    /// `gate = f(gate) * up`.
    pub fn gate(self, gate: &mut [f32], up: &[f32]) {
        for (gate, &up) in gate.iter_mut().zip(up) {
            *gate = self.apply(*gate) * up;
        }
    }
}

/// `x += y`.
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_sums_to_one_and_survives_large_values() {
        let mut x = [1000.0, 999.0, -1000.0, 0.0];
        softmax(&mut x);
        assert!((x.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((x[0] / x[1] - 1f32.exp()).abs() < 1e-4);
        let mut one = [f32::MIN];
        softmax(&mut one);
        assert_eq!(one, [1.0]);
    }

    #[test]
    fn rms_norm_has_unit_rms() {
        let x: Vec<f32> = (0..37).map(|i| i as f32 - 11.5).collect();
        let mut out = vec![0.0; 37];
        rms_norm(&x, None, 0.0, &mut out);
        let rms = (out.iter().map(|x| x * x).sum::<f32>() / 37.0).sqrt();
        assert!((rms - 1.0).abs() < 1e-6);
        let mut same = x;
        rms_norm_in_place(&mut same, None, 0.0);
        assert_eq!(same, out);
    }

    #[test]
    fn activations_at_known_points() {
        assert_eq!(Activation::Relu2.apply(-3.0), 0.0);
        assert_eq!(Activation::Relu2.apply(3.0), 9.0);
        assert!((Activation::Silu.apply(1.0) - 0.731_058_6).abs() < 1e-6);
        assert!((Activation::GeluTanh.apply(1.0) - 0.841_192).abs() < 1e-5);
    }
}
