//! Tiles of codes ([`crate::int_tiles`]) on NEON: sixteen rows in four registers. The instruction sets differ in how they
//! multiply four bytes.

use std::arch::aarch64::*;
use std::marker::PhantomData;

use crate::arch::ops_neon::Neon;
use crate::int_tiles::body::{self, Codes};
use crate::trits::Line;

/// Adds the products of neighbouring bytes, four by four, to the sums in their order.
pub(super) trait AddDots: Copy {
    fn add_dots(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t;
}

/// Four registers, of four rows each.
#[derive(Clone, Copy)]
pub(super) struct NeonCodes<D>([uint8x16_t; 4], PhantomData<D>);

/// Runs intrinsics of NEON.
macro_rules! neon {
    ($intrinsics:expr) => {
        // SAFETY: values of this type are used only inside functions that carry this feature and that the dispatch page
        // hands out only where it was detected. Loads and stores stay inside a line that a reference vouches for.
        unsafe { $intrinsics }
    };
}

impl<D: AddDots> Codes for NeonCodes<D> {
    type Floats = Neon;
    type Sums = [int32x4_t; 4];
    // Products are those of signed bytes.
    const ZERO_OF_EIGHT: i32 = 128;

    #[inline(always)]
    fn load(line: &Line) -> Self {
        let from = line.0.as_ptr();
        let parts =
            neon!([vld1q_u8(from), vld1q_u8(from.add(16)), vld1q_u8(from.add(32)), vld1q_u8(from.add(48))]);
        Self(parts, PhantomData)
    }

    #[inline(always)]
    fn store(self, line: &mut Line) {
        let to = line.0.as_mut_ptr();
        neon!({
            vst1q_u8(to, self.0[0]);
            vst1q_u8(to.add(16), self.0[1]);
            vst1q_u8(to.add(32), self.0[2]);
            vst1q_u8(to.add(48), self.0[3]);
        })
    }

    #[inline(always)]
    fn and(mut self, mask: u8) -> Self {
        for part in &mut self.0 {
            *part = neon!(vandq_u8(*part, vdupq_n_u8(mask)));
        }
        self
    }

    #[inline(always)]
    fn or(mut self, other: Self) -> Self {
        for (part, other) in self.0.iter_mut().zip(other.0) {
            *part = neon!(vorrq_u8(*part, other));
        }
        self
    }

    #[inline(always)]
    fn left<const N: i32>(mut self) -> Self {
        for part in &mut self.0 {
            *part = neon!(vshlq_n_u8::<N>(*part));
        }
        self
    }

    #[inline(always)]
    fn right<const N: i32>(mut self) -> Self {
        for part in &mut self.0 {
            *part = neon!(vshrq_n_u8::<N>(*part));
        }
        self
    }

    #[inline(always)]
    fn splat(sum: i32) -> [int32x4_t; 4] {
        [neon!(vdupq_n_s32(sum)); 4]
    }

    #[inline(always)]
    fn add_dots<const BITS: u32, const T: usize>(
        sums: &mut [[int32x4_t; 4]; T],
        codes: &[Self; 4],
        x: &[[i8; 32]; T],
        half: usize,
    ) {
        for (sums, x) in sums.iter_mut().zip(x) {
            for (i, codes) in codes.iter().enumerate() {
                let x = neon!(vreinterpretq_s8_s32(vdupq_n_s32(body::four(x, half, i))));
                for (sums, &part) in sums.iter_mut().zip(&codes.0) {
                    let part = if BITS == 8 { neon!(veorq_u8(part, vdupq_n_u8(128))) } else { part };
                    *sums = D::add_dots(*sums, neon!(vreinterpretq_s8_u8(part)), x);
                }
            }
        }
    }

    #[inline(always)]
    fn to_floats(sums: [int32x4_t; 4]) -> Neon {
        let [a, b, c, d] = sums;
        neon!(Neon([vcvtq_f32_s32(a), vcvtq_f32_s32(b), vcvtq_f32_s32(c), vcvtq_f32_s32(d)]))
    }

    #[inline(always)]
    fn prefetch(_line: &Line) {}
}
