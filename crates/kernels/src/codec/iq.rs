//! 4-bit types whose codes index a table of 16 values: IQ4_NL, IQ4_XS, MXFP4.
//!
//! Reference: ggml's `ggml-quants.c` (`kvalues_iq4nl`, `kvalues_mxfp4`); OCP Microscaling Formats (MX) 1.0.

use super::blocks::{Block, Groups, part};
use super::float::f16_from_le_bytes;
use super::lanes::Lanes;
use crate::row::RowType;

/// The 16 levels of IQ4_NL and IQ4_XS, denser around 0.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the 16 values of an E2M1 float, so that they are integers; the scale is halved instead.
const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// `d: f16, qs: [u8; 16]`; weight `i` in the low nibble of byte `i`, weight `i + 16` in the high one.
pub(super) struct IQ4_NL;

impl Block<18, 32, 1> for IQ4_NL {
    const ROW_TYPE: RowType = RowType::IQ4_NL;

    #[inline(always)]
    fn unpack(block: &[u8; 18], q: &mut [i8; 32]) -> Groups<1> {
        Lanes::nibble_halves(part::<2, 16, 18>(block)).look_up(&IQ4).store_minus::<0>(q);
        Groups::scaled([f16_from_le_bytes(*part::<0, 2, 18>(block))])
    }
}

/// `d: f16, scales_h: u16, scales_l: [u8; 4], qs: [u8; 128]`: eight groups of 32 as in IQ4_NL, each with a
/// 6-bit scale minus 32 (4 bits in nibble `i`, 2 bits at `2 i` of `scales_h`).
pub(super) struct IQ4_XS;

impl Block<136, 256, 8> for IQ4_XS {
    const ROW_TYPE: RowType = RowType::IQ4_XS;

    #[inline(always)]
    fn unpack(block: &[u8; 136], q: &mut [i8; 256]) -> Groups<8> {
        let qs = part::<8, 128, 136>(block).as_chunks::<16>().0;
        for (qs, q) in qs.iter().zip(q.as_chunks_mut::<32>().0) {
            Lanes::nibble_halves(qs).look_up(&IQ4).store_minus::<0>(q);
        }
        let d = f16_from_le_bytes(*part::<0, 2, 136>(block));
        let high = u16::from_le_bytes(*part::<2, 2, 136>(block));
        let low = u32::from_le_bytes(*part::<4, 4, 136>(block));
        Groups::scaled(std::array::from_fn(|i| {
            let scale = (low >> (4 * i) & 15) as i8 | ((high >> (2 * i) & 3) << 4) as i8;
            d * f32::from(scale - 32)
        }))
    }
}

/// `e: u8, qs: [u8; 16]`; the scale is `2^(e - 127)`, and half of it stands before the doubled table. E8M0's
/// NaN (255) is read as `2^128` halved, as in ggml.
pub(super) struct MXFP4;

impl Block<17, 32, 1> for MXFP4 {
    const ROW_TYPE: RowType = RowType::MXFP4;

    #[inline(always)]
    fn unpack(block: &[u8; 17], q: &mut [i8; 32]) -> Groups<1> {
        Lanes::nibble_halves(part::<1, 16, 17>(block)).look_up(&E2M1_DOUBLED).store_minus::<0>(q);
        let e = u32::from(block[0]);
        // 2^(e - 128): below e = 2 it is a subnormal f32.
        let bits = if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 };
        Groups::scaled([f32::from_bits(bits)])
    }
}
