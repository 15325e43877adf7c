//! Every function of every table that this processor can run, against the plainest form of the same sum, over
//! shapes that hit and miss each vector width and tile.

use crate::activations::{ActivationForm, Activations, BLOCK};
use crate::arch::vector_ops::VectorOps;
use crate::dispatch::{BlockInput, BlockRow, Kernels, available, available_vector_ops};
use crate::float_rows::{FloatRows, Floats};
use crate::matmul::Columns;

/// Lengths around every vector's, and those of real models.
fn lengths() -> impl Iterator<Item = usize> {
    (1..=67).chain([127, 128, 129, 255, 256, 257, 576, 2560, 6912])
}

/// Tokens that fill tiles, and that do not.
const TOKENS: [usize; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 33];

/// A sequence without order (xorshift64).
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// `n` numbers in -1..1.
    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }

    /// `n` integers in `-limit..=limit`.
    fn bytes(&mut self, n: usize, limit: u64) -> Vec<i8> {
        (0..n).map(|_| (((self.bits() >> 20) % (2 * limit + 1)) as i32 - limit as i32) as i8).collect()
    }
}

fn noise() -> Noise {
    Noise(0x9e37_79b9_7f4a_7c15)
}

/// Asserts that `got` is `want` but for the rounding of `terms` additions of products whose magnitudes sum up to
/// `size`: each rounds by at most 2^-24 of the sum so far.
fn assert_near(got: f32, want: f64, size: f64, terms: usize, what: &str) {
    let bound = size * (terms as f64 + 4.0) * f64::from(f32::EPSILON) / 2.0;
    let error = (f64::from(got) - want).abs();
    assert!(error <= bound, "{what}: {got} for {want}, {error} off, {bound} allowed");
}

/// `a . b`, and the sum of the products' magnitudes.
fn dot(a: &[f32], b: impl Iterator<Item = f32>) -> (f64, f64) {
    let products = a.iter().zip(b).map(|(&a, b)| f64::from(a) * f64::from(b));
    products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()))
}

/// Rows of each floating-point type against the sum of products, and against each token alone.
fn check_floats(ops: &VectorOps, n: usize, cols: usize, tokens: usize) {
    let mut noise = noise();
    let (rows, xs) = (noise.floats(n * cols), noise.floats(tokens * cols));
    let halves: Vec<u16> = rows.iter().map(|&x| half::f16::from_f32(x).to_bits()).collect();
    let brains: Vec<u16> = rows.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect();
    let of_halves: Vec<f32> = halves.iter().map(|&x| half::f16::from_bits(x).to_f32()).collect();
    let of_brains: Vec<f32> = brains.iter().map(|&x| half::bf16::from_bits(x).to_f32()).collect();
    let all = [
        (Floats::F32(&rows), &rows),
        (Floats::F16(&halves), &of_halves),
        (Floats::BF16(&brains), &of_brains),
    ];
    for (i, (floats, values)) in all.into_iter().enumerate() {
        let w = FloatRows { rows: floats, cols, first: 0 };
        let multiply = |xs: &[f32]| {
            let mut out = vec![f32::NAN; n * xs.len() / cols];
            let columns = Columns::new(&mut out, n, xs.len() / cols);
            // SAFETY: `available_vector_ops` gives only what this processor can run, and there is one thread.
            unsafe { (ops.multiply_floats)(&w, xs, &columns) };
            out
        };
        let out = multiply(&xs);
        for (t, x) in xs.chunks(cols).enumerate() {
            let what =
                |r| format!("{} type {i}, {n} x {cols}, token {t} of {tokens}, row {r}", ops.isa.name());
            for (r, (&got, row)) in out[t * n..].iter().zip(values.chunks(cols)).enumerate() {
                let (want, size) = dot(row, x.iter().copied());
                assert_near(got, want, size, cols, &what(r));
            }
            assert_eq!(multiply(x), out[t * n..][..n], "{}", what(0));
        }
    }
}

#[test]
fn floats_are_multiplied_alike_in_every_batch() {
    for ops in available_vector_ops() {
        for cols in lengths() {
            for (n, tokens) in [(1, 1), (5, 3), (6, 9)] {
                check_floats(ops, n, cols, tokens);
            }
        }
        for n in 1..=13 {
            for tokens in TOKENS {
                check_floats(ops, n, 13, tokens);
                check_floats(ops, n, 33, tokens);
            }
        }
    }
}

