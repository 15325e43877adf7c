//! GGUF's first block types, 32 weights each: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! In the 4- and 5-bit types byte `i` of the nibbles holds weight `i` (low) and weight `i + 16` (high).
//! Reference: ggml's `ggml-common.h` and `ggml-quants.c`; the quantizers round as gguf-py's `quants.py`.

use super::blocks::{Block, Groups, abs_max, inverse, part};
use super::float::{f16_from_le_bytes, f16_to_le_bytes};
use super::lanes::Lanes;
use crate::row::RowType;

/// `d: f16, qs: [u8; 16]`; `d * (q - 8)`.
pub(super) struct Q4_0;

impl Block<18, 32, 1> for Q4_0 {
    const ROW_TYPE: RowType = RowType::Q4_0;

    #[inline(always)]
    fn unpack(block: &[u8; 18], q: &mut [i8; 32]) -> Groups<1> {
        Lanes::nibble_halves(part::<2, 16, 18>(block)).store_minus::<8>(q);
        Groups::scaled([f16_from_le_bytes(*part::<0, 2, 18>(block))])
    }
}

/// `d: f16, m: f16, qs: [u8; 16]`; `d * q + m`.
pub(super) struct Q4_1;

impl Block<20, 32, 1> for Q4_1 {
    const ROW_TYPE: RowType = RowType::Q4_1;

    #[inline(always)]
    fn unpack(block: &[u8; 20], q: &mut [i8; 32]) -> Groups<1> {
        Lanes::nibble_halves(part::<4, 16, 20>(block)).store_minus::<0>(q);
        let d = f16_from_le_bytes(*part::<0, 2, 20>(block));
        Groups::affine([d], [f16_from_le_bytes(*part::<2, 2, 20>(block))])
    }
}

/// `d: f16, qh: [u8; 4], qs: [u8; 16]`; bit `i` of `qh` is weight `i`'s fifth; `d * (q - 16)`.
pub(super) struct Q5_0;

impl Block<22, 32, 1> for Q5_0 {
    const ROW_TYPE: RowType = RowType::Q5_0;

    #[inline(always)]
    fn unpack(block: &[u8; 22], q: &mut [i8; 32]) -> Groups<1> {
        let fifth = Lanes::from_bits(*part::<2, 4, 22>(block));
        Lanes::nibble_halves(part::<6, 16, 22>(block)).with_high::<4>(fifth).store_minus::<16>(q);
        Groups::scaled([f16_from_le_bytes(*part::<0, 2, 22>(block))])
    }
}

/// `d: f16, m: f16, qh: [u8; 4], qs: [u8; 16]`; `d * q + m`.
pub(super) struct Q5_1;

impl Block<24, 32, 1> for Q5_1 {
    const ROW_TYPE: RowType = RowType::Q5_1;

    #[inline(always)]
    fn unpack(block: &[u8; 24], q: &mut [i8; 32]) -> Groups<1> {
        let fifth = Lanes::from_bits(*part::<4, 4, 24>(block));
        Lanes::nibble_halves(part::<8, 16, 24>(block)).with_high::<4>(fifth).store_minus::<0>(q);
        let d = f16_from_le_bytes(*part::<0, 2, 24>(block));
        Groups::affine([d], [f16_from_le_bytes(*part::<2, 2, 24>(block))])
    }
}

/// `d: f16, qs: [i8; 32]`; `d * q`.
pub(super) struct Q8_0;

impl Block<34, 32, 1> for Q8_0 {
    const ROW_TYPE: RowType = RowType::Q8_0;

    #[inline(always)]
    fn unpack(block: &[u8; 34], q: &mut [i8; 32]) -> Groups<1> {
        Lanes::<4>::load(part::<2, 32, 34>(block)).store_minus::<0>(q);
        Groups::scaled([f16_from_le_bytes(*part::<0, 2, 34>(block))])
    }
}

pub(super) fn quantize_q4_0(row: &[f32; 32], out: &mut [u8; 18]) {
    // The weight of largest magnitude, with its sign, becomes -8.
    let extreme = row.iter().fold(0.0f32, |extreme, &w| if w.abs() > extreme.abs() { w } else { extreme });
    let d = extreme / -8.0;
    let id = f64::from(inverse(d));
    // In f64 as gguf-py does: ggml's C gives this or its neighbour, depending on fused multiply-add.
    let q = row.map(|w| ((f64::from(w) * id + 8.5) as u8).min(15));
    out[..2].copy_from_slice(&f16_to_le_bytes(d));
    pack_halves(&q, &mut out[2..]);
}

pub(super) fn quantize_q4_1(row: &[f32; 32], out: &mut [u8; 20]) {
    let min = row.iter().fold(f32::INFINITY, |min, &w| w.min(min));
    let max = row.iter().fold(f32::NEG_INFINITY, |max, &w| w.max(max));
    let d = (max - min) / 15.0;
    let id = inverse(d);
    let q = row.map(|w| (((w - min) * id + 0.5) as u8).min(15));
    out[..2].copy_from_slice(&f16_to_le_bytes(d));
    out[2..4].copy_from_slice(&f16_to_le_bytes(min));
    pack_halves(&q, &mut out[4..]);
}

pub(super) fn quantize_q8_0(row: &[f32; 32], out: &mut [u8; 34]) {
    let d = abs_max(row) / 127.0;
    let id = inverse(d);
    out[..2].copy_from_slice(&f16_to_le_bytes(d));
    for (out, w) in out[2..].iter_mut().zip(row) {
        *out = (w * id).round() as i8 as u8;
    }
}

fn pack_halves(q: &[u8; 32], qs: &mut [u8]) {
    let (low, high) = q.split_at(16);
    for ((byte, low), high) in qs.iter_mut().zip(low).zip(high) {
        *byte = low | high << 4;
    }
}
