//! Rows in another type with the same values.

use engine::weights::WeightMatrix;
use half::f16;
use kernels::Matrix;
use kernels::codec::{dequantize_row, quantize_row};
use kernels::row::RowType;

use super::error::ConvertError;
use super::parts::RowOrder;

/// How the rows of a matrix are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Encoding {
    /// In this type, with the values that they have.
    Values(RowType),
    /// In this ternary type, each weight as -1, 0 or 1 times `stored`, where it is that times `scale`.
    Codes {
        /// The type.
        row_type: RowType,
        /// Scale of all rows.
        scale: f32,
        /// The scale that the rows carry instead, exact in f16.
        stored: f32,
    },
}

impl Encoding {
    /// The type that is written.
    pub(super) fn row_type(self) -> RowType {
        match self {
            Self::Values(row_type) | Self::Codes { row_type, .. } => row_type,
        }
    }
}

/// Refuses a row with a weight that no format can round.
pub(crate) fn check_finite(tensor: &str, row: usize, values: &[f32]) -> Result<(), ConvertError> {
    match values.iter().position(|w| !w.is_finite()) {
        None => Ok(()),
        Some(column) => Err(ConvertError::Row {
            tensor: tensor.to_owned(),
            problem: format!(
                "row {row}, column {column} is {}: such weights cannot be quantized",
                values[column]
            ),
        }),
    }
}

/// Whether f16 holds the value.
pub(super) fn fits_f16(value: f32) -> bool {
    f16::from_f32(value).to_f32() == value
}

/// The scales of a matrix whose rows are all ternary: -s, 0 and s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TernaryScales {
    /// Whether f16 holds them all.
    pub(super) fit_f16: bool,
    /// The scale of all rows, if it is the same (rows of zeros have any).
    pub(super) uniform: Option<f32>,
}

/// The scales of `weight`; `None` when a row is not ternary.
pub(super) fn ternary_scales(weight: &WeightMatrix) -> Result<Option<TernaryScales>, ConvertError> {
    let matrix = view(weight)?;
    let mut row = vec![0.0; weight.cols];
    let (mut fit_f16, mut first, mut same) = (true, None, true);
    for r in 0..weight.rows {
        matrix.dequantize_row(r, &mut row).map_err(|e| ConvertError::matrix(&weight.name, &e))?;
        let Some(scale) = ternary_scale(&row) else { return Ok(None) };
        if scale != 0.0 {
            fit_f16 &= fits_f16(scale);
            same &= *first.get_or_insert(scale) == scale;
        }
    }
    Ok(Some(TernaryScales { fit_f16, uniform: Some(first.unwrap_or(0.0)).filter(|_| same) }))
}

/// `s` of a row of -s, 0 and s.
fn ternary_scale(row: &[f32]) -> Option<f32> {
    let scale = row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    (scale.is_finite() && row.iter().all(|&w| w == 0.0 || w.abs() == scale)).then_some(scale)
}

/// Whether f16 holds every scale of a matrix of [`RowType::Int8`] blocks.
pub(super) fn int8_scales_fit_f16(weight: &WeightMatrix) -> Result<bool, ConvertError> {
    let (matrix, (_, block)) = (view(weight)?, RowType::Int8.block());
    let fits = |row: &[u8]| row.chunks_exact(block).all(|b| int8_scale(b).is_some_and(fits_f16));
    Ok((0..weight.rows).all(|r| fits(matrix.row(r))))
}

fn int8_scale(block: &[u8]) -> Option<f32> {
    block.first_chunk::<4>().map(|bytes| f32::from_le_bytes(*bytes))
}

