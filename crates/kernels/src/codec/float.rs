//! Half precision to single and back, and rows of floats.

use half::{bf16, f16};

/// An f16's value. Exact; written so that LLVM can vectorize it, where `half`'s own conversion asks the CPU
/// for its features at each call, and so that subnormal numbers cost no more than others.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // f32's exponent bias is 112 more than f16's; infinity and NaN go from exponent 31 to 255.
    let rebias = if magnitude >= 31 << 23 { 224 << 23 } else { 112 << 23 };
    let normal = magnitude + rebias;
    // Exponent 0: the mantissa counts units of 2^-24. With the exponent of 2^-14 it has an implicit 1 too many.
    let subnormal = f32::from_bits(magnitude + (113 << 23)) - f32::from_bits(113 << 23);
    let value = if magnitude < 1 << 23 { subnormal.to_bits() } else { normal };
    f32::from_bits(value | u32::from(bits & 0x8000) << 16)
}

#[inline(always)]
pub(super) fn f16_from_le_bytes(bytes: [u8; 2]) -> f32 {
    f16_to_f32(u16::from_le_bytes(bytes))
}

/// Rounded to nearest, ties to even.
pub(super) fn f16_to_le_bytes(value: f32) -> [u8; 2] {
    f16::from_f32(value).to_le_bytes()
}

/// Rounded to nearest, ties to even; a NaN stays a NaN.
pub(super) fn bf16_to_le_bytes(value: f32) -> [u8; 2] {
    bf16::from_f32(value).to_le_bytes()
}

#[inline(always)]
pub(super) fn decode_f32(bytes: &[u8], out: &mut [f32]) {
    for (&bytes, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = f32::from_le_bytes(bytes);
    }
}

#[inline(always)]
pub(super) fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    for (&bytes, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = f16_from_le_bytes(bytes);
    }
}

#[inline(always)]
pub(super) fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
    for (&bytes, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16);
    }
}

pub(super) fn encode<const N: usize>(row: &[f32], out: &mut [u8], bytes: impl Fn(f32) -> [u8; N]) {
    for (&value, out) in row.iter().zip(out.as_chunks_mut().0) {
        *out = bytes(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_has_the_value_that_half_gives_it() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(bits), f16::from_bits(bits).to_f32_const());
            let same = ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan();
            assert!(same, "{bits:#06x}: {ours} and {theirs}");
        }
    }
}
