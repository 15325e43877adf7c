//! Plain Rust, for every machine.

use crate::activations::BLOCK;
use crate::codec;
use crate::dispatch::{BlockInput, BlockRow, Isa, Kernels};

pub(crate) static KERNELS: Kernels = Kernels {
    isa: Isa::Scalar,
    unpack_row: codec::unpack_checked,
    dequantize_row: codec::dequantize_checked,
    gemm_int8_block,
    gemm_ternary,
    trits: None,
    int_tiles: None,
};

/// Independent sums of a dot product: enough for the compiler to use vectors of any baseline.
const LANES: usize = 8;

/// `a . b` in f32 with eight interleaved sums.
pub(crate) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a8, a_tail) = a.as_chunks::<LANES>();
    let (b8, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a8.iter().zip(b8) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + tail
}

fn gemm_int8_block(row: &BlockRow<'_>, input: &BlockInput<'_>, out: &mut [f32]) {
    let cols = row.q.len();
    let blocks = cols / BLOCK;
    for (t, out) in out.iter_mut().enumerate() {
        let mut sum = 0.0;
        for b in 0..blocks {
            let w = &row.q[b * BLOCK..][..BLOCK];
            let x = &input.q[t * cols + b * BLOCK..][..BLOCK];
            let low = dot_i8(&w[..16], &x[..16]) as f32 * row.scale16[2 * b];
            let high = dot_i8(&w[16..], &x[16..]) as f32 * row.scale16[2 * b + 1];
            sum += (low + high) * input.scale[t * blocks + b];
        }
        if !row.offset.is_empty() {
            let groups = row.offset.len();
            sum += dot_f32(row.offset, &input.sums[t * groups..][..groups]);
        }
        *out = sum;
    }
}

fn gemm_ternary(row: &[i8], xs: &[i8], out: &mut [i32]) {
    for (x, out) in xs.chunks_exact(row.len()).zip(out) {
        *out = dot_i8(row, x);
    }
}

pub(crate) fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}
