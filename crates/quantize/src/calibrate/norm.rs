//! The weights of a norm, fitted to the rounded layers behind it.
//!
//! A norm's weights are factors on the columns of all matrices that take its output. Formats keep them in f32, so that
//! fitting them costs no bit: with Q the rounded rows, H the inputs' second moments and C the outputs wanted times the
//! inputs, the factors c that minimize the error of Q diag(c) solve `(H * Q^T Q) c = diag(Q^T C)`, `*` element by
//! element.

use kernels::MatmulError;

use super::moments::Moments;
use crate::solve::{Products, divide_one};

/// How much the factors are pulled to 1, as a share of the mean diagonal element; and what is added to it for each
/// column that there is to a token.
const PULL: f32 = 0.02;
const PULL_OF_FEW: f32 = 0.5;

/// Sums over the rows of all matrices behind a norm.
#[derive(Debug)]
pub(crate) struct NormFit {
    n: usize,
    /// Q^T Q
    gram: Moments,
    /// diag(Q^T C)
    given: Vec<f32>,
}

impl NormFit {
    pub(crate) fn new(n: usize) -> Self {
        Self { n, gram: Moments::new(n, n), given: vec![0.0; n] }
    }

    /// Adds rounded rows and what is wanted of them, `[rows, n]` each.
    pub(crate) fn add(
        &mut self,
        products: &mut Products,
        rounded: &[f32],
        wanted: &[f32],
    ) -> Result<(), MatmulError> {
        for (q, c) in rounded.chunks_exact(self.n).zip(wanted.chunks_exact(self.n)) {
            self.given.iter_mut().zip(q.iter().zip(c)).for_each(|(sum, (q, c))| *sum += q * c);
        }
        self.gram.add(products, rounded, rounded)
    }

    /// The factors on the norm's weights; `h` as [`NormFit`] says, of `tokens` tokens.
    pub(crate) fn factors(mut self, h: &[f32], tokens: usize) -> Vec<f32> {
        let n = self.n;
        self.gram.sum.iter_mut().zip(h).for_each(|(gram, h)| *gram *= h);
        let mean = (0..n).map(|i| self.gram.sum[i * n + i]).sum::<f32>() / n as f32;
        let pull = (PULL + PULL_OF_FEW * n as f32 / tokens.max(1) as f32) * mean;
        for i in 0..n {
            self.gram.sum[i * n + i] += pull;
            self.given[i] += pull;
        }
        if pull > 0.0 { divide_one(&self.gram.sum, &self.given) } else { vec![1.0; n] }
    }
}
