//! Tiles of codes ([`crate::int_tiles`]): `vpdpbusd` on sixteen rows at once.

use std::arch::x86_64::*;

use super::PREFETCH;
use crate::arch::ops_avx512::Avx512;
use crate::int_tiles::body::{self, Codes};
use crate::int_tiles::{IntInput, IntTile, TILE_ROWS};
use crate::trits::Line;

/// See [`body::int_tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn int_tile(
    tile: &IntTile<'_>,
    input: IntInput<'_>,
    codes: &mut Vec<[Line; 8]>,
    out: &mut [[f32; TILE_ROWS]],
) {
    body::int_tile::<CodesAvx512, 8>(tile, input, codes, out)
}

/// One register.
#[derive(Clone, Copy)]
struct CodesAvx512(__m512i);

/// Runs intrinsics of AVX-512.
macro_rules! avx512 {
    ($intrinsics:expr) => {
        // SAFETY: values of this type are used only inside `int_tile`, which is compiled for these features and which the
        // dispatch page hands out only where they were detected. Loads and stores stay inside a line that a reference
        // vouches for; a prefetch may name any address.
        unsafe { $intrinsics }
    };
}

impl Codes for CodesAvx512 {
    type Floats = Avx512;
    type Sums = __m512i;
    const ZERO_OF_EIGHT: i32 = 0;

    #[inline(always)]
    fn load(line: &Line) -> Self {
        Self(avx512!(_mm512_load_si512(line.0.as_ptr().cast())))
    }

    #[inline(always)]
    fn store(self, line: &mut Line) {
        avx512!(_mm512_store_si512(line.0.as_mut_ptr().cast(), self.0))
    }

    #[inline(always)]
    fn and(self, mask: u8) -> Self {
        Self(avx512!(_mm512_and_si512(self.0, _mm512_set1_epi8(mask as i8))))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(avx512!(_mm512_or_si512(self.0, other.0)))
    }

    #[inline(always)]
    fn left<const N: i32>(self) -> Self {
        Self(avx512!(_mm512_sll_epi16(self.0, _mm_cvtsi32_si128(N))))
    }

    #[inline(always)]
    fn right<const N: i32>(self) -> Self {
        Self(avx512!(_mm512_srl_epi16(self.0, _mm_cvtsi32_si128(N))))
    }

    #[inline(always)]
    fn splat(sum: i32) -> __m512i {
        avx512!(_mm512_set1_epi32(sum))
    }

    #[inline(always)]
    fn add_dots<const BITS: u32, const T: usize>(
        sums: &mut [__m512i; T],
        codes: &[Self; 4],
        x: &[[i8; 32]; T],
        half: usize,
    ) {
        // Each sum waits for the one before it: the other tokens' stand between them.
        for (i, codes) in codes.iter().enumerate() {
            for (sums, x) in sums.iter_mut().zip(x) {
                let four = body::four(x, half, i);
                *sums = avx512!(_mm512_dpbusd_epi32(*sums, codes.0, _mm512_set1_epi32(four)));
            }
        }
    }

    #[inline(always)]
    fn to_floats(sums: __m512i) -> Avx512 {
        Avx512(avx512!(_mm512_cvtepi32_ps(sums)))
    }

    #[inline(always)]
    fn prefetch(line: &Line) {
        avx512!(_mm_prefetch::<_MM_HINT_T1>(line.0.as_ptr().wrapping_add(PREFETCH).cast()))
    }
}
