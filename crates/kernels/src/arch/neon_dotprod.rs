//! NEON with the dot product instructions of ARMv8.2: Cortex-A76 and Neoverse N1 (2018) and later, Apple's M1.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::arch::neon::{self, dot_f32};
use crate::arch::neon_codes::{AddDots, NeonCodes};
use crate::arch::neon_tiles::{self, four, load_part, store_s32};
use crate::arch::scalar;
use crate::dispatch::{BlockInput, BlockRow, Isa, Kernels};
use crate::int_tiles::{self, IntInput, IntTile};
use crate::trits::{self, Line, TritKernels};

pub(crate) static KERNELS: Kernels = Kernels {
    isa: Isa::Dotprod,
    gemm_int8_block,
    gemm_ternary,
    trits: Some(&TRITS),
    int_tiles: Some(int_tile),
    ..neon::KERNELS
};

super::neon_int8::integer_kernels!("neon,dotprod", sdot);
super::neon_tiles::tile_kernels!("neon,dotprod", sdot);

/// Adds the 16 products of `w` and `x`, four by four, to the four sums: `vdotq_s32`, which is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: SDOT belongs to the feature that this function carries. It reads three registers and writes one; it
    // touches neither memory nor flags.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {w:v}.16b, {x:v}.16b",
            sums = inlateout(vreg) sums,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
