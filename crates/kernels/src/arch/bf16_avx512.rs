//! Products of bfloat16 by AVX512-BF16: x86-64 of 2020 (Cooper Lake), 2022 (Zen 4) and later.

use std::arch::x86_64::*;
use std::mem::transmute;

use crate::gemm::{self, GemmOps, Lanes, Pairs, Part, Strip};
use crate::vector::LANES;

/// Rows and vectors of columns whose sums stay in registers.
const TILE: (usize, usize) = (12, 2);

pub(crate) static GEMM: GemmOps =
    GemmOps { tile: (TILE.0, TILE.1 * LANES), group: 2, pack: (pack_rows, pack_columns), strip };

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack_rows(part: Part<'_>, to: &mut [f32]) {
    gemm::pack_pairs::<Bf16, { TILE.0 }>(part, to);
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack_columns(part: Part<'_>, to: &mut [f32]) {
    gemm::pack_pairs::<Bf16, { TILE.1 * LANES }>(part, to);
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn strip(strip: &Strip<'_>, c: &mut [f32]) {
    gemm::multiply_strip::<Bf16, { TILE.0 }, { TILE.1 }>(strip, c);
}

/// One register: sixteen pairs, or sixteen sums in f32.
#[derive(Clone, Copy)]
struct Bf16(__m512);

/// Runs intrinsics of AVX512-BF16.
macro_rules! bf16 {
    ($intrinsics:expr) => {
        // SAFETY: registers of this type are used only inside the functions of `GEMM`, which are compiled for these
        // features and which the dispatch page hands out only where they were detected. Loads and stores are unaligned and
        // stay inside the array that a reference vouches for; what is transmuted is a register's bits.
        unsafe { $intrinsics }
    };
}

impl Lanes for Bf16 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(bf16!(_mm512_set1_ps(x)))
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        Self(bf16!(_mm512_loadu_ps(x.as_ptr())))
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        bf16!(_mm512_storeu_ps(out.as_mut_ptr(), self.0))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(bf16!(_mm512_add_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn multiply_add(self, b: Self, c: Self) -> Self {
        Self(bf16!({
            let (a, b) = (transmute::<__m512, __m512bh>(self.0), transmute::<__m512, __m512bh>(b.0));
            _mm512_dpbf16_ps(c.0, a, b)
        }))
    }
}

impl Pairs for Bf16 {
    #[inline(always)]
    fn join(low: &[f32; LANES], high: &[f32; LANES]) -> Self {
        let high = bf16!(_mm512_slli_epi32::<16>(round(high)));
        Self(bf16!(_mm512_castsi512_ps(_mm512_or_si512(round(low), high))))
    }

    #[inline(always)]
    fn neighbours(first: &[f32; LANES], second: &[f32; LANES]) -> Self {
        let (first, second) = (Self::load(first), Self::load(second));
        Self(bf16!(transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(second.0, first.0))))
    }

    #[inline(always)]
    fn prefetch(x: &[f32], at: usize) {
        if let Some(x) = x.get(at) {
            bf16!(_mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(x).cast()))
        }
    }
}

/// The rounded elements, each in the lower half of a lane.
#[inline(always)]
fn round(x: &[f32; LANES]) -> __m512i {
    bf16!(_mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(
        x.as_ptr()
    )))))
}
