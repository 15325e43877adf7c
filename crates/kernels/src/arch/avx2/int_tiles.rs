//! Tiles of codes ([`crate::int_tiles`]): `pmaddubsw`, sixteen rows in two registers.

use std::arch::x86_64::*;

use crate::arch::ops_avx2::Avx2;
use crate::int_tiles::body::{self, Codes};
use crate::int_tiles::{IntInput, IntTile, TILE_ROWS};
use crate::trits::Line;

/// Bytes ahead of the line in work that are asked for.
const PREFETCH: usize = 2048;

/// See [`body::int_tile`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn int_tile(
    tile: &IntTile<'_>,
    input: IntInput<'_>,
    codes: &mut Vec<[Line; 8]>,
    out: &mut [[f32; TILE_ROWS]],
) {
    body::int_tile::<CodesAvx2, 2>(tile, input, codes, out)
}

/// Two registers, of eight rows each.
#[derive(Clone, Copy)]
struct CodesAvx2([__m256i; 2]);

/// Runs intrinsics of AVX2.
macro_rules! avx2 {
    ($intrinsics:expr) => {
        // SAFETY: values of this type are used only inside `int_tile`, which is compiled for these features and which the
        // dispatch page hands out only where they were detected. Loads and stores stay inside a line that a reference
        // vouches for; a prefetch may name any address.
        unsafe { $intrinsics }
    };
}

impl Codes for CodesAvx2 {
    type Floats = Avx2;
    type Sums = [__m256i; 2];
    // `pmaddubsw` adds two products, which with codes of up to 255 would not fit into 16 bits.
    const ZERO_OF_EIGHT: i32 = 128;

    #[inline(always)]
    fn load(line: &Line) -> Self {
        let from = line.0.as_ptr();
        avx2!(Self([_mm256_load_si256(from.cast()), _mm256_load_si256(from.add(32).cast())]))
    }

    #[inline(always)]
    fn store(self, line: &mut Line) {
        let to = line.0.as_mut_ptr();
        avx2!({
            _mm256_store_si256(to.cast(), self.0[0]);
            _mm256_store_si256(to.add(32).cast(), self.0[1]);
        })
    }

    #[inline(always)]
    fn and(self, mask: u8) -> Self {
        let [a, b] = self.0;
        avx2!({
            let mask = _mm256_set1_epi8(mask as i8);
            Self([_mm256_and_si256(a, mask), _mm256_and_si256(b, mask)])
        })
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        avx2!(Self([_mm256_or_si256(a, c), _mm256_or_si256(b, d)]))
    }

    #[inline(always)]
    fn left<const N: i32>(self) -> Self {
        let [a, b] = self.0;
        avx2!(Self([_mm256_slli_epi16::<N>(a), _mm256_slli_epi16::<N>(b)]))
    }

    #[inline(always)]
    fn right<const N: i32>(self) -> Self {
        let [a, b] = self.0;
        avx2!(Self([_mm256_srli_epi16::<N>(a), _mm256_srli_epi16::<N>(b)]))
    }

    #[inline(always)]
    fn splat(sum: i32) -> [__m256i; 2] {
        [avx2!(_mm256_set1_epi32(sum)); 2]
    }

    #[inline(always)]
    fn add_dots<const BITS: u32, const T: usize>(
        sums: &mut [[__m256i; 2]; T],
        codes: &[Self; 4],
        x: &[[i8; 32]; T],
        half: usize,
    ) {
        for (sums, x) in sums.iter_mut().zip(x) {
            for (part, sums) in sums.iter_mut().enumerate() {
                let mut products = [avx2!(_mm256_setzero_si256()); 4];
                for i in 0..4 {
                    let four = body::four(x, half, i);
                    products[i] = avx2!({
                        let (codes, x) = (codes[i].0[part], _mm256_set1_epi32(four));
                        if BITS == 8 {
                            let codes = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
                            _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
                        } else {
                            _mm256_maddubs_epi16(codes, x)
                        }
                    });
                }
                *sums = add_pairs::<BITS>(*sums, products);
            }
        }
    }

    #[inline(always)]
    fn to_floats([a, b]: [__m256i; 2]) -> Avx2 {
        avx2!(Avx2(_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)))
    }

    #[inline(always)]
    fn prefetch(line: &Line) {
        avx2!(_mm_prefetch::<_MM_HINT_T1>(line.0.as_ptr().wrapping_add(PREFETCH).cast()))
    }
}

/// Adds sums of two products each to sums of 32 bits, four neighbours to one.
#[inline(always)]
fn add_pairs<const BITS: u32>(sums: __m256i, products: [__m256i; 4]) -> __m256i {
    avx2!({
        let ones = _mm256_set1_epi16(1);
        let [a, b, c, d] = products;
        if BITS <= 5 {
            // 8 * 31 * 127 fit into 16 bits,
            let all = _mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_add_epi16(c, d));
            _mm256_add_epi32(sums, _mm256_madd_epi16(all, ones))
        } else if BITS <= 6 {
            // and so do 4 * 63 * 127,
            let ab = _mm256_madd_epi16(_mm256_add_epi16(a, b), ones);
            let cd = _mm256_madd_epi16(_mm256_add_epi16(c, d), ones);
            _mm256_add_epi32(sums, _mm256_add_epi32(ab, cd))
        } else {
            // but not 4 * 128 * 127.
            let ab = _mm256_add_epi32(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones));
            let cd = _mm256_add_epi32(_mm256_madd_epi16(c, ones), _mm256_madd_epi16(d, ones));
            _mm256_add_epi32(sums, _mm256_add_epi32(ab, cd))
        }
    })
}
