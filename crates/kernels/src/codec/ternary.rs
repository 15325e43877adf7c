//! Rows of -1, 0 and +1: GGUF's TQ1_0 and TQ2_0, and the 2-bit codes of T-MAC (Ternary16, Ternary32).
//!
//! A T-MAC code is a 2-bit two's complement number: `00` = 0, `01` = +1, `11` = -1. Weight `j` of a byte lies
//! in bits `2 j`, `2 j + 1`. `10` is invalid; the readers of files refuse it ([`first_invalid_code`]), and the
//! row functions, which do not look, decode it as what it is in two's complement, -2.
//! Reference: the seed's T-MAC v2 writer; ggml's `dequantize_row_tq1_0`, `dequantize_row_tq2_0`.

use super::blocks::{Block, Groups, abs_max, inverse, part};
use super::float::{f16_from_le_bytes, f16_to_le_bytes};
use super::lanes::two_bits;
use crate::row::RowType;

/// `qs: [u8; 48], qh: [u8; 4], d: f16`: base 3, first weight most significant, `byte = ceil(q * 256 / 243)`.
/// `qs[..32]` holds 5 weights a byte at stride 32, `qs[32..]` 5 at stride 16, `qh` 4 at stride 4.
pub(super) struct TQ1_0;

impl Block<54, 256, 8> for TQ1_0 {
    const ROW_TYPE: RowType = RowType::TQ1_0;

    #[inline(always)]
    fn unpack(block: &[u8; 54], q: &mut [i8; 256]) -> Groups<8> {
        let (first, rest) = q.split_at_mut(160);
        let (second, third) = rest.split_at_mut(80);
        trits(part::<0, 32, 54>(block), first);
        trits(part::<32, 16, 54>(block), second);
        trits(part::<48, 4, 54>(block), third);
        Groups::scaled([f16_from_le_bytes(*part::<52, 2, 54>(block)); 8])
    }
}

/// Digit `n` of each of the `N` bytes, to `q[N n..]`: the top digit of the byte times `3^n` in u8.
#[inline(always)]
fn trits<const N: usize>(bytes: &[u8; N], q: &mut [i8]) {
    let mut bytes = *bytes;
    for q in q.as_chunks_mut::<N>().0 {
        for (q, byte) in q.iter_mut().zip(&mut bytes) {
            *q = ((u16::from(*byte) * 3) >> 8) as i8 - 1;
            *byte = byte.wrapping_mul(3);
        }
    }
}

/// `qs: [u8; 64], d: f16`: in each half of 128, byte `m` at shift `2 n` holds weight `32 n + m`, plus 1. The
/// invalid code 3 decodes as +2.
pub(super) struct TQ2_0;

impl Block<66, 256, 8> for TQ2_0 {
    const ROW_TYPE: RowType = RowType::TQ2_0;

    #[inline(always)]
    fn unpack(block: &[u8; 66], q: &mut [i8; 256]) -> Groups<8> {
        let qs = part::<0, 64, 66>(block).as_chunks::<32>().0;
        for (q, qs) in q.as_chunks_mut::<128>().0.iter_mut().zip(qs) {
            for (q, weights) in q.as_chunks_mut::<32>().0.iter_mut().zip(two_bits(qs)) {
                weights.store_minus::<1>(q);
            }
        }
        Groups::scaled([f16_from_le_bytes(*part::<64, 2, 66>(block)); 8])
    }
}

/// The scale and the codes of a Ternary16 or Ternary32 row.
#[inline(always)]
pub(crate) fn split_row(row_type: RowType, bytes: &[u8]) -> (f32, &[u8]) {
    match (row_type, bytes) {
        (RowType::Ternary16, [a, b, codes @ ..]) => (f16_from_le_bytes([*a, *b]), codes),
        (RowType::Ternary32, [a, b, c, d, codes @ ..]) => (f32::from_le_bytes([*a, *b, *c, *d]), codes),
        _ => (0.0, &[]),
    }
}

