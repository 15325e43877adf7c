//! BitNet's matrices in a floating-point type, as files have them whose ternary types do not take their width: back to
//! codes with a scale a row.
//!
//! The values are the same. What changes is the arithmetic: codes times rounded activations add up to integers, which are
//! exact, so that the model's output is that of the same model in any other container, to the last bit.

use kernels::MatmulError;
use kernels::row::RowType;

use crate::source::Bytes;
use crate::weights::WeightMatrix;

/// The matrix in [`RowType::Ternary32`] where its rows are floating-point numbers -s, 0 and s, else as it is.
pub(super) fn as_codes(weight: WeightMatrix) -> Result<WeightMatrix, MatmulError> {
    if !matches!(weight.row_type, RowType::F32 | RowType::F16 | RowType::BF16) {
        return Ok(weight);
    }
    let Some(row_bytes) = RowType::Ternary32.row_bytes(weight.cols) else { return Ok(weight) };
    let (view, mut row) = (weight.view()?, vec![0.0; weight.cols]);
    let mut bytes = Vec::new();
    for r in 0..weight.rows {
        view.dequantize_row(r, &mut row)?;
        let scale = row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        if !scale.is_finite() || row.iter().any(|&w| w != 0.0 && w.abs() != scale) {
            return Ok(weight);
        }
        let start = bytes.len();
        bytes.resize(start + row_bytes, 0);
        let (head, codes) = bytes[start..].split_at_mut(RowType::Ternary32.header_bytes());
        head.copy_from_slice(&scale.to_le_bytes());
        for (i, &w) in row.iter().enumerate() {
            let code = if w == 0.0 { 0 } else { w.signum() as i8 };
            codes[i / 4] |= (code as u8 & 0b11) << (2 * (i % 4));
        }
    }
    let WeightMatrix { name, rows, cols, .. } = weight;
    Ok(WeightMatrix::of_rows(name, RowType::Ternary32, rows, cols, Bytes::Owned(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(values: &[f32], cols: usize) -> WeightMatrix {
        let bytes = values.iter().flat_map(|w| w.to_le_bytes()).collect();
        WeightMatrix::of_rows("w".to_owned(), RowType::F32, values.len() / cols, cols, Bytes::Owned(bytes))
    }

    #[test]
    fn ternary_rows_become_codes_and_others_stay() {
        let values = [0.3f32, -0.3, 0.0, 0.3, -0.3, 0.0, 0.0, 0.0, 0.0, 0.0];
        let codes = as_codes(matrix(&values, 5)).unwrap();
        assert_eq!(codes.row_type, RowType::Ternary32);
        assert_eq!(codes.to_values().unwrap(), values);
        for other in [[0.3, -0.30001, 0.0], [f32::INFINITY, 0.0, 0.0], [f32::NAN, 1.0, 1.0]] {
            assert_eq!(as_codes(matrix(&other, 3)).unwrap().row_type, RowType::F32);
        }
    }
}
