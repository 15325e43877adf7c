//! AdamW (Loshchilov and Hutter, arXiv 1711.05101), as PyTorch computes it.

/// What stays the same from step to step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the mean of derivatives.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the mean of squares.
    pub eps: f32,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8 }
    }
}

/// The state of AdamW for a vector of parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    options: AdamWOptions,
    /// Means of derivatives.
    pub mean: Vec<f32>,
    /// Means of their squares.
    pub square: Vec<f32>,
    /// Steps so far.
    pub steps: u64,
}

impl AdamW {
    /// For `len` parameters, before the first step.
    pub fn new(len: usize, options: AdamWOptions) -> Self {
        Self { options, mean: vec![0.0; len], square: vec![0.0; len], steps: 0 }
    }

    /// Counts a step, after which [`AdamW::update`] is called for each part of the parameters.
    pub fn begin_step(&mut self) {
        self.steps += 1;
    }

    /// `p = p (1 - lr decay) - lr mean' / (sqrt(square') + eps)` of the parameters that begin at `from`; the means are
    /// corrected for having begun at 0.
    pub fn update(&mut self, from: usize, parameters: &mut [f32], d: &[f32], learning_rate: f32, decay: f32) {
        let AdamWOptions { beta1, beta2, eps } = self.options;
        let correction =
            |beta: f32| 1.0 - f64::from(beta).powi(i32::try_from(self.steps).unwrap_or(i32::MAX));
        let step = (f64::from(learning_rate) / correction(beta1)) as f32;
        let root = (1.0 / correction(beta2).sqrt()) as f32;
        let keep = 1.0 - learning_rate * decay;
        let mean = &mut self.mean[from..from + parameters.len()];
        let square = &mut self.square[from..from + parameters.len()];
        for (((p, &d), m), s) in parameters.iter_mut().zip(d).zip(mean).zip(square) {
            *m = beta1 * *m + (1.0 - beta1) * d;
            *s = beta2 * *s + (1.0 - beta2) * d * d;
            *p = *p * keep - step * *m / (s.sqrt() * root + eps);
        }
    }
}
