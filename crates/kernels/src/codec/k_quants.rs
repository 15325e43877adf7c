//! GGUF's K-quants: super-blocks of 256 weights whose groups have small integer scales of one f16.
//!
//! Reference: ggml's `ggml-common.h` and `dequantize_row_q*_K` in `ggml-quants.c`.

use super::blocks::{Block, Groups, part};
use super::float::f16_from_le_bytes;
use super::lanes::{Lanes, two_bits};
use crate::row::RowType;

/// `scales: [u8; 16], qs: [u8; 64], d: f16, dmin: f16`; low nibble of a scale times d, minus the high nibble
/// times dmin. In each half of 128 weights, weight `32 j + l` lies in byte `l` at shift `2 j`.
pub(super) struct Q2_K;

impl Block<84, 256, 16> for Q2_K {
    const ROW_TYPE: RowType = RowType::Q2_K;

    #[inline(always)]
    fn unpack(block: &[u8; 84], q: &mut [i8; 256]) -> Groups<16> {
        let qs = part::<16, 64, 84>(block).as_chunks::<32>().0;
        for (q, qs) in q.as_chunks_mut::<128>().0.iter_mut().zip(qs) {
            for (q, weights) in q.as_chunks_mut::<32>().0.iter_mut().zip(two_bits(qs)) {
                weights.store_minus::<0>(q);
            }
        }
        let d = f16_from_le_bytes(*part::<80, 2, 84>(block));
        let dmin = f16_from_le_bytes(*part::<82, 2, 84>(block));
        let scales = part::<0, 16, 84>(block);
        Groups::affine(scales.map(|s| d * f32::from(s & 15)), scales.map(|s| -(dmin * f32::from(s >> 4))))
    }
}

/// `hmask: [u8; 32], qs: [u8; 64], scales: [u8; 12], d: f16`. Low bits as in Q2_K; bit `j` of `hmask[l]`
/// belongs to weight `32 j + l`, and where it is **clear** 4 is subtracted.
pub(super) struct Q3_K;

impl Block<110, 256, 16> for Q3_K {
    const ROW_TYPE: RowType = RowType::Q3_K;

    #[inline(always)]
    fn unpack(block: &[u8; 110], q: &mut [i8; 256]) -> Groups<16> {
        let hmask = Lanes::load(part::<0, 32, 110>(block));
        let qs = part::<32, 64, 110>(block).as_chunks::<32>().0;
        for (half, (q, qs)) in q.as_chunks_mut::<128>().0.iter_mut().zip(qs).enumerate() {
            for (j, (q, low)) in q.as_chunks_mut::<32>().0.iter_mut().zip(two_bits(qs)).enumerate() {
                low.with_high::<2>(hmask.field::<1>(4 * half + j)).store_minus::<4>(q);
            }
        }
        let d = f16_from_le_bytes(*part::<108, 2, 110>(block));
        let scales = part::<96, 12, 110>(block);
        // Scale i: 4 low bits in nibble i / 8 of byte i % 8, 2 high bits in pair i / 4 of byte 8 + i % 4; minus 32.
        Groups::scaled(std::array::from_fn(|i| {
            let low = scales[i % 8] >> (4 * (i / 8)) & 15;
            let high = scales[8 + i % 4] >> (2 * (i / 4)) & 3;
            d * f32::from((low | high << 4) as i8 - 32)
        }))
    }
}

/// `d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128]`; per 64 weights 32 bytes, first 32 weights in the low
/// nibbles.
pub(super) struct Q4_K;

impl Block<144, 256, 8> for Q4_K {
    const ROW_TYPE: RowType = RowType::Q4_K;

    #[inline(always)]
    fn unpack(block: &[u8; 144], q: &mut [i8; 256]) -> Groups<8> {
        let qs = part::<16, 128, 144>(block).as_chunks::<32>().0;
        for (q, qs) in q.as_chunks_mut::<64>().0.iter_mut().zip(qs) {
            let qs = Lanes::<4>::load(qs);
            qs.field::<4>(0).store_minus::<0>(&mut q[..32]);
            qs.field::<4>(4).store_minus::<0>(&mut q[32..]);
        }
        six_bit_groups(part::<0, 16, 144>(block))
    }
}

/// `d: f16, dmin: f16, scales: [u8; 12], qh: [u8; 32], qs: [u8; 128]`; as Q4_K, and bit `j` of `qh[l]` is the
/// fifth bit of weight `32 j + l`.
pub(super) struct Q5_K;

impl Block<176, 256, 8> for Q5_K {
    const ROW_TYPE: RowType = RowType::Q5_K;

