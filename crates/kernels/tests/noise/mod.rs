//! Numbers without order, and rows of weights made of them.

#![allow(clippy::unwrap_used, dead_code, reason = "helpers of tests; not each test uses all of them")]

use half::f16;
use kernels::codec;
use kernels::row::RowType;

/// Numbers in -1..1 (xorshift64), the same for the same seed.
pub(crate) fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// `rows` rows of `cols` weights: numbers from `next` quantized, or, for types that are only read, blocks whose bytes are
/// made of them and whose factors are small.
pub(crate) fn rows_of(ty: RowType, rows: usize, cols: usize, mut next: impl FnMut() -> f32) -> Vec<u8> {
    let row_bytes = ty.row_bytes(cols).unwrap();
    let mut bytes = vec![0; row_bytes * rows];
    for row in bytes.chunks_exact_mut(row_bytes) {
        if ty.is_writable() {
            let values: Vec<f32> = (0..cols).map(|_| next()).collect();
            codec::quantize_row(ty, &values, row).unwrap();
            continue;
        }
        for block in row.chunks_exact_mut(ty.block().1) {
            block.fill_with(|| (next() * 128.0) as i32 as u8);
            for &at in factors(ty) {
                let factor = f16::from_f32(next() * 0.01 + 0.02);
                block[at..at + 2].copy_from_slice(&factor.to_le_bytes());
            }
        }
    }
    bytes
}

/// Where the f16 numbers of a block lie.
fn factors(ty: RowType) -> &'static [usize] {
    match ty {
        RowType::Q5_1 | RowType::Q4_K | RowType::Q5_K => &[0, 2],
        RowType::Q2_K => &[80, 82],
        RowType::Q3_K => &[108],
        RowType::Q6_K => &[208],
        RowType::MXFP4 => &[],
        _ => &[0],
    }
}
