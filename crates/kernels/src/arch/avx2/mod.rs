//! AVX2, FMA and F16C: x86-64 of 2013 and later.
//!
//! Every function of the table carries `target_feature`, and the table is handed out only where these features
//! were detected. Loads go through [`load_f32`] and its like, which take arrays by reference, so that the only
//! unsafe operation is an unaligned load or store of bytes that the reference vouches for.

mod int_tiles;
mod many;
mod trits;

use std::arch::x86_64::*;

use crate::arch::scalar;
use crate::codec::{self, UnpackedRow};
use crate::dispatch::{BlockInput, BlockRow, Isa, Kernels};
use crate::row::RowType;
use crate::trits::TritKernels;
use crate::trits::many::ManyKernels;

pub(crate) static KERNELS: Kernels = TABLE;

/// The table, for newer instruction sets to build on.
pub(crate) const TABLE: Kernels = Kernels {
    isa: Isa::Avx2,
    unpack_row,
    dequantize_row,
    gemm_int8_block,
    gemm_ternary,
    trits: Some(&TRITS),
    int_tiles: Some(int_tiles::int_tile),
};

static TRITS: TritKernels = TritKernels {
    tables: trits::tables,
    lookup: trits::lookup,
    multiply: trits::multiply,
    lookup_up_to: 3,
    many: Some(&ManyKernels {
        interleave: many::interleave,
        tables: many::tables,
        add: many::add,
        widen: many::widen,
        finish: many::finish,
        tiles_at_once: 144,
        full_enough: 20,
    }),
};

