//! Sixteen floats in plain Rust, for every machine.

use half::f16;

use crate::arch::vector_ops::{VectorOps, vector_ops};
use crate::dispatch::Isa;
use crate::vector::{LANES, Vector};

/// Sixteen floats in an array.
#[derive(Clone, Copy)]
pub(crate) struct Scalar([f32; LANES]);

vector_ops!(Isa::Scalar, Scalar, tile 4 x 1, floats 1 x 1, gemm 2 x 1);

impl Scalar {
    #[inline(always)]
    fn map(mut self, f: impl Fn(f32) -> f32) -> Self {
        for x in &mut self.0 {
            *x = f(*x);
        }
        self
    }

    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for i in 0..LANES {
            self.0[i] = f(self.0[i], other.0[i]);
        }
        self
    }
}

impl Vector for Scalar {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; LANES])
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        Self(*x)
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        *out = self.0;
    }

    #[inline(always)]
    fn load_f16(x: &[u16; LANES]) -> Self {
        Self(x.map(widen))
    }

    #[inline(always)]
    fn store_f16(self, out: &mut [u16; LANES]) {
        *out = self.0.map(|x| f16::from_f32(x).to_bits());
    }

    #[inline(always)]
    fn load_bf16(x: &[u16; LANES]) -> Self {
        Self(x.map(|x| f32::from_bits(u32::from(x) << 16)))
    }

    #[inline(always)]
    fn load_i8(x: &[i8; LANES]) -> Self {
        Self(x.map(f32::from))
    }

    #[inline(always)]
    fn store_i8(self, out: &mut [i8; LANES]) {
        *out = self.0.map(|x| x as i8);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.map(f32::abs)
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // Not `f32::mul_add`: without an instruction for it that is a function of hundreds of cycles.
        self.mul(b).add(c)
    }

    #[inline(always)]
    fn round(self) -> Self {
        // Adding 1.5 * 2^23 leaves no bits behind the point; the processor rounds ties to even.
        const SHIFT: f32 = 12_582_912.0;
        self.map(|x| (x + SHIFT) - SHIFT)
    }

    #[inline(always)]
    fn pow2(self) -> Self {
        self.map(|n| f32::from_bits(((n as i32).wrapping_add(127) << 23) as u32))
    }

    #[inline(always)]
    fn zero_nan(self) -> Self {
        self.map(|x| if x.is_nan() { 0.0 } else { x })
    }

    #[inline(always)]
    fn swap_pairs(self) -> Self {
        let mut swapped = self;
        for pair in swapped.0.as_chunks_mut::<2>().0 {
            pair.swap(0, 1);
        }
        swapped
    }

    #[inline(always)]
    fn sum(mut self) -> f32 {
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                self.0[i] += self.0[i + width];
            }
        }
        self.0[0]
    }

    #[inline(always)]
    fn max_lane(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
}

/// binary16 to binary32 without branches: the exponent's bias is corrected by an exact product, which serves
/// subnormal numbers too.
#[inline(always)]
fn widen(h: u16) -> f32 {
    const BIAS: f32 = f32::from_bits((127 + 127 - 15) << 23);
    let h = u32::from(h);
    let magnitude = (h & 0x7fff) << 13;
    let special = if magnitude >= 0x7c00 << 13 { 0x7f80_0000 } else { 0 };
    let finite = (f32::from_bits(magnitude) * BIAS).to_bits();
    f32::from_bits(finite | special | (h & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_exactly() {
        for bits in 0..=u16::MAX {
            let (got, want) = (widen(bits), f16::from_bits(bits).to_f32());
            assert!(got == want || got.is_nan() && want.is_nan(), "{bits:#x}: {got} for {want}");
        }
    }
}
