//! What the layers of one input see, and what is wanted of them.

use engine::layerwise::Input;
use kernels::MatmulError;

use super::{Block, Run, half};
use crate::calibrate::moments::{Moments, weigh, weights_of};
use crate::quantize::QuantizeError;
use crate::solve::Rows;

/// What the layers of one input are fitted to.
pub(super) struct Fit {
    /// Columns.
    pub(super) n: usize,
    /// Tokens that were seen.
    pub(super) tokens: usize,
    /// Second moments of the rounded model's inputs, `[n, n]`.
    pub(super) h: Vec<f32>,
    /// Of outputs wanted and those inputs, `[rows, n]`, or of those inputs and the original's, `[n, n]`.
    pub(super) cross: Vec<f32>,
    /// Whether `cross` has outputs.
    pub(super) outputs: bool,
}

impl Fit {
    /// To inputs divided by `scale`, `[n]`, of weights multiplied with it.
    pub(super) fn rescale(&mut self, scale: &[f32]) {
        let n = self.n;
        for (row, s) in self.h.chunks_exact_mut(n).zip(scale) {
            row.iter_mut().zip(scale).for_each(|(h, t)| *h /= s * t);
        }
        for (i, row) in self.cross.chunks_exact_mut(n).enumerate() {
            let left = if self.outputs { 1.0 } else { scale[i] };
            row.iter_mut().zip(scale).for_each(|(c, s)| *c /= s * left);
        }
    }
}

/// Multiplies the columns of `values`, `[_, n]`, with `scale`, `[n]`.
pub(super) fn times_columns(values: &mut [f32], scale: &[f32]) {
    for row in values.chunks_exact_mut(scale.len()) {
        row.iter_mut().zip(scale).for_each(|(w, s)| *w *= s);
    }
}

impl Run<'_> {
    /// Sums up what the layers of one input see, and takes the original's stream on where they complete a half.
    pub(super) fn gather(
        &mut self,
        block: &mut Block<'_>,
        input: Input,
        open: bool,
    ) -> Result<Fit, QuantizeError> {
        let first = &input.linears(&block.original)[0].weight;
        let (rows, n) = (first.rows, first.cols);
        let wrong = QuantizeError::matrix(&first.name);
        if let Some(statistics) = self.statistics {
            let h = statistics.moments(block.l, input, n)?;
            return Ok(Fit { n, tokens: statistics.tokens()?, cross: h.clone(), h, outputs: false });
        }
        let outputs = match input {
            Input::Wo => block.original.post_att_norm.is_none() && block.original.wo.bias.is_none(),
            Input::Down => block.original.post_ffn_norm.is_none() && block.original.w2.bias.is_none(),
            _ => false,
        };
        let mut h = Moments::new(n, n);
        let mut cross = if outputs { Moments::new(rows, n) } else { Moments::new(n, n) };
        for (from, to) in block.from.iter_mut().zip(&*block.to) {
            let (mut theirs, mut ours) = (Vec::new(), Vec::new());
            match input {
                Input::Qkv => {
                    theirs = self.layerwise.normed(from, &block.original.rms_att);
                    ours = self.layerwise.normed(to, &block.rounded.rms_att);
                }
                Input::GateUp => {
                    theirs = self.layerwise.normed(from, &block.original.rms_ffn);
                    ours = self.layerwise.normed(to, &block.rounded.rms_ffn);
                }
                _ => {
                    let l = block.l;
                    half(&mut self.layerwise, l, &block.original, input, from, &mut |at, values| {
                        if at == input && open && !outputs {
                            theirs.extend_from_slice(values);
                        }
                    })?;
                    if open {
                        let mut to = to.clone();
                        half(&mut self.layerwise, l, &block.rounded, input, &mut to, &mut |at, values| {
                            if at == input {
                                ours.extend_from_slice(values);
                            }
                        })?;
                    }
                }
            }
            if !open {
                continue;
            }
            let weights = outputs.then(|| weights_of(from, self.model.config.dim));
            weights.iter().for_each(|weights| weigh(&mut ours, weights));
            h.add(&mut self.products, &ours, &ours).map_err(&wrong)?;
            if outputs {
                let mut wanted: Vec<f32> = from.iter().zip(to).map(|(from, to)| from - to).collect();
                weights.iter().for_each(|weights| weigh(&mut wanted, weights));
                cross.add(&mut self.products, &wanted, &ours).map_err(&wrong)?;
            } else {
                cross.add(&mut self.products, &ours, &theirs).map_err(&wrong)?;
            }
        }
        let tokens = block.to.iter().map(|x| x.len() / self.model.config.dim).sum();
        Ok(Fit { n, tokens, h: h.sum, cross: cross.sum, outputs })
    }

    /// The outputs that are wanted of a matrix of these `values` times the inputs that it gets, `[rows, n]`.
    pub(super) fn wanted(&mut self, values: &[f32], fit: &Fit) -> Result<Vec<f32>, MatmulError> {
        if fit.outputs {
            return Ok(fit.cross.clone());
        }
        let n = fit.n;
        let mut wanted = vec![0.0; values.len()];
        self.products.load(values, n);
        self.products.times(&Rows::new(fit.cross.iter().copied(), n), (0, n), &mut wanted)?;
        Ok(wanted)
    }
}
