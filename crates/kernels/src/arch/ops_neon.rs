//! Sixteen floats in four registers of NEON.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::arch::neon::widen_f16;
use crate::arch::vector_ops::{VectorOps, vector_ops};
use crate::dispatch::Isa;
use crate::vector::{LANES, Vector};

/// Four registers, lanes 0..4, 4..8 and so on.
#[derive(Clone, Copy)]
pub(crate) struct Neon(pub(crate) [float32x4_t; 4]);

vector_ops!(Isa::Neon, Neon, tile 4 x 1, floats 2 x 3, gemm 6 x 1, "neon");

/// Runs intrinsics of NEON.
macro_rules! neon {
    ($intrinsics:expr) => {
        // SAFETY: vectors of this type are used only inside the functions of `VECTOR_OPS`, which are compiled for
        // this feature and which the dispatch page hands out only where it was detected. Loads and stores stay
        // inside the array that a reference vouches for, and ask for no alignment beyond its own.
        unsafe { $intrinsics }
    };
}

impl Neon {
    #[inline(always)]
    fn map(self, f: impl Fn(float32x4_t) -> float32x4_t) -> Self {
        Self(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (self.0, other.0);
        Self([f(a0, b0), f(a1, b1), f(a2, b2), f(a3, b3)])
    }
}

/// Four floats to the bits of binary16, to nearest even: `vcvt_f16_f32`, whose result has a type that Rust does not
/// have yet.
#[inline]
#[target_feature(enable = "neon")]
fn narrow_f16(x: float32x4_t) -> uint16x4_t {
    let bits: uint16x4_t;
    // SAFETY: FCVTN between single and half precision belongs to base NEON, which this function's feature promises.
    // It reads one register and writes one; it touches neither memory nor condition flags. It may set cumulative
    // exception bits of FPSR, which Rust neither reads nor relies on.
    unsafe {
        asm!(
            "fcvtn {bits:v}.4h, {x:v}.4s",
            bits = lateout(vreg) bits,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    bits
}

/// `a` where it is greater, else `b`.
#[inline]
#[target_feature(enable = "neon")]
fn greater(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(a, b), a, b)
}

impl Vector for Neon {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([neon!(vdupq_n_f32(x)); 4])
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        let load = |at: usize| neon!(vld1q_f32(x[at..at + 4].as_ptr()));
        Self([load(0), load(4), load(8), load(12)])
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        for (out, v) in out.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            neon!(vst1q_f32(out.as_mut_ptr(), v));
        }
    }

    #[inline(always)]
    fn load_f16(x: &[u16; LANES]) -> Self {
        let load = |at: usize| neon!(widen_f16(vld1_u16(x[at..at + 4].as_ptr())));
        Self([load(0), load(4), load(8), load(12)])
    }

    #[inline(always)]
    fn store_f16(self, out: &mut [u16; LANES]) {
        for (out, v) in out.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            neon!(vst1_u16(out.as_mut_ptr(), narrow_f16(v)));
        }
    }

    #[inline(always)]
    fn load_bf16(x: &[u16; LANES]) -> Self {
        let load =
            |at: usize| neon!(vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x[at..at + 4].as_ptr()))));
        Self([load(0), load(4), load(8), load(12)])
    }

    #[inline(always)]
    fn load_i8(x: &[i8; LANES]) -> Self {
        neon!({
            let bytes = vld1q_s8(x.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            Self([
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ])
        })
    }

    #[inline(always)]
    fn store_i8(self, out: &mut [i8; LANES]) {
        neon!({
            let [a, b, c, d] = self.0.map(|x| vqmovn_s32(vcvtq_s32_f32(x)));
            let (low, high) = (vqmovn_s16(vcombine_s16(a, b)), vqmovn_s16(vcombine_s16(c, d)));
            vst1q_s8(out.as_mut_ptr(), vcombine_s8(low, high));
        })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| neon!(vaddq_f32(a, b)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| neon!(vsubq_f32(a, b)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| neon!(vmulq_f32(a, b)))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| neon!(vdivq_f32(a, b)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| neon!(greater(a, b)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| neon!(vbslq_f32(vcltq_f32(a, b), a, b)))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.map(|x| neon!(vabsq_f32(x)))
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        let ([a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3]) = (self.0, b.0, c.0);
        let f = |a, b, c| neon!(vfmaq_f32(c, a, b));
        Self([f(a0, b0, c0), f(a1, b1, c1), f(a2, b2, c2), f(a3, b3, c3)])
    }

    #[inline(always)]
    fn round(self) -> Self {
        self.map(|x| neon!(vrndnq_f32(x)))
    }

    #[inline(always)]
    fn pow2(self) -> Self {
        self.map(|x| {
            neon!({
                let biased = vaddq_s32(vcvtq_s32_f32(x), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
            })
        })
    }

    #[inline(always)]
    fn zero_nan(self) -> Self {
        self.map(|x| neon!(vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vceqq_f32(x, x)))))
    }

    #[inline(always)]
    fn swap_pairs(self) -> Self {
        self.map(|x| neon!(vrev64q_f32(x)))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        neon!({
            let v4 = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            let v2 = vadd_f32(vget_low_f32(v4), vget_high_f32(v4));
            vget_lane_f32::<0>(v2) + vget_lane_f32::<1>(v2)
        })
    }

    #[inline(always)]
    fn max_lane(self) -> f32 {
        let [a, b, c, d] = self.0;
        neon!({
            let v4 = greater(greater(a, c), greater(b, d));
            let (low, high) = (vget_low_f32(v4), vget_high_f32(v4));
            let v2 = vbsl_f32(vcgt_f32(low, high), low, high);
            let (first, second) = (vget_lane_f32::<0>(v2), vget_lane_f32::<1>(v2));
            if first > second { first } else { second }
        })
    }
}
