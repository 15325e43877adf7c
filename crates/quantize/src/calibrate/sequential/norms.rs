//! The norms on the way: their names in the journal, and what becomes of them.

use engine::layerwise::Input;
use kernels::codec::quantize_row;
use kernels::row::RowType;

use super::fit::Fit;
use super::{NormFit, Run};
use crate::calibrate::moments::Moments;
use crate::quantize::QuantizeError;

/// What the journal calls the norm before the classifier.
pub(crate) const FINAL_NORM: &str = "norm:final";

/// What the journal calls the norm before the layers of an input; none where another layer's output comes between.
pub(crate) fn norm_name(l: usize, input: Input) -> Option<String> {
    matches!(input, Input::Qkv | Input::GateUp).then(|| format!("norm:{l}:{}", input.name()))
}

impl Run<'_> {
    /// Puts the norm that was fitted, or that an earlier run has fitted, into its place.
    pub(super) fn norm(
        &mut self,
        name: &str,
        fit: Option<(NormFit, &Fit)>,
        place: &mut Vec<f32>,
    ) -> Result<(), QuantizeError> {
        let wrong = QuantizeError::matrix(name);
        let n = place.len();
        let fitted = match (self.done.remove(name), fit) {
            (Some(done), _) => done.to_values().map_err(&wrong)?,
            (None, Some((norm, fit))) => {
                let factors = norm.factors(&fit.h, fit.tokens);
                let fitted: Vec<f32> = place.iter().zip(factors).map(|(w, factor)| w * factor).collect();
                let mut bytes = vec![0; 4 * n];
                quantize_row(RowType::F32, &fitted, &mut bytes).map_err(QuantizeError::codec(name))?;
                self.journal.append(name, RowType::F32, (1, n), &bytes)?;
                fitted
            }
            (None, None) => return Ok(()),
        };
        *place = fitted;
        Ok(())
    }

    /// Fits the norm before the classifier.
    pub(super) fn final_norm(&mut self, from: &[Vec<f32>], to: &[Vec<f32>]) -> Result<(), QuantizeError> {
        let weights = &self.model.weights;
        let classifier = weights.classifier();
        let wrong = QuantizeError::matrix(&classifier.name);
        let n = classifier.cols;
        let (mut h, mut cross) = (Moments::new(n, n), Moments::new(n, n));
        for (from, to) in from.iter().zip(to) {
            let theirs = self.layerwise.normed(from, &weights.rms_final);
            let ours = self.layerwise.normed(to, &weights.rms_final);
            h.add(&mut self.products, &ours, &ours).map_err(&wrong)?;
            cross.add(&mut self.products, &ours, &theirs).map_err(&wrong)?;
        }
        let tokens = to.iter().map(|x| x.len() / n).sum();
        let fit = Fit { n, tokens, h: h.sum, cross: cross.sum, outputs: false };
        let made = self.journal.matrices()?.into_iter().find(|matrix| matrix.name == classifier.name);
        let mut norm = NormFit::new(n);
        // A vocabulary is too large to be had at once.
        const ROWS: usize = 1024;
        let (view, mut first) = (classifier.view().map_err(&wrong)?, 0);
        let stored = made.as_ref().unwrap_or(classifier).view().map_err(&wrong)?;
        while first < classifier.rows {
            let rows = ROWS.min(classifier.rows - first);
            let (mut values, mut rounded) = (vec![0.0; rows * n], vec![0.0; rows * n]);
            for r in 0..rows {
                view.dequantize_row(first + r, &mut values[r * n..][..n]).map_err(&wrong)?;
                stored.dequantize_row(first + r, &mut rounded[r * n..][..n]).map_err(&wrong)?;
            }
            let wanted = self.wanted(&values, &fit).map_err(&wrong)?;
            norm.add(&mut self.products, &rounded, &wanted).map_err(&wrong)?;
            first += rows;
        }
        let mut place = weights.rms_final.clone();
        self.norm(FINAL_NORM, Some((norm, &fit)), &mut place)
    }
}
