//! Sixteen floats in two registers of AVX2, with FMA and F16C.

use std::arch::x86_64::*;

use crate::arch::vector_ops::{VectorOps, vector_ops};
use crate::dispatch::Isa;
use crate::vector::{LANES, Vector};

/// Two registers, lanes 0..8 and 8..16.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(pub(crate) __m256, pub(crate) __m256);

vector_ops!(Isa::Avx2, Avx2, tile 4 x 1, floats 2 x 3, gemm 6 x 1, "avx2,fma,f16c");

/// Runs intrinsics of AVX2, FMA and F16C.
macro_rules! avx2 {
    ($intrinsics:expr) => {
        // SAFETY: vectors of this type are used only inside the functions of `VECTOR_OPS`, which are compiled
        // for these features and which the dispatch page hands out only where they were detected. Loads and
        // stores are unaligned and stay inside the array that a reference vouches for.
        unsafe { $intrinsics }
    };
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

impl Avx2 {
    #[inline(always)]
    fn map(self, f: impl Fn(__m256) -> __m256) -> Self {
        Self(f(self.0), f(self.1))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(__m256, __m256) -> __m256) -> Self {
        Self(f(self.0, other.0), f(self.1, other.1))
    }
}

impl Vector for Avx2 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        let v = avx2!(_mm256_set1_ps(x));
        Self(v, v)
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        avx2!(Self(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))))
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        avx2!({
            _mm256_storeu_ps(out.as_mut_ptr(), self.0);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), self.1);
        })
    }

    #[inline(always)]
    fn load_f16(x: &[u16; LANES]) -> Self {
        let half = |at: usize| avx2!(_mm256_cvtph_ps(_mm_loadu_si128(x[at..at + 8].as_ptr().cast())));
        Self(half(0), half(8))
    }

    #[inline(always)]
    fn store_f16(self, out: &mut [u16; LANES]) {
        let (low, high) = out.split_at_mut(8);
        avx2!({
            _mm_storeu_si128(low.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
            _mm_storeu_si128(high.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1));
        })
    }

    #[inline(always)]
    fn load_bf16(x: &[u16; LANES]) -> Self {
        let half = |at: usize| {
            avx2!({
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(x[at..at + 8].as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
            })
        };
        Self(half(0), half(8))
    }

    #[inline(always)]
    fn load_i8(x: &[i8; LANES]) -> Self {
        avx2!({
            let bytes = _mm_loadu_si128(x.as_ptr().cast());
            let low = _mm256_cvtepi8_epi32(bytes);
            let high = _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes));
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        })
    }

    #[inline(always)]
    fn store_i8(self, out: &mut [i8; LANES]) {
        avx2!({
            let packed = _mm256_packs_epi32(_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            // Packing works in halves of the registers: bring the quarters back into order.
            let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            let (low, high) = (_mm256_castsi256_si128(ordered), _mm256_extracti128_si256::<1>(ordered));
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm_packs_epi16(low, high));
        })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| avx2!(_mm256_add_ps(a, b)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| avx2!(_mm256_sub_ps(a, b)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| avx2!(_mm256_mul_ps(a, b)))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| avx2!(_mm256_div_ps(a, b)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| avx2!(_mm256_max_ps(a, b)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| avx2!(_mm256_min_ps(a, b)))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.map(|x| avx2!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), x)))
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        avx2!(Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)))
    }

    #[inline(always)]
    fn round(self) -> Self {
        self.map(|x| avx2!(_mm256_round_ps::<NEAREST>(x)))
    }

    #[inline(always)]
    fn pow2(self) -> Self {
        self.map(|x| {
            avx2!({
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            })
        })
    }

    #[inline(always)]
    fn zero_nan(self) -> Self {
        self.map(|x| avx2!(_mm256_and_ps(x, _mm256_cmp_ps::<_CMP_ORD_Q>(x, x))))
    }

    #[inline(always)]
    fn swap_pairs(self) -> Self {
        self.map(|x| avx2!(_mm256_permute_ps::<0b10_11_00_01>(x)))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        avx2!({
            let v8 = _mm256_add_ps(self.0, self.1);
            let v4 = _mm_add_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps::<1>(v8));
            let v2 = _mm_add_ps(v4, _mm_movehl_ps(v4, v4));
            _mm_cvtss_f32(_mm_add_ss(v2, _mm_movehdup_ps(v2)))
        })
    }

    #[inline(always)]
    fn max_lane(self) -> f32 {
        avx2!({
            let v8 = _mm256_max_ps(self.0, self.1);
            let v4 = _mm_max_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps::<1>(v8));
            let v2 = _mm_max_ps(v4, _mm_movehl_ps(v4, v4));
            _mm_cvtss_f32(_mm_max_ss(v2, _mm_movehdup_ps(v2)))
        })
    }

    #[inline(always)]
    fn prefetch<T>(x: &[T], at: usize) {
        if let Some(x) = x.get(at) {
            avx2!(_mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(x).cast()))
        }
    }
}
