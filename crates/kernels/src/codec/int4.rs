//! Q4V1's blocks: 32 weights, f16 scale, neighbours in one byte.
//!
//! GGUF's Q4_0 differs: there weight `i` shares its byte with weight `i + 16`, and the scale is signed.

use super::blocks::{Block, Groups, abs_max, part};
use super::float::{f16_from_le_bytes, f16_to_le_bytes};
use super::lanes::Lanes;
use crate::row::RowType;

/// `d: f16, qs: [u8; 16]`; weight `2 i` in the low nibble of byte `i`, weight `2 i + 1` in the high one;
/// `d * (q - 8)`.
pub(super) struct Int4;

impl Block<18, 32, 1> for Int4 {
    const ROW_TYPE: RowType = RowType::Int4;

    #[inline(always)]
    fn unpack(block: &[u8; 18], q: &mut [i8; 32]) -> Groups<1> {
        Lanes::nibble_pairs(part::<2, 16, 18>(block)).store_minus::<8>(q);
        Groups::scaled([f16_from_le_bytes(*part::<0, 2, 18>(block))])
    }
}

/// Scale `max|w| / 7`, rounded to f16; each weight divided by that, rounded to nearest and clamped to -8..=7.
pub(super) fn quantize_int4(row: &[f32; 32], out: &mut [u8; 18]) {
    let scale_bytes = f16_to_le_bytes(abs_max(row) / 7.0);
    let scale = f16_from_le_bytes(scale_bytes);
    let divisor = if scale == 0.0 { 1.0 } else { scale };
    let code = |w: f32| ((w / divisor).round_ties_even().clamp(-8.0, 7.0) as i8 + 8) as u8;
    out[..2].copy_from_slice(&scale_bytes);
    for (out, [low, high]) in out[2..].iter_mut().zip(row.as_chunks().0) {
        *out = code(*low) | code(*high) << 4;
    }
}