/// Whether all blocks of a row have the same scale: files of models that were trained to be ternary do, for they have
/// one scale a matrix. `row_type`: TQ1_0 or TQ2_0, whose blocks end with their scale.
pub(crate) fn has_one_scale(row_type: RowType, row: &[u8]) -> bool {
    let mut scales = row.chunks_exact(row_type.block().1).map(|block| block.last_chunk::<2>());
    let first = scales.next();
    scales.all(|scale| Some(scale) == first)
}

/// The four weights of a byte of T-MAC codes.
#[inline(always)]
pub(crate) fn decode_byte(byte: u8) -> [i8; 4] {
    let byte = u32::from(byte);
    let codes = (byte | byte << 6 | byte << 12 | byte << 18) & 0x0303_0303;
    // Bit 1 of a code is its sign, extended by adding 252 = 2 * 128 - 2 * 2 to each byte where it stands.
    let signs = codes & 0x0202_0202;
    codes.wrapping_add((signs << 7).wrapping_sub(signs << 1)).to_le_bytes().map(|q| q as i8)
}

/// The byte of four weights in -1..=1.
#[inline(always)]
fn encode_byte(q: [i8; 4]) -> u8 {
    q.iter().rev().fold(0, |byte, &q| byte << 2 | q as u8 & 3)
}

/// Unpacks T-MAC codes; the last byte may hold fewer than four weights.
#[inline(always)]
pub(crate) fn unpack_codes(codes: &[u8], q: &mut [i8]) {
    let (whole, tail) = q.as_chunks_mut::<4>();
    for (q, &byte) in whole.iter_mut().zip(codes) {
        *q = decode_byte(byte);
    }
    if let (Some(&byte), false) = (codes.last(), tail.is_empty()) {
        tail.copy_from_slice(&decode_byte(byte)[..tail.len()]);
    }
}

/// `scale * q` of each weight.
#[inline(always)]
pub(super) fn dequantize_codes(codes: &[u8], scale: f32, out: &mut [f32]) {
    const RUN: usize = 256;
    let mut q = [0; RUN];
    for (codes, out) in codes.chunks(RUN / 4).zip(out.chunks_mut(RUN)) {
        let q = &mut q[..out.len()];
        unpack_codes(codes, q);
        for (out, &q) in out.iter_mut().zip(&*q) {
            *out = scale * f32::from(q);
        }
    }
}

/// Index of the first weight whose T-MAC code is the invalid `10`, among all codes of `codes` (the filling of
/// a last byte included).
pub fn first_invalid_code(codes: &[u8]) -> Option<usize> {
    let invalid = |byte: u8| byte >> 1 & !byte & 0x55; // bit 2 j: high bit of code j set, low bit clear
    let is_invalid = |bytes: &[u8]| bytes.iter().fold(0, |any, &byte| any | invalid(byte)) != 0;
    // Whole vectors first, then the byte.
    const RUN: usize = 64;
    let start = codes.chunks(RUN).position(is_invalid)? * RUN;
    let at = start + codes[start..].iter().position(|&byte| invalid(byte) != 0)?;
    Some(at * 4 + invalid(codes[at]).trailing_zeros() as usize / 2)
}

/// Quantizes a row as the seed's T-MAC v2 writer does: weights beyond 0.4 of the mean magnitude are kept as
/// their sign, and the scale is the mean magnitude of those.
pub(super) fn quantize(row_type: RowType, row: &[f32], out: &mut [u8]) {
    let threshold = 0.4 * mean_abs(row.iter());
    let scale = mean_abs(row.iter().filter(|w| w.abs() > threshold));
    let (header, codes) = out.split_at_mut(row_type.header_bytes());
    if row_type == RowType::Ternary16 {
        header.copy_from_slice(&f16_to_le_bytes(scale));
    } else {
        header.copy_from_slice(&scale.to_le_bytes());
    }
    pack_signs(row, threshold, codes);
}