#[test]
fn gemm_ternary_is_exact() {
    for kernels in available() {
        for cols in lengths() {
            for tokens in TOKENS {
                let mut noise = noise();
                let (row, xs) = (noise.bytes(cols, 1), noise.bytes(tokens * cols, 127));
                let mut out = vec![i32::MIN; tokens];
                // SAFETY: `available` gives only what this processor can run.
                unsafe { (kernels.gemm_ternary)(&row, &xs, &mut out) };
                for (x, &got) in xs.chunks(cols).zip(&out) {
                    let want: i32 = row.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
                    assert_eq!(got, want, "{} {cols}, {tokens} tokens", kernels.isa.name());
                }
            }
        }
    }
}

/// Activations as the matrix products see them.
fn int8_input(tokens: usize, cols: usize) -> Activations {
    let mut input = Activations::default();
    input.load(&noise().floats(tokens * cols), tokens, cols);
    input.ensure(ActivationForm::Int8Block);
    input
}

fn check_int8_block(kernels: &Kernels, cols: usize, tokens: usize, groups: usize) {
    let mut noise = noise();
    let q = noise.bytes(cols, 127);
    let (scale16, offset) = (noise.floats(cols / 16), noise.floats(groups));
    let input = int8_input(tokens, cols);
    let x = input.int8(ActivationForm::Int8Block);
    let sums = if groups == cols / 16 { &x.sum16 } else { &x.sum32 };
    let row = BlockRow { q: &q, scale16: &scale16, offset: &offset };
    let mut out = vec![f32::NAN; tokens];
    let block_input = BlockInput { q: &x.q, scale: &x.scale, sums };
    // SAFETY: `available` gives only what this processor can run.
    unsafe { (kernels.gemm_int8_block)(&row, &block_input, &mut out) };
    for (t, &got) in out.iter().enumerate() {
        let (mut want, mut size) = (0.0, 0.0);
        for i in 0..cols {
            let scale = f64::from(scale16[i / 16]) * f64::from(x.scale[(t * cols + i) / BLOCK]);
            let product = f64::from(q[i]) * f64::from(x.q[t * cols + i]) * scale;
            want += product;
            size += product.abs();
        }
        if groups > 0 {
            let (offsets, offsets_size) = dot(&offset, sums[t * groups..].iter().copied());
            want += offsets;
            size += offsets_size;
        }
        let what = format!("{} {cols}, {tokens} tokens, {groups} groups, [{t}]", kernels.isa.name());
        assert_near(got, want, size, cols, &what);
    }
}

#[test]
fn gemm_int8_block_is_the_sum_of_products() {
    for kernels in available() {
        for cols in (1..=9).map(|blocks| blocks * BLOCK).chain([576, 2560, 6912]) {
            for tokens in TOKENS {
                for groups in [0, cols / 32, cols / 16] {
                    check_int8_block(kernels, cols, tokens, groups);
                }
            }
        }
    }
}

#[test]
fn every_f16_is_widened_to_its_value() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let bytes: Vec<u8> = all.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    for kernels in available() {
        let mut out = vec![0.0; all.len()];
        // SAFETY: `available` gives only what this processor can run.
        unsafe { (kernels.dequantize_row)(crate::RowType::F16, &bytes, &mut out) };
        for (&bits, got) in all.iter().zip(out) {
            let want = half::f16::from_bits(bits).to_f32_const();
            let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(same, "{} {bits:#06x}: {got} for {want}", kernels.isa.name());
        }
    }
}

/// The largest sums that there are, whole and in halves that cancel out: a sum in 16 bits would wrap.
#[test]
fn ternary_sums_are_exact_at_the_extremes() {
    let powers = (9..=14).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1]);
    for cols in (1..=300).chain(powers) {
        for (weight, activation) in [(1, 127), (-1, 127), (1, -127), (-1, -127)] {
            let mut row = vec![weight; cols];
            let xs = vec![activation; 5 * cols];
            for kernels in available() {
                let mut out = [i32::MIN; 5];
                // SAFETY: `available` gives only what this processor can run.
                unsafe { (kernels.gemm_ternary)(&row, &xs, &mut out) };
                let want = i32::from(weight) * i32::from(activation) * cols as i32;
                assert_eq!(out, [want; 5], "{} {cols}", kernels.isa.name());
            }
            row[cols / 2..].fill(-weight);
            for kernels in available() {
                let mut out = [i32::MIN; 5];
                // SAFETY: as above.
                unsafe { (kernels.gemm_ternary)(&row, &xs, &mut out) };
                let want = if cols % 2 == 0 { 0 } else { -i32::from(weight) * i32::from(activation) };
                assert_eq!(out, [want; 5], "{} {cols}, halves", kernels.isa.name());
            }
        }
    }
}
