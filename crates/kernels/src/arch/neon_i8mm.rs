//! NEON with the matrix product instructions of ARMv8.6: Neoverse V1 (2020) and N2, Apple's M2, and later.
//!
//! What this file does not replace is [`neon_dotprod`]'s. SMMLA multiplies two rows with two tokens, eight columns each:
//! twice the work of SDOT, and so for several tokens only.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::arch::neon_dotprod;
use crate::arch::neon_tiles::{self, load_part, store_s32};
use crate::dispatch::{Isa, Kernels};
use crate::trits::{Line, TILE_ROWS, TritKernels};

pub(crate) static KERNELS: Kernels = Kernels { isa: Isa::I8mm, trits: Some(&TRITS), ..neon_dotprod::KERNELS };

static TRITS: TritKernels = TritKernels {
    tables: neon_tiles::tables,
    lookup: neon_tiles::lookup,
    multiply,
    lookup_up_to: 1,
    many: None,
};

/// Adds `w . x^T` to `sums`, all row by row: two rows of eight weights, two tokens of eight activations, two rows of two
/// sums. `vmmlaq_s32`, which is not stable.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: SMMLA belongs to the feature that this function carries. It reads three registers and writes one; it
    // touches neither memory nor flags.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {w:v}.16b, {x:v}.16b",
            sums = inlateout(vreg) sums,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Two tokens' eight activations.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn load_tokens(x: [&[i8; 8]; 2]) -> int8x16_t {
    // SAFETY: each reference covers the 8 bytes that are read.
    let [first, second] = x.map(|x| unsafe { vld1_s8(x.as_ptr()) });
    vcombine_s8(first, second)
}

/// Four rows of four columns, twice, into two rows of eight columns, twice.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn zip(left: uint8x16_t, right: uint8x16_t) -> [uint8x16_t; 2] {
    let (left, right) = (vreinterpretq_u32_u8(left), vreinterpretq_u32_u8(right));
    [vreinterpretq_u8_u32(vzip1q_u32(left, right)), vreinterpretq_u8_u32(vzip2q_u32(left, right))]
}

/// Brings the trits of [`neon_tiles::decode`] into SMMLA's order, eight columns at a time: where the first four were, now
/// lie the rows 0, 1, 4, 5, ..., and where the next four were, the rows 2, 3, 6, 7, ...
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn zip_all(eights: &mut [[[Line; 2]; 2]]) {
    for [left, right] in eights {
        for (left, right) in left.iter_mut().zip(right) {
            for i in 0..4 {
                let zipped = zip(load_part(left, i), load_part(right, i));
                for (line, zipped) in [&mut *left, &mut *right].into_iter().zip(zipped) {
                    let part = &mut line.0.as_chunks_mut::<16>().0[i];
                    // SAFETY: the reference covers the 16 bytes that are written.
                    unsafe { vst1q_u8(part.as_mut_ptr(), zipped) };
                }
            }
        }
    }
}

/// Several tokens against one tile. The trits are signed, so no sums of activations are needed.
#[target_feature(enable = "neon,i8mm")]
fn multiply(
    tile: &[Line],
    xs: &[i8],
    _minus_sums: &[i32],
    trits: &mut [[Line; 2]],
    sums: &mut [[i32; TILE_ROWS]],
) {
    neon_tiles::decode(tile, trits);
    let cols = trits.len() * 4;
    let (eights, four) = trits.as_chunks_mut::<2>();
    zip_all(eights);
    let (eights, four) = (&*eights, four.first());
    let x = |t: usize| &xs[t * cols..][..cols];
    let (fours, rest) = sums.as_chunks_mut::<4>();
    let first_rest = fours.len() * 4;
    for (i, sums) in fours.iter_mut().enumerate() {
        let t = i * 4;
        let pairs = multiply_pairs(eights, four, [[x(t), x(t + 1)], [x(t + 2), x(t + 3)]]);
        for (sums, pair) in sums.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
            *sums = pair;
        }
    }
    for (i, sums) in rest.chunks_mut(2).enumerate() {
        // The last of an odd number is its own partner.
        let t = first_rest + i * 2;
        let [pair] = multiply_pairs(eights, four, [[x(t), x(t + sums.len() - 1)]]);
        sums.copy_from_slice(&pair[..sums.len()]);
    }
}

/// `P` pairs of tokens against the trits of a tile; `last`: four columns behind the last eight.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn multiply_pairs<const P: usize>(
    eights: &[[[Line; 2]; 2]],
    last: Option<&[Line; 2]>,
    xs: [[&[i8]; 2]; P],
) -> [[[i32; TILE_ROWS]; 2]; P] {
    let xs8 = xs.map(|pair| pair.map(|x| &x.as_chunks::<8>().0[..eights.len()]));
    let mut out = [[[0; TILE_ROWS]; 2]; P];
    // Half of the rows at a time: their sums stay in registers. Sums `2 i + k` are those of the rows `4 i + 2 k` and the
    // next.
    for half in 0..2 {
        let mut sums = [[vdupq_n_s32(0); 8]; P];
        for (b, eight) in eights.iter().enumerate() {
            let x = xs8.map(|[first, second]| load_tokens([&first[b], &second[b]]));
            for i in 0..4 {
                for k in 0..2 {
                    let w = vreinterpretq_s8_u8(load_part(&eight[k][half], i));
                    for p in 0..P {
                        sums[p][2 * i + k] = smmla(sums[p][2 * i + k], w, x[p]);
                    }
                }
            }
        }
        if let Some(four) = last {
            let x = xs.map(|pair| {
                let [first, second] = pair.map(|x| {
                    let mut eight = [0; 8];
                    for (to, &x) in eight.iter_mut().zip(&x[eights.len() * 8..]) {
                        *to = x;
                    }
                    eight
                });
                load_tokens([&first, &second])
            });
            for i in 0..4 {
                for (k, w) in zip(load_part(&four[half], i), vdupq_n_u8(0)).into_iter().enumerate() {
                    for p in 0..P {
                        sums[p][2 * i + k] = smmla(sums[p][2 * i + k], vreinterpretq_s8_u8(w), x[p]);
                    }
                }
            }
        }
        for p in 0..P {
            for (i, &sums) in sums[p].iter().enumerate() {
                let mut four = [0; 4];
                store_s32(&mut four, sums);
                let row = half * 16 + i * 2;
                for t in 0..2 {
                    (out[p][t][row], out[p][t][row + 1]) = (four[t], four[2 + t]);
                }
            }
        }
    }
    out
}
