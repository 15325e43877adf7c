//! Plain rounding: each row by itself, as the type's own quantizer does.

use engine::Model;
use engine::weights::WeightMatrix;
use kernels::codec::quantize_row;
use kernels::row::RowType;

use super::Progress;
use super::error::QuantizeError;
use super::journal::Journal;
use super::plan::Plan;
use crate::convert::exact::check_finite;

/// Rounds the matrices of the plan that are not in the journal yet; how many were.
pub(crate) fn all(
    model: &Model,
    plan: &Plan,
    journal: &mut Journal,
    progress: &mut Progress<'_>,
) -> Result<usize, QuantizeError> {
    let mut resumed = 0;
    for (done, step) in plan.steps.iter().enumerate() {
        progress(&step.name, done, plan.steps.len());
        if journal.find(&step.name).is_some() {
            resumed += 1;
            continue;
        }
        let Some(weight) = model.weights.matrices().find(|matrix| matrix.name == step.name) else { continue };
        let bytes = rounded(weight, step.row_type)?;
        journal.append(&step.name, step.row_type, (weight.rows, weight.cols), &bytes)?;
    }
    Ok(resumed)
}

/// All rows of a matrix in another type.
pub(crate) fn rounded(weight: &WeightMatrix, row_type: RowType) -> Result<Vec<u8>, QuantizeError> {
    let view = weight.view().map_err(QuantizeError::matrix(&weight.name))?;
    let row_bytes = row_type.row_bytes(weight.cols).unwrap_or_default();
    let mut bytes = vec![0; row_bytes * weight.rows];
    let mut values = vec![0.0; weight.cols];
    for (r, out) in bytes.chunks_exact_mut(row_bytes).enumerate() {
        view.dequantize_row(r, &mut values).map_err(QuantizeError::matrix(&weight.name))?;
        check_finite(&weight.name, r, &values)?;
        quantize_row(row_type, &values, out).map_err(QuantizeError::codec(&weight.name))?;
    }
    Ok(bytes)
}
