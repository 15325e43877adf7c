//! Foreign ternary layouts -> [`RowType::Ternary32`] rows.
//!
//! One row at a time, so that a loader can share the rows out among threads.

use super::lanes::Lanes;
use super::{CodecError, check_len, ternary};
use crate::row::RowType;

/// How a file lays out the codes of a ternary matrix of `rows` x `cols`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TernaryLayout {
    /// T-MAC codes ([`ternary`]) in one run over the matrix, row-major, 4 a byte, first weight in the least
    /// significant bits. `first`: the index in the run of the matrix's first weight (T-MAC v1 stacks layers).
    Run {
        /// Index in the run of the matrix's first weight.
        first: usize,
    },
    /// The same with the first weight of a byte in its **most** significant bits (bitllama's `outmini_*`).
    RunMostSignificantFirst {
        /// Index in the run of the matrix's first weight.
        first: usize,
    },
    /// Hugging Face BitNet, `u8[rows / 4, cols]`: with `R = rows / 4`, bits `2 i`, `2 i + 1` of byte `[r, c]`
    /// hold `w[i R + r, c] + 1`. Code 3 is invalid.
    HfBitnet,
    /// bitnet.cpp's I2_S as its x86 build writes it: per 128 weights 32 bytes, weight `j` in byte `j % 32` at
    /// shift `6 - 2 (j / 32)`, plus 1. Code 3 is invalid. A row is a whole number of blocks.
    I2sX86,
    /// I2_S as its ARM build writes it: per 64 weights 16 bytes, weight `j` in byte `j % 16` at shift
    /// `6 - 2 (j / 16)`, plus 1. Code 3 is invalid. A row is a whole number of blocks.
    I2sArm,
}

impl TernaryLayout {
    fn what(self) -> &'static str {
        match self {
            Self::Run { .. } => "run of ternary codes",
            Self::RunMostSignificantFirst { .. } => "run of ternary codes, most significant first",
            Self::HfBitnet => "packed BitNet matrix",
            Self::I2sX86 => "I2_S matrix (x86)",
            Self::I2sArm => "I2_S matrix (ARM)",
        }
    }

    /// Code bytes of a matrix (for a run: at least so many, from the run's start).
    fn code_bytes(self, rows: usize, cols: usize) -> Option<usize> {
        let weights = rows.checked_mul(cols)?;
        match self {
            Self::Run { first } | Self::RunMostSignificantFirst { first } => {
                Some(first.checked_add(weights)?.div_ceil(4))
            }
            Self::HfBitnet => rows.is_multiple_of(4).then_some(weights / 4),
            Self::I2sX86 => cols.is_multiple_of(128).then_some(weights / 4),
            Self::I2sArm => cols.is_multiple_of(64).then_some(weights / 4),
        }
    }
}

/// A ternary matrix in a file's layout, its shape checked against its bytes.
#[derive(Debug, Clone, Copy)]
pub struct TernaryMatrix<'a> {
    codes: &'a [u8],
    layout: TernaryLayout,
    rows: usize,
    cols: usize,
}

impl<'a> TernaryMatrix<'a> {
    /// `codes`: the bytes of the codes only. Refused when the shape does not fit the layout or the bytes: a
    /// run may be longer than the matrix, the other layouts may not.
    pub fn new(codes: &'a [u8], layout: TernaryLayout, rows: usize, cols: usize) -> Result<Self, CodecError> {
        let is_run =
            matches!(layout, TernaryLayout::Run { .. } | TernaryLayout::RunMostSignificantFirst { .. });
        match layout.code_bytes(rows, cols) {
            Some(len) if len == codes.len() || is_run && len < codes.len() => {
                Ok(Self { codes, layout, rows, cols })
            }
            _ => Err(CodecError::Layout {
                what: layout.what(),
                problem: format!("{rows} x {cols} weights do not fit {} bytes", codes.len()),
            }),
        }
    }

    /// Writes row `row` with `scale` as a [`RowType::Ternary32`] row. Invalid codes are refused; `out` then
    /// holds anything.
    pub fn repack_row(&self, row: usize, scale: f32, out: &mut [u8]) -> Result<(), CodecError> {
        check_len(RowType::Ternary32, self.cols, out.len())?;
        if row >= self.rows {
            let problem = format!("row {row} of {}", self.rows);
            return Err(CodecError::Layout { what: self.layout.what(), problem });
        }
        let (header, codes) = out.split_at_mut(RowType::Ternary32.header_bytes());
        header.copy_from_slice(&scale.to_le_bytes());
        let start = row * self.cols;
        match self.layout {
            TernaryLayout::Run { first } => self.copy_run(first + start, codes, |byte| byte),
            TernaryLayout::RunMostSignificantFirst { first } => {
                self.copy_run(first + start, codes, reverse_codes);
            }
            TernaryLayout::HfBitnet => {
                let packed_rows = self.rows / 4;
                let (first, shift) = (row % packed_rows * self.cols, 2 * (row / packed_rows));
                self.recode(codes, |c| (first + c, shift));
            }
            TernaryLayout::I2sX86 => self.recode(codes, |c| i2s_place::<32>(start + c)),
            TernaryLayout::I2sArm => self.recode(codes, |c| i2s_place::<16>(start + c)),
        }
        match ternary::first_invalid_code(codes) {
            None => Ok(()),
            Some(index) => Err(CodecError::InvalidCode { index: start + index }),
        }
    }

    /// Copies `cols` codes from weight `start` of a run, whose bytes `order` turns least significant first.
    fn copy_run(&self, start: usize, out: &mut [u8], order: impl Fn(u8) -> u8) {
        let shift = 2 * (start % 4);
        let bytes = &self.codes[start / 4..];
        let following = bytes.iter().skip(1).copied().chain([0]);
        for ((out, &byte), next) in out.iter_mut().zip(bytes).zip(following) {
            *out = ((u16::from(order(byte)) | u16::from(order(next)) << 8) >> shift) as u8;
        }
        let tail = self.cols % 4;
        if let (Some(last), true) = (out.last_mut(), tail > 0) {
            *last &= (1 << (2 * tail)) - 1;
        }
    }

    /// Turns a row's codes, which stand for `w + 1`, into T-MAC codes; 3 becomes the invalid `10`. `place(c)`
    /// is the byte and the shift of weight `c`; the 15 weights behind a multiple of 16 follow it byte by byte.
    fn recode(&self, out: &mut [u8], place: impl Fn(usize) -> (usize, usize)) {
        for (i, out) in out.chunks_mut(4).enumerate() {
            let c = 16 * i;
            let (first, shift) = place(c);
            let mut codes = [1 << shift; 16]; // the filling of a last byte: zeros
            for (code, &byte) in codes.iter_mut().zip(&self.codes[first..][..16.min(self.cols - c)]) {
                *code = byte;
            }
            let packed = Lanes::<2>::load(&codes).field::<2>(shift).pack_minus_one();
            for (out, byte) in out.iter_mut().zip(packed) {
                *out = byte;
            }
        }
    }
}

/// Byte and shift of weight `index` of an I2_S tensor with blocks of `STRIDE` bytes.
fn i2s_place<const STRIDE: usize>(index: usize) -> (usize, usize) {
    let (block, j) = (index / (4 * STRIDE), index % (4 * STRIDE));
    (block * STRIDE + j % STRIDE, 6 - 2 * (j / STRIDE))
}

/// The four codes of a byte in the opposite order.
fn reverse_codes(byte: u8) -> u8 {
    let pairs = byte.rotate_left(4);
    (pairs & 0x33) << 2 | pairs >> 2 & 0x33
}
