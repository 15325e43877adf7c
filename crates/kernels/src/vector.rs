//! Sixteen floats at a time: what the loops of [`mod@crate::ops`] and [`mod@crate::attention`] need of an
//! instruction set.
//!
//! The loops are written once over [`Vector`] and compiled for each instruction set (`arch/ops_*.rs`). A vector
//! has sixteen lanes everywhere and its lanes are summed in one order, so all instruction sets give the same
//! bits, save where [`Vector::mul_add`] is used: it rounds once where the processor can.

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen floats. The methods are always inlined into functions compiled for the instruction set.
pub(crate) trait Vector: Copy {
    fn splat(x: f32) -> Self;
    fn load(x: &[f32; LANES]) -> Self;
    fn store(self, out: &mut [f32; LANES]);
    /// From the bits of IEEE binary16.
    fn load_f16(x: &[u16; LANES]) -> Self;
    /// To the bits of IEEE binary16, rounded to nearest even.
    fn store_f16(self, out: &mut [u16; LANES]);
    /// From the upper halves of floats.
    fn load_bf16(x: &[u16; LANES]) -> Self;
    fn load_i8(x: &[i8; LANES]) -> Self;
    /// Of lanes that are integers in -128..=127.
    fn store_i8(self, out: &mut [i8; LANES]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `self` where it is greater, else `other`, which so wins where one of them is NaN.
    fn max(self, other: Self) -> Self;
    /// `self` where it is less, else `other`, which so wins where one of them is NaN.
    fn min(self, other: Self) -> Self;
    fn abs(self) -> Self;
    /// `self * b + c`, rounded once where the instruction set can.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// The nearest integer, ties to even, of lanes within +-2^22.
    fn round(self) -> Self;
    /// 2^n of lanes that are integers in -126..=127.
    fn pow2(self) -> Self;
    /// 0 where the lane is NaN.
    fn zero_nan(self) -> Self;
    /// Lanes 1, 0, 3, 2, ...
    fn swap_pairs(self) -> Self;
    /// Lane i added to lane i + 8, those to lane i + 4, and so on: the same order everywhere.
    fn sum(self) -> f32;
    /// [`Vector::sum`] of each.
    #[inline(always)]
    fn sums<const N: usize>(v: [Self; N]) -> [f32; N] {
        v.map(Self::sum)
    }
    fn max_lane(self) -> f32;
    /// Asks for the cache line of `x[at]` in the second-level cache (the first is full of what is worked on), where
    /// the instruction set can; nothing beyond the end is asked for.
    #[inline(always)]
    fn prefetch<T>(_x: &[T], _at: usize) {}
}

/// A vector from at most sixteen floats, the rest 0.
#[inline(always)]
pub(crate) fn load_any<V: Vector>(x: &[f32]) -> V {
    if let Ok(x) = <&[f32; LANES]>::try_from(x) {
        return V::load(x);
    }
    let mut lanes = [0.0; LANES];
    lanes[..x.len()].copy_from_slice(x);
    V::load(&lanes)
}

/// Stores the first lanes, at most sixteen.
#[inline(always)]
pub(crate) fn store_any<V: Vector>(v: V, out: &mut [f32]) {
    if let Ok(out) = <&mut [f32; LANES]>::try_from(&mut *out) {
        return v.store(out);
    }
    let mut lanes = [0.0; LANES];
    v.store(&mut lanes);
    let n = out.len();
    out.copy_from_slice(&lanes[..n]);
}

/// The arguments that [`exp`] is cut to: the smallest normal number and below the largest finite one.
pub(crate) const EXP_RANGE: (f32, f32) = (-87.336_54, 88.0);

/// e^x within 2 units in the last place (relative error below 2.4e-7) for x in [`EXP_RANGE`]; x outside gives
/// the value at the end of the range, NaN gives NaN, 0 gives exactly 1.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by the polynomial of Cephes (`expf.c`, Moshier), times 2^n.
#[inline(always)]
pub(crate) fn exp<V: Vector>(x: V) -> V {
    // ln 2 in two parts, the first short enough that its product with n is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const POLYNOMIAL: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let x = V::splat(EXP_RANGE.1).min(V::splat(EXP_RANGE.0).max(x));
    let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
    let r = x.sub(n.mul(V::splat(LN_2_HIGH))).sub(n.mul(V::splat(LN_2_LOW)));
    let mut p = V::splat(1.987_569_1e-4);
    for c in POLYNOMIAL {
        p = p.mul(r).add(V::splat(c));
    }
    let p = p.mul(r).mul(r).add(r).add(V::splat(1.0));
    p.mul(n.pow2())
}

/// x / (1 + e^-y): x times the logistic function of y.
#[inline(always)]
pub(crate) fn times_sigmoid<V: Vector>(x: V, y: V) -> V {
    let one = V::splat(1.0);
    x.div(one.add(exp(V::splat(0.0).sub(y))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::ops_scalar::Scalar;

    /// All instruction sets compute the same bits (`ops/tests.rs`), so one of them stands for all.
    #[test]
    fn the_exponential_keeps_its_error_bound() {
        let of = |x: f32| {
            let mut lanes = [0.0; LANES];
            exp(Scalar::splat(x)).store(&mut lanes);
            lanes[5]
        };
        for i in -873_300..=880_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).exp();
            let error = (f64::from(of(x)) - want).abs() / want;
            assert!(error < 2.4e-7, "e^{x}: relative error {error:e}");
        }
        assert_eq!(
            [of(0.0), of(-0.0), of(f32::NEG_INFINITY), of(-1e30)],
            [1.0, 1.0, of(-87.336_54), of(-88.0)]
        );
        assert_eq!([of(f32::INFINITY), of(1e30)], [of(88.0); 2]);
        assert!(of(f32::NAN).is_nan());
    }
}
