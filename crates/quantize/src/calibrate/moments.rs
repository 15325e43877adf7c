//! Sums of outer products of what layers take and give.

use engine::EngineError;
use engine::layerwise::{Input, Layerwise};
use engine::weights::Layer;
use kernels::MatmulError;

use crate::solve::{Products, Rows};

/// What the tokens of a residual stream, `[tokens, dim]`, count as where errors are added to it: 1 / root mean square. The
/// norms that read the stream divide by that. Without it the few tokens whose stream is thousands of times larger than
/// that of all others (the first of a text, in most models: massive activations, arXiv 2402.17762) would be all that the
/// layers before them are fitted to.
pub(crate) fn weights_of(stream: &[f32], dim: usize) -> Vec<f32> {
    let mean_square = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>() / dim as f32;
    stream.chunks_exact(dim).map(|x| mean_square(x).max(1e-12).sqrt().recip()).collect()
}

/// Multiplies the values of each token with its weight.
pub(crate) fn weigh(values: &mut [f32], weights: &[f32]) {
    let cols = values.len() / weights.len().max(1);
    for (values, weight) in values.chunks_exact_mut(cols.max(1)).zip(weights) {
        values.iter_mut().for_each(|value| *value *= weight);
    }
}

/// What one input of a block was given.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// `[tokens, n]`
    pub(crate) values: Vec<f32>,
    /// What each token counts ([`weights_of`]), where errors are added to the stream with no norm between.
    pub(crate) weights: Option<Vec<f32>>,
}

/// Takes a sequence through a block; what its inputs were given.
pub(crate) fn inputs(
    layerwise: &mut Layerwise<'_>,
    l: usize,
    layer: &Layer,
    x: &mut [f32],
    dim: usize,
) -> Result<[Seen; 4], EngineError> {
    let mut seen: [Seen; 4] = Default::default();
    let mut tap = |input: Input, values: &[f32]| {
        if let Some(i) = Input::OF_BLOCK.iter().position(|of| *of == input) {
            seen[i].values.extend_from_slice(values);
        }
    };
    layerwise.attention(l, layer, x, &mut tap)?;
    let of_wo = layer.post_att_norm.is_none().then(|| weights_of(x, dim));
    layerwise.feed_forward(l, layer, x, &mut tap)?;
    let of_w2 = layer.post_ffn_norm.is_none().then(|| weights_of(x, dim));
    for (input, weights) in [(Input::Wo, of_wo), (Input::Down, of_w2)] {
        if let Some(i) = Input::OF_BLOCK.iter().position(|of| *of == input) {
            seen[i].weights = weights;
        }
    }
    Ok(seen)
}

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
            let mut columns = Vec::with_capacity(values.len());
            (0..cols).for_each(|c| columns.extend(values[c..].iter().step_by(cols)));
            columns
        };
        let rows = Rows::new(transposed(right, self.right), tokens);
        products.load(&transposed(left, self.left), tokens);
        products.times(&rows, (0, self.right), &mut self.part)?;
        self.sum.iter_mut().zip(&self.part).for_each(|(sum, part)| *sum += part);
        Ok(())
    }
}