/// Appends all rows of `weight`. Whatever is not copied is decoded again and must have the same values.
pub(super) fn append_matrix(
    weight: &WeightMatrix,
    order: RowOrder,
    encoding: Encoding,
    target: &'static str,
    out: &mut Vec<u8>,
) -> Result<(), ConvertError> {
    let matrix = view(weight)?;
    let to = encoding.row_type();
    let codec = |e| ConvertError::codec(&weight.name, &e);
    let row_bytes = to.row_bytes(weight.cols).ok_or_else(|| {
        ConvertError::refused(
            target,
            &weight.name,
            format!("rows of {} are no whole blocks of {}", weight.cols, to.name()),
        )
    })?;
    let mut values = vec![0.0; weight.cols];
    let mut decoded = vec![0.0; weight.cols];
    for r in 0..weight.rows {
        let row = matrix.row(order.source(r));
        if encoding == Encoding::Values(weight.row_type) {
            out.extend_from_slice(row);
            continue;
        }
        dequantize_row(weight.row_type, row, &mut values).map_err(codec)?;
        if let Encoding::Codes { scale, stored, .. } = encoding {
            values.iter_mut().filter(|w| w.abs() == scale).for_each(|w| *w = stored.copysign(*w));
        }
        let start = out.len();
        out.resize(start + row_bytes, 0);
        let encoded = &mut out[start..];
        match (weight.row_type, to) {
            (RowType::Int4, RowType::Q4_0) => pair_nibbles_as_q4_0(row, encoded),
            (RowType::Int8, RowType::Q8_0) => int8_as_q8_0(row, encoded),
            (_, RowType::Ternary16) => encode_ternary16(&values, encoded),
            _ => quantize_row(to, &values, encoded).map_err(codec)?,
        }
        dequantize_row(to, encoded, &mut decoded).map_err(codec)?;
        if let Some(c) = values.iter().zip(&decoded).position(|(a, b)| a != b) {
            let problem = format!("{} of row {r}, column {c} is {} in {}", values[c], decoded[c], to.name());
            return Err(ConvertError::refused(target, &weight.name, problem));
        }
    }
    Ok(())
}

/// Appends a vector as f32.
pub(super) fn append_vector(values: &[f32], order: RowOrder, out: &mut Vec<u8>) {
    out.extend((0..values.len()).flat_map(|i| values[order.source(i)].to_le_bytes()));
}

/// Q4V1 keeps weights 2i and 2i + 1 in a byte, Q4_0 i and i + 16; scale and codes are the same.
fn pair_nibbles_as_q4_0(row: &[u8], out: &mut [u8]) {
    let blocks = row.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<18>().0);
    for (block, out) in blocks {
        out[..2].copy_from_slice(&block[..2]);
        let code = |i: usize| block[2 + i / 2] >> (4 * (i % 2)) & 0xf;
        for i in 0..16 {
            out[2 + i] = code(i) | code(i + 16) << 4;
        }
    }
}

/// An Int8 block has an f32 scale where Q8_0 has an f16; the codes are the same.
fn int8_as_q8_0(row: &[u8], out: &mut [u8]) {
    let blocks = row.as_chunks::<36>().0.iter().zip(out.as_chunks_mut::<34>().0);
    for (block, out) in blocks {
        let scale = f16::from_f32(int8_scale(block).unwrap_or_default());
        out[..2].copy_from_slice(&scale.to_le_bytes());
        out[2..].copy_from_slice(&block[4..]);
    }
}

/// The row's scale as f16, then T-MAC's codes.
fn encode_ternary16(values: &[f32], out: &mut [u8]) {
    let scale = f16::from_f32(values.iter().fold(0.0f32, |m, w| m.max(w.abs())));
    let (head, codes) = out.split_at_mut(RowType::Ternary16.header_bytes());
    head.copy_from_slice(&scale.to_le_bytes());
    for (i, &w) in values.iter().enumerate() {
        let code = if w == 0.0 {
            0b00
        } else if w > 0.0 {
            0b01
        } else {
            0b11
        };
        codes[i / 4] |= code << (2 * (i % 4));
    }
}

fn view(weight: &WeightMatrix) -> Result<Matrix<'_>, ConvertError> {
    weight.view().map_err(|e| ConvertError::matrix(&weight.name, &e))
}