#[target_feature(enable = "avx2,fma,f16c")]
fn unpack_row(ty: RowType, bytes: &[u8], cols: usize, row: &mut UnpackedRow) {
    codec::unpack_checked(ty, bytes, cols, row)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dequantize_row(ty: RowType, bytes: &[u8], out: &mut [f32]) {
    if ty != RowType::F16 {
        return codec::dequantize_checked(ty, bytes, out);
    }
    // The one type that the processor converts by itself.
    let (bytes16, tail) = bytes.as_chunks::<16>();
    let (out8, out_tail) = out.as_chunks_mut::<8>();
    for (bytes, out) in bytes16.iter().zip(out8) {
        store_f32(out, load_f16_bytes(bytes));
    }
    codec::dequantize_checked(ty, tail, out_tail);
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_f32(x: &[f32; 8]) -> __m256 {
    // SAFETY: the reference covers the 32 bytes that an unaligned load reads.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_f32(x: &mut [f32; 8], v: __m256) {
    // SAFETY: the reference covers the 32 bytes that an unaligned store writes.
    unsafe { _mm256_storeu_ps(x.as_mut_ptr(), v) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_i8(x: &[i8; 32]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes that an unaligned load reads.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load_f16_bytes(x: &[u8; 16]) -> __m256 {
    // SAFETY: the reference covers the 16 bytes that an unaligned load reads.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(x.as_ptr().cast()) })
}

/// Sum of the eight lanes, always in the same order.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_f32(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum_i32(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b00_00_11_10>(v));
    _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<0b00_00_00_01>(v)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let ((a8, a_tail), (b8, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sum = _mm256_setzero_ps();
    for (a, b) in a8.iter().zip(b8) {
        sum = _mm256_fmadd_ps(load_f32(a), load_f32(b), sum);
    }
    sum_f32(sum) + a_tail.iter().zip(b_tail).fold(0.0f32, |sum, (a, b)| a.mul_add(*b, sum))
}

/// One row against `T` tokens. Per block of 32: |w| times x with w's sign, summed by pairs to 16 bits (at most
/// 2 * 128 * 127, which fits), then to eight 32-bit sums of which the lower four belong to the first half block.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile_int8_block<const T: usize>(row: &BlockRow<'_>, xs: [&[i8]; T], scales: [&[f32]; T]) -> [f32; T] {
    let w32 = row.q.as_chunks::<32>().0;
    let scale16 = &row.scale16.as_chunks::<2>().0[..w32.len()];
    let x32 = xs.map(|x| &x.as_chunks::<32>().0[..w32.len()]);
    let scales = scales.map(|s| &s[..w32.len()]);
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_ps(); T];
    for b in 0..w32.len() {
        let w = load_i8(&w32[b]);
        let w_abs = _mm256_abs_epi8(w);
        let w_scale = _mm256_set_m128(_mm_set1_ps(scale16[b][1]), _mm_set1_ps(scale16[b][0]));
        for t in 0..T {
            let x = _mm256_sign_epi8(load_i8(&x32[t][b]), w);
            let dots = _mm256_madd_epi16(_mm256_maddubs_epi16(w_abs, x), ones);
            let scale = _mm256_mul_ps(w_scale, _mm256_set1_ps(scales[t][b]));
            sums[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, sums[t]);
        }
    }
    let mut out = [0.0; T];
    for t in 0..T {
        out[t] = sum_f32(sums[t]);
    }
    out
}

#[target_feature(enable = "avx2,fma")]
fn gemm_int8_block(row: &BlockRow<'_>, input: &BlockInput<'_>, out: &mut [f32]) {
    let cols = row.q.len();
    let blocks = cols / 32;
    let x = |t: usize| &input.q[t * cols..][..cols];
    let s = |t: usize| &input.scale[t * blocks..][..blocks];
    let (fours, rest) = out.as_chunks_mut::<4>();
    let first_rest = fours.len() * 4;
    for (i, out) in fours.iter_mut().enumerate() {
        let t = i * 4;
        *out =
            tile_int8_block(row, [x(t), x(t + 1), x(t + 2), x(t + 3)], [s(t), s(t + 1), s(t + 2), s(t + 3)]);
    }
    for (i, out) in rest.iter_mut().enumerate() {
        let t = first_rest + i;
        [*out] = tile_int8_block(row, [x(t)], [s(t)]);
    }
    if !row.offset.is_empty() {
        let groups = row.offset.len();
        for (t, out) in out.iter_mut().enumerate() {
            let sums = &input.sums[t * groups..][..groups];
            *out += dot_f32(row.offset, sums);
        }
    }
}

/// One ternary row against `T` tokens, in integers.
#[inline]
#[target_feature(enable = "avx2")]
fn tile_ternary<const T: usize>(row: &[i8], xs: [&[i8]; T]) -> [i32; T] {
    let w32 = row.as_chunks::<32>().0;
    let x32 = xs.map(|x| &x.as_chunks::<32>().0[..w32.len()]);
    let (ones8, ones16) = (_mm256_set1_epi8(1), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_si256(); T];
    for b in 0..w32.len() {
        let w = load_i8(&w32[b]);
        for t in 0..T {
            let products = _mm256_sign_epi8(load_i8(&x32[t][b]), w);
            let dots = _mm256_madd_epi16(_mm256_maddubs_epi16(ones8, products), ones16);
            sums[t] = _mm256_add_epi32(sums[t], dots);
        }
    }
    let mut out = [0; T];
    for t in 0..T {
        let done = w32.len() * 32;
        out[t] = sum_i32(sums[t]) + scalar::dot_i8(&row[done..], &xs[t][done..]);
    }
    out
}

#[target_feature(enable = "avx2")]
fn gemm_ternary(row: &[i8], xs: &[i8], out: &mut [i32]) {
    let cols = row.len();
    let x = |t: usize| &xs[t * cols..][..cols];
    let (fours, rest) = out.as_chunks_mut::<4>();
    let first_rest = fours.len() * 4;
    for (i, out) in fours.iter_mut().enumerate() {
        let t = i * 4;
        *out = tile_ternary(row, [x(t), x(t + 1), x(t + 2), x(t + 3)]);
    }
    for (i, out) in rest.iter_mut().enumerate() {
        [*out] = tile_ternary(row, [x(first_rest + i)]);
    }
}
