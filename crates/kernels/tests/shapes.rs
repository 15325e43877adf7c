//! Every way through which integers are multiplied, over shapes that fill vectors, blocks and tiles and that do not,
//! against sums in plain i32 and f64. `EDGELLM_ISA` chooses the instruction set; CI names each.
//!
//! Activations are whole numbers with 127 in each block of 32, so that their int8 form is they themselves.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

use kernels::codec::{dequantize_row, quantize_row};
use kernels::int_tiles::{IntTiles, matmul_int_tiles};
use kernels::matmul::matmul;
use kernels::trits::{Family, Trits, matmul_trits};
use kernels::{ActivationForm, Activations, Arena, Matrix, RowType, Team};

/// Rows, columns, tokens.
fn shapes() -> Vec<(usize, usize, usize)> {
    let tokens = || (1..=9).chain([33]);
    let mut shapes: Vec<_> = (1..=67).flat_map(|cols| [(1, cols, 1), (5, cols, 3), (33, cols, 2)]).collect();
    shapes.extend((1..=35).flat_map(|rows| tokens().map(move |tokens| (rows, 45, tokens))));
    shapes.extend([576, 2560, 6912].into_iter().flat_map(|cols| [(33, cols, 1), (3, cols, 9)]));
    shapes
}

/// A sequence without order (xorshift64).
struct Noise(u64);

impl Noise {
    fn below(&mut self, n: u64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 20) % n) as i64
    }

    /// Whole numbers in -127..=127, 127 among each 32 of a token.
    fn activations(&mut self, tokens: usize, cols: usize) -> Vec<f32> {
        let value = |i: usize| if (i % cols).is_multiple_of(32) { 127 } else { self.below(255) - 127 };
        (0..tokens * cols).map(value).map(|x| x as f32).collect()
    }
}

fn matrix(ty: RowType, rows: usize, cols: usize, mut weight: impl FnMut() -> f32) -> Vec<u8> {
    let row_bytes = ty.row_bytes(cols).unwrap();
    let mut bytes = vec![0; rows * row_bytes];
    for row in bytes.chunks_exact_mut(row_bytes) {
        let weights: Vec<f32> = (0..cols).map(|_| weight()).collect();
        quantize_row(ty, &weights, row).unwrap();
    }
    bytes
}

/// The weights, `[rows, cols]`.
fn decode(ty: RowType, bytes: &[u8], cols: usize) -> Vec<f32> {
    let rows = bytes.chunks(ty.row_bytes(cols).unwrap());
    let mut weights = vec![0.0; rows.len() * cols];
    for (row, weights) in rows.zip(weights.chunks_mut(cols)) {
        dequantize_row(ty, row, weights).unwrap();
    }
    weights
}

fn load(x: &[f32], cols: usize) -> Activations {
    let mut input = Activations::default();
    input.load(x, x.len() / cols, cols);
    input
}

#[test]
fn ternary_products_are_exact_in_every_shape() {
    let team = Team::new(1);
    for (rows, cols, tokens) in shapes() {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let ty = RowType::Ternary32;
        let bytes = matrix(ty, rows, cols, || (noise.below(3) - 1) as f32);
        let w = Matrix::new(ty, rows, cols, &bytes).unwrap();
        let x = noise.activations(tokens, cols);
        let decoded = decode(ty, &bytes, cols);
        let sum = |w: &[f32], x: &[f32]| -> i32 { w.iter().zip(x).map(|(&w, &x)| w as i32 * x as i32).sum() };
        let of_token = |x| decoded.chunks(cols).map(move |w| sum(w, x) as f32);
        let want: Vec<f32> = x.chunks(cols).flat_map(of_token).collect();
        let mut out = vec![f32::NAN; want.len()];
        matmul(&team, &w, &mut load(&x, cols), ActivationForm::Int8Token, &mut out).unwrap();
        assert_eq!(out, want, "{rows} x {cols}, {tokens} tokens, rows");
        for family in [Family::Lookup, Family::Multiply] {
            let Some(packed) = Trits::pack(&w, family, 1, &mut Arena::default(), &|_| {}) else { continue };
            out.fill(f32::NAN);
            matmul_trits(&team, &mut load(&x, cols), &mut [(&packed, &mut out)]).unwrap();
            assert_eq!(out, want, "{rows} x {cols}, {tokens} tokens, {family:?}");
        }
    }
}

#[test]
fn products_of_blocks_are_rounded_sums_in_every_shape() {
    let team = Team::new(1);
    for ty in [RowType::Q8_0, RowType::Q4_0, RowType::Q4_1, RowType::Int4, RowType::Int8] {
        // Columns come by the block.
        for (rows, cols, tokens) in shapes().into_iter().filter(|shape| shape.1 <= 8 || shape.1 >= 45) {
            let cols = if cols <= 8 { cols * 32 } else { cols.next_multiple_of(32) };
            let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
            let bytes = matrix(ty, rows, cols, || noise.below(2001) as f32 / 1000.0 - 1.0);
            let w = Matrix::new(ty, rows, cols, &bytes).unwrap();
            let x = noise.activations(tokens, cols);
            let mut ways = vec![vec![f32::NAN; tokens * rows]];
            matmul(&team, &w, &mut load(&x, cols), ActivationForm::Int8Block, &mut ways[0]).unwrap();
            if let Some(packed) = IntTiles::pack(&w, 1, &mut Arena::default(), &|_| {}) {
                let mut out = vec![f32::NAN; tokens * rows];
                let products = &mut [(&packed, &mut out[..])];
                matmul_int_tiles(&team, &mut load(&x, cols), ActivationForm::Int8Block, products).unwrap();
                ways.push(out);
            }
            for (r, weights) in decode(ty, &bytes, cols).chunks(cols).enumerate() {
                for (t, x) in x.chunks(cols).enumerate() {
                    let products = weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                    let (want, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                    // A few roundings in each block. With an offset, what is summed up is larger than its sum: code *
                    // scale and offset apart, by about four times.
                    let terms = 4.0 * (cols as f64 / 32.0 + 8.0);
                    for out in &ways {
                        let error = (f64::from(out[t * rows + r]) - want).abs();
                        let bound = size * terms * f64::from(f32::EPSILON);
                        assert!(error <= bound, "{ty} {rows} x {cols}, {tokens} tokens: {error} of {size}");
                    }
                }
            }
        }
    }
}
