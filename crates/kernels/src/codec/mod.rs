//! Rows of weights <-> numbers: one triple per [`RowType`], unpack, dequantize and quantize.
//!
//! Every quantized type decodes through one form,
//! `value[i] = q[i] as f32 * scale[i / group] + offset[i / group]` with `q` in i8. Integer matrix products run
//! on that form ([`UnpackedRow`]); [`dequantize_row`] multiplies it out, in the reference's order of operations,
//! so that its floats equal those of ggml's `dequantize_row_*` bit for bit. Types without an offset add none
//! (adding 0 would turn -0 into +0).
//!
//! Each type is one function from a block's bytes to `q` and the scales, in `legacy`, `k_quants`, `iq`,
//! [`ternary`], [`grouped`], [`int4`] and [`int8`]. They are `inline(always)` and free of bounds checks, so that a caller
//! compiled with `#[target_feature]` gets them vectorized for its own instruction set.
//!
//! Nothing here panics on any bytes: a NaN or infinite scale gives NaN or infinite values.

#![allow(non_camel_case_types, reason = "block types have the field's own names")]

mod blocks;
mod encode;
mod float;
pub mod grouped;
pub mod int4;
pub mod int8;
mod iq;
mod k_quants;
mod lanes;
mod legacy;
pub mod repack;
pub mod ternary;

pub use encode::encode_row;
use thiserror::Error;

use crate::row::RowType;
use blocks::{dequantize_blocks, unpack_blocks};
pub(crate) use k_quants::super_blocks;

/// A row or a layout that cannot be coded as asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The row is not a whole number of blocks (or so long that its size overflows).
    #[error("a {row_type} row of {cols} weights: not a whole number of blocks of {block}")]
    Cols {
        /// Type of the row.
        row_type: RowType,
        /// Weights in the row.
        cols: usize,
        /// Weights in a block.
        block: usize,
    },
    /// The bytes are too few or too many for the weights.
    #[error("a {row_type} row of {cols} weights takes {expected} bytes, not {actual}")]
    Length {
        /// Type of the row.
        row_type: RowType,
        /// Weights in the row.
        cols: usize,
        /// Bytes that they take.
        expected: usize,
        /// Bytes that were given.
        actual: usize,
    },
    /// Only quantized types have the unpacked form.
    #[error("{0} rows are numbers already: they have no unpacked form")]
    NotQuantized(RowType),
    /// This type is read only.
    #[error("{0} rows can be read, not written")]
    NotWritable(RowType),
    /// A 2-bit code that stands for no ternary value.
    #[error("weight {index}: its 2-bit code is not ternary")]
    InvalidCode {
        /// Index of the weight in the row-major matrix.
        index: usize,
    },
    /// A tensor in a foreign layout whose shape, group or bytes do not belong together.
    #[error("{what}: {problem}")]
    Layout {
        /// Which layout.
        what: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// A row as small integers with a scale, and for some types an offset, per group. Reuse one value for many
/// rows: after the first row of a length nothing is allocated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UnpackedRow {
    /// `cols` integers.
    pub q: Vec<i8>,
    /// `cols / group` factors, rounded up.
    pub scale: Vec<f32>,
    /// As many summands; empty when `has_offset` is false.
    pub offset: Vec<f32>,
    /// Weights that share a scale: 16, 32 or the whole row.
    pub group: usize,
    /// Whether the type has offsets.
    pub has_offset: bool,
}

impl UnpackedRow {
    /// Makes room for a row; keeps what is allocated.
    #[inline(always)]
    fn shape(&mut self, row_type: RowType, cols: usize) {
        self.group = row_type.group(cols);
        self.has_offset = row_type.has_offset();
        let groups = if cols == 0 { 0 } else { cols.div_ceil(self.group) };
        self.q.resize(cols, 0);
        self.scale.resize(groups, 0.0);
        self.offset.resize(if self.has_offset { groups } else { 0 }, 0.0);
    }
}

/// Bytes of a row, or why it cannot be.
fn checked_row_bytes(row_type: RowType, cols: usize) -> Result<usize, CodecError> {
    row_type.row_bytes(cols).ok_or(CodecError::Cols { row_type, cols, block: row_type.block().0 })
}

