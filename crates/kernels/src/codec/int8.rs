//! Rows of signed bytes with f32 scales: llama2.c v2 ("Q8_0" in its own words).
//!
//! The file keeps a matrix as all its `i8`, then all its scales, one per group of any length; our rows keep a
//! scale before each 32 weights, so that a row is one piece of memory. A GGUF Q8_0 row would round the scale
//! to f16. Reference: karpathy/llama2.c `export.py` (`quantize_q80`), `runq.c`.

use super::CodecError;
use super::blocks::{Block, Groups, abs_max, part};
use super::lanes::Lanes;
use crate::row::RowType;

/// `scale: f32, qs: [i8; 32]`; `scale * q`.
pub(super) struct Int8;

impl Block<36, 32, 1> for Int8 {
    const ROW_TYPE: RowType = RowType::Int8;

    #[inline(always)]
    fn unpack(block: &[u8; 36], q: &mut [i8; 32]) -> Groups<1> {
        Lanes::<4>::load(part::<4, 32, 36>(block)).store_minus::<0>(q);
        Groups::scaled([f32::from_le_bytes(*part::<0, 4, 36>(block))])
    }
}

pub(super) fn quantize_int8(row: &[f32; 32], out: &mut [u8; 36]) {
    let (scale, q) = out.split_at_mut(4);
    quantize_group(row, q, scale);
}

/// Scale `max|w| / 127`; each weight divided by it and rounded to nearest, ties to even.
fn quantize_group(weights: &[f32], q: &mut [u8], scale_bytes: &mut [u8]) {
    let scale = abs_max(weights) / 127.0;
    let divisor = if scale == 0.0 { 1.0 } else { scale };
    for (q, w) in q.iter_mut().zip(weights) {
        *q = (w / divisor).round_ties_even() as i8 as u8;
    }
    scale_bytes.copy_from_slice(&scale.to_le_bytes());
}

/// A matrix of a llama2.c v2 file: `n` signed bytes, then `n / group` f32 scales.
#[derive(Debug, Clone, Copy)]
pub struct Int8Groups<'a> {
    q: &'a [u8],
    scales: &'a [[u8; 4]],
    group: usize,
}

impl<'a> Int8Groups<'a> {
    /// Splits a tensor's bytes. `weights` must be a whole number of groups, and `bytes` exactly as long as
    /// they need.
    pub fn new(bytes: &'a [u8], weights: usize, group: usize) -> Result<Self, CodecError> {
        let groups = if group == 0 { None } else { weights.is_multiple_of(group).then(|| weights / group) };
        let expected = groups.and_then(|groups| groups.checked_mul(4)?.checked_add(weights));
        if expected != Some(bytes.len()) {
            let problem = format!("{} bytes for {weights} weights in groups of {group}", bytes.len());
            return Err(CodecError::Layout { what: "llama2.c v2 tensor", problem });
        }
        let (q, scales) = bytes.split_at(weights);
        Ok(Self { q, scales: scales.as_chunks().0, group })
    }

    /// The scale of weight `index`.
    fn scale(&self, index: usize) -> f32 {
        self.scales.get(index / self.group).map_or(0.0, |&bytes| f32::from_le_bytes(bytes))
    }

    /// The bytes of weights `first..first + count`.
    fn weights(&self, first: usize, count: usize) -> Result<&'a [u8], CodecError> {
        let end = first.checked_add(count);
        end.and_then(|end| self.q.get(first..end)).ok_or_else(|| CodecError::Layout {
            what: "llama2.c v2 tensor",
            problem: format!("{count} weights from weight {first} of {}", self.q.len()),
        })
    }

    /// Whether rows of `cols` weights can be [`RowType::Int8`] rows: groups and rows must be whole blocks of
    /// 32. Otherwise use [`Int8Groups::dequantize`].
    pub fn has_rows_of(&self, cols: usize) -> bool {
        self.group.is_multiple_of(32) && cols.is_multiple_of(32)
    }

    /// Writes weights `first..first + cols`, with `cols` from the length of `out`, as a [`RowType::Int8`] row.
    pub fn repack_row(&self, first: usize, cols: usize, out: &mut [u8]) -> Result<(), CodecError> {
        super::check_len(RowType::Int8, cols, out.len())?;
        if !self.has_rows_of(cols) || !first.is_multiple_of(32) {
            let problem = format!("groups of {} are not whole blocks of 32", self.group);
            return Err(CodecError::Layout { what: "llama2.c v2 tensor", problem });
        }
        let blocks = self.weights(first, cols)?.as_chunks::<32>().0;
        for (i, (q, out)) in blocks.iter().zip(out.as_chunks_mut::<36>().0).enumerate() {
            out[..4].copy_from_slice(&self.scale(first + i * 32).to_le_bytes());
            out[4..].copy_from_slice(q);
        }
        Ok(())
    }

    /// Writes the values of weights `first..first + out.len()`, whatever the group.
    pub fn dequantize(&self, first: usize, out: &mut [f32]) -> Result<(), CodecError> {
        let q = self.weights(first, out.len())?;
        for (i, (out, &q)) in out.iter_mut().zip(q).enumerate() {
            *out = f32::from(q as i8) * self.scale(first + i);
        }
        Ok(())
    }

    /// Quantizes a whole tensor into the file's form; `group` must divide the number of weights.
    pub fn quantize(weights: &[f32], group: usize) -> Result<Vec<u8>, CodecError> {
        if group == 0 || !weights.len().is_multiple_of(group) {
            let problem = format!("{} weights in groups of {group}", weights.len());
            return Err(CodecError::Layout { what: "llama2.c v2 tensor", problem });
        }
        let mut bytes = vec![0; weights.len() + weights.len() / group * 4];
        let (q, scales) = bytes.split_at_mut(weights.len());
        let groups = weights.chunks_exact(group).zip(q.chunks_exact_mut(group));
        for ((weights, q), scale) in groups.zip(scales.chunks_exact_mut(4)) {
            quantize_group(weights, q, scale);
        }
        Ok(bytes)
    }
}