    #[inline(always)]
    fn unpack(block: &[u8; 176], q: &mut [i8; 256]) -> Groups<8> {
        let qh = Lanes::<4>::load(part::<16, 32, 176>(block));
        let qs = part::<48, 128, 176>(block).as_chunks::<32>().0;
        for (i, (q, qs)) in q.as_chunks_mut::<64>().0.iter_mut().zip(qs).enumerate() {
            let qs = Lanes::load(qs);
            qs.field::<4>(0).with_high::<4>(qh.field::<1>(2 * i)).store_minus::<0>(&mut q[..32]);
            qs.field::<4>(4).with_high::<4>(qh.field::<1>(2 * i + 1)).store_minus::<0>(&mut q[32..]);
        }
        six_bit_groups(part::<0, 16, 176>(block))
    }
}

/// `ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16`; `d * scale * (q - 32)`. In each half of 128
/// weights: the low nibbles of 64 bytes, then their high nibbles; two more bits at shift `2 j` of `qh[l]` for
/// weight `32 j + l`.
pub(super) struct Q6_K;

impl Block<210, 256, 16> for Q6_K {
    const ROW_TYPE: RowType = RowType::Q6_K;

    #[inline(always)]
    fn unpack(block: &[u8; 210], q: &mut [i8; 256]) -> Groups<16> {
        let ql = part::<0, 128, 210>(block).as_chunks::<64>().0;
        let qh = part::<128, 64, 210>(block).as_chunks::<32>().0;
        for ((q, ql), qh) in q.as_chunks_mut::<128>().0.iter_mut().zip(ql).zip(qh) {
            let low = [Lanes::<4>::load(&ql[..32]), Lanes::load(&ql[32..])];
            for (j, (q, high)) in q.as_chunks_mut::<32>().0.iter_mut().zip(two_bits(qh)).enumerate() {
                low[j % 2].field::<4>(4 * (j / 2)).with_high::<4>(high).store_minus::<32>(q);
            }
        }
        let d = f16_from_le_bytes(*part::<208, 2, 210>(block));
        Groups::scaled(part::<192, 16, 210>(block).map(|s| d * f32::from(s as i8)))
    }
}

/// `d: f16, dmin: f16`, then eight 6-bit scales and eight 6-bit minima: see [`six_bits`].
#[inline(always)]
fn six_bit_groups(head: &[u8; 16]) -> Groups<8> {
    let d = f16_from_le_bytes(*part::<0, 2, 16>(head));
    let dmin = f16_from_le_bytes(*part::<2, 2, 16>(head));
    let [scale, min] = six_bits(part::<4, 12, 16>(head));
    Groups::affine(scale.map(|s| d * f32::from(s)), min.map(|m| -(dmin * f32::from(m))))
}

/// Eight 6-bit scales and eight 6-bit minima: the first four of each are the low six bits of bytes 0..4 and 4..8; of the
/// last four, the low four bits lie in the nibbles of bytes 8..12 (scale low, minimum high) and the high two on top of
/// bytes 0..8.
#[inline(always)]
fn six_bits(packed: &[u8; 12]) -> [[u8; 8]; 2] {
    let mut both = [[0; 8]; 2];
    for i in 0..4 {
        let (s, m, low) = (packed[i], packed[i + 4], packed[i + 8]);
        both[0][i] = s & 63;
        both[1][i] = m & 63;
        both[0][i + 4] = low & 15 | s >> 6 << 4;
        both[1][i + 4] = low >> 4 | m >> 6 << 4;
    }
    both
}

/// What the integers of 256 weights are multiplied with, in parts.
pub(crate) struct SuperBlock {
    /// d
    pub(crate) factor: f32,
    /// dmin, or 0.
    pub(crate) subtracted: f32,
    /// Of each 32 weights: scale and minimum, or the scales of both halves.
    pub(crate) pairs: [[i8; 2]; 8],
}

/// The scales of a row of Q4_K, Q5_K or Q6_K; nothing for other types.
pub(crate) fn super_blocks(row_type: RowType, row: &[u8]) -> impl Iterator<Item = SuperBlock> {
    let bytes = if matches!(row_type, RowType::Q4_K | RowType::Q5_K | RowType::Q6_K) {
        row_type.block().1
    } else {
        usize::MAX
    };
    row.chunks_exact(bytes).filter_map(move |block| {
        let number = |at: usize| block.get(at..)?.first_chunk().map(|bytes| f16_from_le_bytes(*bytes));
        if row_type == RowType::Q6_K {
            let scales = block.get(192..208)?.as_chunks::<2>().0;
            let pairs = std::array::from_fn(|i| scales[i].map(|s| s as i8));
            return Some(SuperBlock { factor: number(208)?, subtracted: 0.0, pairs });
        }
        let [scale, min] = six_bits(block.get(4..)?.first_chunk()?);
        let pairs = std::array::from_fn(|i| [scale[i] as i8, min[i] as i8]);
        Some(SuperBlock { factor: number(0)?, subtracted: number(2)?, pairs })
    })
}