/// Refuses bytes that are not exactly one row of `cols` weights.
fn check_len(row_type: RowType, cols: usize, actual: usize) -> Result<(), CodecError> {
    let expected = checked_row_bytes(row_type, cols)?;
    if expected == actual { Ok(()) } else { Err(CodecError::Length { row_type, cols, expected, actual }) }
}

/// Unpacks the row in `bytes` into `out`. Types without quantization (F32, F16, BF16) are refused, as are
/// bytes that are not exactly one row of `cols` weights.
pub fn unpack_row(
    row_type: RowType,
    bytes: &[u8],
    cols: usize,
    out: &mut UnpackedRow,
) -> Result<(), CodecError> {
    check_len(row_type, cols, bytes.len())?;
    if row_type.is_float() {
        return Err(CodecError::NotQuantized(row_type));
    }
    unpack_checked(row_type, bytes, cols, out);
    Ok(())
}

/// Runs a function of one block type for the row type, and the other arms for the types without blocks.
macro_rules! for_block_type {
    ($row_type:expr, $run:ident($($argument:expr),*), $($other:pat => $value:expr),+ $(,)?) => {
        match $row_type {
            RowType::Q4_0 => $run::<legacy::Q4_0, _, _, _>($($argument),*),
            RowType::Q4_1 => $run::<legacy::Q4_1, _, _, _>($($argument),*),
            RowType::Q5_0 => $run::<legacy::Q5_0, _, _, _>($($argument),*),
            RowType::Q5_1 => $run::<legacy::Q5_1, _, _, _>($($argument),*),
            RowType::Q8_0 => $run::<legacy::Q8_0, _, _, _>($($argument),*),
            RowType::Q2_K => $run::<k_quants::Q2_K, _, _, _>($($argument),*),
            RowType::Q3_K => $run::<k_quants::Q3_K, _, _, _>($($argument),*),
            RowType::Q4_K => $run::<k_quants::Q4_K, _, _, _>($($argument),*),
            RowType::Q5_K => $run::<k_quants::Q5_K, _, _, _>($($argument),*),
            RowType::Q6_K => $run::<k_quants::Q6_K, _, _, _>($($argument),*),
            RowType::IQ4_NL => $run::<iq::IQ4_NL, _, _, _>($($argument),*),
            RowType::IQ4_XS => $run::<iq::IQ4_XS, _, _, _>($($argument),*),
            RowType::MXFP4 => $run::<iq::MXFP4, _, _, _>($($argument),*),
            RowType::TQ1_0 => $run::<ternary::TQ1_0, _, _, _>($($argument),*),
            RowType::TQ2_0 => $run::<ternary::TQ2_0, _, _, _>($($argument),*),
            RowType::Int4 => $run::<int4::Int4, _, _, _>($($argument),*),
            RowType::Int8 => $run::<int8::Int8, _, _, _>($($argument),*),
            RowType::TG1 => $run::<grouped::TG1, _, _, _>($($argument),*),
            RowType::TG2 => $run::<grouped::TG2, _, _, _>($($argument),*),
            RowType::BG1 => $run::<grouped::BG1, _, _, _>($($argument),*),
            $($other => $value),+
        }
    };
}

/// [`unpack_row`] for a caller that has checked the lengths: to be inlined into code compiled for an
/// instruction set. Floating-point types leave `out` shaped for `cols` and otherwise as it is.
#[inline(always)]
pub(crate) fn unpack_checked(row_type: RowType, bytes: &[u8], cols: usize, out: &mut UnpackedRow) {
    debug_assert_eq!(row_type.row_bytes(cols), Some(bytes.len()));
    out.shape(row_type, cols);
    for_block_type!(
        row_type,
        unpack_blocks(bytes, out),
        RowType::F32 | RowType::F16 | RowType::BF16 => debug_assert!(false, "{row_type} is not quantized"),
        RowType::Ternary16 | RowType::Ternary32 => {
            let (scale, codes) = ternary::split_row(row_type, bytes);
            ternary::unpack_codes(codes, &mut out.q);
            out.scale.fill(scale);
        }
    );
}

/// Writes the row's values, exactly as the reference computes them, to `out` (`cols` = its length).
pub fn dequantize_row(row_type: RowType, bytes: &[u8], out: &mut [f32]) -> Result<(), CodecError> {
    check_len(row_type, out.len(), bytes.len())?;
    dequantize_checked(row_type, bytes, out);
    Ok(())
}