/// Quantizes a whole stacked tensor as the seed's T-MAC v1 writer does: `ceil(n / 4)` bytes of codes, the sign
/// of each weight beyond 0.7 of the tensor's mean magnitude, no scale.
pub fn quantize_run(weights: &[f32]) -> Vec<u8> {
    let mut codes = vec![0; weights.len().div_ceil(4)];
    pack_signs(weights, 0.7 * mean_abs(weights.iter()), &mut codes);
    codes
}

/// The codes of weights that count as their sign where they are larger than `threshold`, and as 0 elsewhere;
/// `ceil(n / 4)` bytes.
pub fn pack_signs(weights: &[f32], threshold: f32, codes: &mut [u8]) {
    let sign = |w: f32| i8::from(w > threshold) - i8::from(w < -threshold);
    for (weights, byte) in weights.chunks(4).zip(codes) {
        let mut q = [0; 4];
        for (q, &w) in q.iter_mut().zip(weights) {
            *q = sign(w);
        }
        *byte = encode_byte(q);
    }
}

/// Mean magnitude of weights that come in pieces. The sum is f64: an f32 would stop growing over a large tensor.
#[derive(Debug, Clone, Copy, Default)]
pub struct MeanMagnitude {
    sum: f64,
    count: u64,
}

impl MeanMagnitude {
    /// Counts these weights in.
    pub fn add<'a>(&mut self, weights: impl IntoIterator<Item = &'a f32>) {
        for w in weights {
            self.sum += f64::from(w.abs());
            self.count += 1;
        }
    }

    /// The mean; 0 of nothing.
    pub fn get(&self) -> f32 {
        if self.count == 0 { 0.0 } else { (self.sum / self.count as f64) as f32 }
    }
}

fn mean_abs<'a>(weights: impl IntoIterator<Item = &'a f32>) -> f32 {
    let mut mean = MeanMagnitude::default();
    mean.add(weights);
    mean.get()
}

pub(super) fn quantize_tq1_0(row: &[f32; 256], out: &mut [u8; 54]) {
    let (d, digits) = ternary_digits(row);
    pack_base_3(&digits, &mut out[..52]);
    out[52..].copy_from_slice(&f16_to_le_bytes(d));
}

/// The codes of a TQ1_0 block, 52 bytes, of its 256 digits.
pub(super) fn pack_base_3(digits: &[u8], out: &mut [u8]) {
    let (first, rest) = digits.split_at(160);
    let (second, third) = rest.split_at(80);
    pack_trits(first, &mut out[..32]);
    pack_trits(second, &mut out[32..48]);
    pack_trits(third, &mut out[48..52]);
}

/// Five digits a byte at a stride of the output's length; a missing fifth one is 0.
fn pack_trits(digits: &[u8], out: &mut [u8]) {
    let stride = out.len();
    for (m, byte) in out.iter_mut().enumerate() {
        let digit = |n: usize| u16::from(digits.get(m + n * stride).copied().unwrap_or(0));
        let number = (0..5).fold(0, |number, n| number * 3 + digit(n));
        *byte = (number * 256).div_ceil(243) as u8;
    }
}

pub(super) fn quantize_tq2_0(row: &[f32; 256], out: &mut [u8; 66]) {
    let (d, digits) = ternary_digits(row);
    pack_two_bits(&digits, &mut out[..64]);
    out[64..].copy_from_slice(&f16_to_le_bytes(d));
}

/// The codes of a TQ2_0 block, 64 bytes, of its 256 digits.
pub(super) fn pack_two_bits(digits: &[u8], out: &mut [u8]) {
    for (digits, out) in digits.as_chunks::<128>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for (m, byte) in out.iter_mut().enumerate() {
            *byte = digits[m] | digits[m + 32] << 2 | digits[m + 64] << 4 | digits[m + 96] << 6;
        }
    }
}

/// The block's largest magnitude, and each weight in units of it, rounded (half away from 0), plus 1: 0..=2.
fn ternary_digits(row: &[f32; 256]) -> (f32, [u8; 256]) {
    let d = abs_max(row);
    let id = inverse(d);
    (d, row.map(|w| (((w * id).round() as i8).clamp(-1, 1) + 1) as u8))
}
