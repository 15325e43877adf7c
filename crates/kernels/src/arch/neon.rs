//! NEON: every 64-bit ARM processor.
//!
//! Every function of the table carries `target_feature`, and the table is handed out only where the feature was
//! detected. Loads go through [`load_f32`] and its like, which take arrays by reference, so that the only unsafe
//! operation on memory is one that the reference vouches for.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::arch::neon_codes::{AddDots, NeonCodes};
use crate::arch::neon_tiles::{self, four, load_part, store_s32};
use crate::arch::scalar;
use crate::codec::{self, UnpackedRow};
use crate::dispatch::{BlockInput, BlockRow, Isa, Kernels};
use crate::int_tiles::{self, IntInput, IntTile};
use crate::row::RowType;
use crate::trits::{self, Line, TritKernels};

pub(crate) static KERNELS: Kernels = Kernels {
    isa: Isa::Neon,
    unpack_row,
    dequantize_row,
    gemm_int8_block,
    gemm_ternary,
    trits: Some(&TRITS),
    int_tiles: Some(int_tile),
};

super::neon_int8::integer_kernels!("neon", add_dots);
super::neon_tiles::tile_kernels!("neon", add_fours);

#[target_feature(enable = "neon")]
pub(super) fn unpack_row(ty: RowType, bytes: &[u8], cols: usize, row: &mut UnpackedRow) {
    codec::unpack_checked(ty, bytes, cols, row)
}

#[target_feature(enable = "neon")]
pub(super) fn dequantize_row(ty: RowType, bytes: &[u8], out: &mut [f32]) {
    if ty != RowType::F16 {
        return codec::dequantize_checked(ty, bytes, out);
    }
    // The one type that the processor converts by itself.
    let (bytes8, tail) = bytes.as_chunks::<8>();
    let (out4, out_tail) = out.as_chunks_mut::<4>();
    for (bytes, out) in bytes8.iter().zip(out4) {
        store_f32(out, load_f16_bytes(bytes));
    }
    codec::dequantize_checked(ty, tail, out_tail);
}

#[inline]
#[target_feature(enable = "neon")]
fn load_f32(x: &[f32; 4]) -> float32x4_t {
    // SAFETY: the reference covers the 16 bytes that are read; no alignment beyond its own is asked for.
    unsafe { vld1q_f32(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_f32(x: &mut [f32; 4], v: float32x4_t) {
    // SAFETY: the reference covers the 16 bytes that are written.
    unsafe { vst1q_f32(x.as_mut_ptr(), v) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_f16_bytes(x: &[u8; 8]) -> float32x4_t {
    // SAFETY: the reference covers the 8 bytes that are read; bytes ask for no alignment.
    widen_f16(vreinterpret_u16_u8(unsafe { vld1_u8(x.as_ptr()) }))
}

/// Four f16, as their bits, to f32: exact. `vcvt_f32_f16`, whose argument has a type that Rust does not have yet.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn widen_f16(bits: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: FCVTL between single and half precision belongs to base NEON, which this function's feature
    // promises. It reads one register and writes one; it touches neither memory nor flags. It may set the
    // cumulative exception bits of FPSR for a signalling NaN, which Rust neither reads nor relies on.
    unsafe {
        asm!(
            "fcvtl {wide:v}.4s, {bits:v}.4h",
            wide = lateout(vreg) wide,
            bits = in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    wide
}

/// Adds the 16 products of `w` and `x` to the four sums. Products of bytes fit in 16 bits, and so do sums of two
/// as long as no more than one of the factors is -128: activations never are ([`crate::activations`]).
#[inline]
#[target_feature(enable = "neon")]
fn add_dots(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    vpadalq_s16(sums, vmlal_high_s8(low, w, x))
}

/// As [`add_dots`], but neighbours by four, in their order: what SDOT does.
#[inline]
#[target_feature(enable = "neon")]
fn add_fours(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    vpadalq_s16(sums, vpaddq_s16(low, vmull_high_s8(w, x)))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let ((a4, a_tail), (b4, b_tail)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut sum = vdupq_n_f32(0.0);
    for (a, b) in a4.iter().zip(b4) {
        sum = vfmaq_f32(sum, load_f32(a), load_f32(b));
    }
    vaddvq_f32(sum) + a_tail.iter().zip(b_tail).fold(0.0f32, |sum, (a, b)| a.mul_add(*b, sum))
}
