//! The rows of one matrix in codes.

use engine::weights::WeightMatrix;
use kernels::codec::{dequantize_row, quantize_row};
use kernels::row::RowType;

use super::Run;
use super::fit::Fit;
use crate::convert::exact::check_finite;
use crate::quantize::QuantizeError;
use crate::solve::{Grid, Metric, Rows, SWEEPS, solve};

/// How little the correction is trusted for each column that there is to a token.
const DOUBT: f32 = 20.0;

impl Run<'_> {
    /// The rows of a matrix in `row_type`, fitted.
    pub(super) fn fitted(
        &mut self,
        weight: &WeightMatrix,
        values: &[f32],
        row_type: RowType,
        fit: &Fit,
        wanted: &[f32],
        metrics: &mut Vec<(usize, Metric)>,
    ) -> Result<Vec<u8>, QuantizeError> {
        let n = weight.cols;
        let wrong = QuantizeError::matrix(&weight.name);
        for (r, row) in values.chunks_exact(n).enumerate() {
            check_finite(&weight.name, r, row)?;
        }
        let Some(grid) = Grid::of(row_type, n) else { return crate::quantize::rounded(weight, row_type) };
        if !metrics.iter().any(|(group, _)| *group == grid.group) {
            metrics.push((grid.group, Metric::new(&fit.h, n, grid.group, fit.tokens)));
        }
        let Some((_, metric)) = metrics.iter().find(|(group, _)| *group == grid.group) else {
            return crate::quantize::rounded(weight, row_type);
        };
        let mut given = vec![0.0; values.len()];
        self.products.load(values, n);
        self.products.times(&Rows::new(fit.h.iter().copied(), n), (0, n), &mut given).map_err(&wrong)?;
        // What few tokens say of the earlier layers' losses is in great part chance.
        let trust = 1.0 / (1.0 + DOUBT * n as f32 / fit.tokens.max(1) as f32);
        let correction: Vec<f32> =
            wanted.iter().zip(&given).map(|(wanted, given)| trust * (wanted - given)).collect();
        let (mut bytes, plain) = plain(&weight.name, row_type, values, n)?;
        let codes = solve(&mut self.products, metric, grid, values, Some(&correction), Some(&plain), SWEEPS)
            .map_err(&wrong)?;
        let row_bytes = row_type.row_bytes(n).unwrap_or_default();
        for (r, out) in bytes.chunks_exact_mut(row_bytes).enumerate() {
            if !codes.beaten[r] {
                codes
                    .encode(row_type, (r, n, grid.group), out)
                    .map_err(QuantizeError::codec(&weight.name))?;
            }
        }
        Ok(bytes)
    }
}

/// Rows as the type's own quantizer rounds them, and their values.
pub(super) fn plain(
    name: &str,
    row_type: RowType,
    values: &[f32],
    n: usize,
) -> Result<(Vec<u8>, Vec<f32>), QuantizeError> {
    let row_bytes = row_type.row_bytes(n).unwrap_or_default();
    let (mut bytes, mut back) = (vec![0; values.len() / n * row_bytes], vec![0.0; values.len()]);
    let rows = bytes.chunks_exact_mut(row_bytes).zip(values.chunks_exact(n)).zip(back.chunks_exact_mut(n));
    for ((out, row), back) in rows {
        quantize_row(row_type, row, out).map_err(QuantizeError::codec(name))?;
        dequantize_row(row_type, out, back).map_err(QuantizeError::codec(name))?;
    }
    Ok((bytes, back))
}
