//! Sums of outer products of what layers take and give.

use kernels::MatmulError;

use crate::solve::{Products, Rows};

/// `sum over tokens of left[t] right[t]^T`, `[left_cols, right_cols]`.
#[derive(Debug)]
pub(crate) struct Moments {
    left: usize,
    right: usize,
    pub(crate) sum: Vec<f32>,
    part: Vec<f32>,
}

impl Moments {
    pub(crate) fn new(left: usize, right: usize) -> Self {
        Self { left, right, sum: vec![0.0; left * right], part: vec![0.0; left * right] }
    }

    /// Adds the tokens of `left`, `[tokens, left_cols]`, and `right`, `[tokens, right_cols]`.
    pub(crate) fn add(
        &mut self,
        products: &mut Products,
        left: &[f32],
        right: &[f32],
    ) -> Result<(), MatmulError> {
        let tokens = left.len() / self.left;
        let transposed = |values: &'_ [f32], cols: usize| -> Vec<f32> {
            (0..cols * tokens).map(|i| values[i % tokens * cols + i / tokens]).collect()
        };
        let rows = Rows::new(transposed(right, self.right), tokens);
        products.load(&transposed(left, self.left), tokens);
        products.times(&rows, (0, self.right), &mut self.part)?;
        self.sum.iter_mut().zip(&self.part).for_each(|(sum, part)| *sum += part);
        Ok(())
    }
}