/// [`dequantize_row`] for a caller that has checked the lengths: to be inlined into code compiled for an
/// instruction set.
#[inline(always)]
pub(crate) fn dequantize_checked(row_type: RowType, bytes: &[u8], out: &mut [f32]) {
    debug_assert_eq!(row_type.row_bytes(out.len()), Some(bytes.len()));
    for_block_type!(
        row_type,
        dequantize_blocks(bytes, out),
        RowType::F32 => float::decode_f32(bytes, out),
        RowType::F16 => float::decode_f16(bytes, out),
        RowType::BF16 => float::decode_bf16(bytes, out),
        RowType::Ternary16 | RowType::Ternary32 => {
            let (scale, codes) = ternary::split_row(row_type, bytes);
            ternary::dequantize_codes(codes, scale, out);
        }
    );
}

/// Quantizes `row` into `out`, byte for byte as the reference quantizer of the type does (gguf-py for GGUF's
/// types, the seed tool for Int4 and Ternary16). Types that are only read give [`CodecError::NotWritable`].
/// NaN and infinite weights do not panic; what they become is not specified.
pub fn quantize_row(row_type: RowType, row: &[f32], out: &mut [u8]) -> Result<(), CodecError> {
    check_len(row_type, row.len(), out.len())?;
    match row_type {
        RowType::F32 => float::encode(row, out, f32::to_le_bytes),
        RowType::F16 => float::encode(row, out, float::f16_to_le_bytes),
        RowType::BF16 => float::encode(row, out, float::bf16_to_le_bytes),
        RowType::Q4_0 => blocks::quantize_blocks(row, out, legacy::quantize_q4_0),
        RowType::Q4_1 => blocks::quantize_blocks(row, out, legacy::quantize_q4_1),
        RowType::Q8_0 => blocks::quantize_blocks(row, out, legacy::quantize_q8_0),
        RowType::TQ1_0 => blocks::quantize_blocks(row, out, ternary::quantize_tq1_0),
        RowType::TQ2_0 => blocks::quantize_blocks(row, out, ternary::quantize_tq2_0),
        RowType::Int4 => blocks::quantize_blocks(row, out, int4::quantize_int4),
        RowType::Int8 => blocks::quantize_blocks(row, out, int8::quantize_int8),
        RowType::Ternary16 | RowType::Ternary32 => ternary::quantize(row_type, row, out),
        RowType::TG1 | RowType::TG2 | RowType::BG1 => grouped::quantize(row_type, row, out),
        _ => return Err(CodecError::NotWritable(row_type)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dispatch;

    fn same_bits(a: &[f32], b: &[f32]) -> bool {
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        a.len() == b.len() && a.iter().zip(b).all(same)
    }

    proptest! {
        /// What an instruction set makes of this module's code, and what it replaces, changes no bit.
        #[test]
        fn every_instruction_set_decodes_the_same(
            bytes in prop::collection::vec(any::<u8>(), 1024 * 4),
            blocks in 1usize..=4,
            odd in 1usize..1024,
        ) {
            for row_type in RowType::ALL {
                let weights = row_type.block().0;
                let cols = if row_type.takes_any_width() || weights == 1 { odd } else { blocks * 256 };
                let row = &bytes[..row_type.row_bytes(cols).unwrap()];
                let (mut expected, mut unpacked) = (vec![0.0; cols], UnpackedRow::default());
                dequantize_checked(row_type, row, &mut expected);
                if !row_type.is_float() {
                    unpack_checked(row_type, row, cols, &mut unpacked);
                }
                for kernels in dispatch::available() {
                    let (mut out, mut other) = (vec![f32::MAX; cols], UnpackedRow::default());
                    // SAFETY: `available` gives only what this processor can run.
                    unsafe { (kernels.dequantize_row)(row_type, row, &mut out) };
                    prop_assert!(same_bits(&out, &expected), "{} {}", row_type, kernels.isa.name());
                    if row_type.is_float() {
                        continue;
                    }
                    // SAFETY: as above.
                    unsafe { (kernels.unpack_row)(row_type, row, cols, &mut other) };
                    prop_assert_eq!(&other.q, &unpacked.q, "{} {}", row_type, kernels.isa.name());
                    let scales = same_bits(&other.scale, &unpacked.scale);
                    prop_assert!(scales && same_bits(&other.offset, &unpacked.offset), "{}", row_type);
                }
            }
        }
    }
}
