//! Sixteen floats in one register of AVX-512 (F, BW, DQ, VL: x86-64-v4).

use std::arch::x86_64::*;

use crate::arch::vector_ops::{VectorOps, vector_ops};
use crate::dispatch::Isa;
use crate::vector::{LANES, Vector};

/// One register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(pub(crate) __m512);

vector_ops!(Isa::Avx512, Avx512, tile 4 x 4, floats 4 x 4, gemm 12 x 2, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");

/// Runs intrinsics of AVX-512.
macro_rules! avx512 {
    ($intrinsics:expr) => {
        // SAFETY: vectors of this type are used only inside the functions of `VECTOR_OPS`, which are compiled
        // for these features and which the dispatch page hands out only where they were detected. Loads and
        // stores are unaligned and stay inside the array that a reference vouches for.
        unsafe { $intrinsics }
    };
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

impl Avx512 {
    /// The sums of the upper and the lower half of `self`, and behind them those of `other`: one addition for both.
    #[inline(always)]
    fn join_halves(self, other: Self) -> __m512 {
        avx512!({
            let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(self.0, other.0);
            _mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_10_11_10>(self.0, other.0))
        })
    }
}

impl Vector for Avx512 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(avx512!(_mm512_set1_ps(x)))
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        Self(avx512!(_mm512_loadu_ps(x.as_ptr())))
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        avx512!(_mm512_storeu_ps(out.as_mut_ptr(), self.0))
    }

    #[inline(always)]
    fn load_f16(x: &[u16; LANES]) -> Self {
        Self(avx512!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast()))))
    }

    #[inline(always)]
    fn store_f16(self, out: &mut [u16; LANES]) {
        avx512!(_mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtps_ph::<NEAREST>(self.0)))
    }

    #[inline(always)]
    fn load_bf16(x: &[u16; LANES]) -> Self {
        Self(avx512!({
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }))
    }

    #[inline(always)]
    fn load_i8(x: &[i8; LANES]) -> Self {
        Self(avx512!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast())))))
    }

    #[inline(always)]
    fn store_i8(self, out: &mut [i8; LANES]) {
        avx512!(_mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(self.0))))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(avx512!(_mm512_add_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(avx512!(_mm512_sub_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(avx512!(_mm512_mul_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(avx512!(_mm512_div_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(avx512!(_mm512_max_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(avx512!(_mm512_min_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(avx512!(_mm512_abs_ps(self.0)))
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(avx512!(_mm512_fmadd_ps(self.0, b.0, c.0)))
    }

    #[inline(always)]
    fn round(self) -> Self {
        Self(avx512!(_mm512_roundscale_ps::<NEAREST>(self.0)))
    }

    #[inline(always)]
    fn pow2(self) -> Self {
        Self(avx512!({
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }))
    }

    #[inline(always)]
    fn zero_nan(self) -> Self {
        Self(avx512!({
            let ordered = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(self.0, self.0);
            _mm512_maskz_mov_ps(ordered, self.0)
        }))
    }

    #[inline(always)]
    fn swap_pairs(self) -> Self {
        Self(avx512!(_mm512_permute_ps::<0b10_11_00_01>(self.0)))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        avx512!({
            let v8 = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            let v4 = _mm_add_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps::<1>(v8));
            let v2 = _mm_add_ps(v4, _mm_movehl_ps(v4, v4));
            _mm_cvtss_f32(_mm_add_ss(v2, _mm_movehdup_ps(v2)))
        })
    }

    #[inline(always)]
    fn sums<const N: usize>(v: [Self; N]) -> [f32; N] {
        let mut out = [0.0; N];
        let (fours, rest) = v.as_chunks::<4>();
        let (out_fours, out_rest) = out.as_chunks_mut::<4>();
        for (&[a, b, c, d], out) in fours.iter().zip(out_fours) {
            let (ab, cd) = (a.join_halves(b), c.join_halves(d));
            avx512!({
                let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd);
                let v4 = _mm512_add_ps(even, _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd));
                let v2 = _mm512_add_ps(v4, _mm512_permute_ps::<0b01_00_11_10>(v4));
                let v1 = _mm512_add_ps(v2, _mm512_permute_ps::<0b10_11_00_01>(v2));
                let firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
                let sums = _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, v1));
                _mm_storeu_ps(out.as_mut_ptr(), sums);
            });
        }
        for (v, out) in rest.iter().zip(out_rest) {
            *out = v.sum();
        }
        out
    }

    #[inline(always)]
    fn max_lane(self) -> f32 {
        avx512!({
            let v8 = _mm256_max_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            let v4 = _mm_max_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps::<1>(v8));
            let v2 = _mm_max_ps(v4, _mm_movehl_ps(v4, v4));
            _mm_cvtss_f32(_mm_max_ss(v2, _mm_movehdup_ps(v2)))
        })
    }

    #[inline(always)]
    fn prefetch<T>(x: &[T], at: usize) {
        if let Some(x) = x.get(at) {
            avx512!(_mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(x).cast()))
        }
    }
}
