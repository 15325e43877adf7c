//! Tiles of 4- and 8-bit codes against the rows that they were made of, and against themselves in other batches.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests stand outside #[test] functions"
)]

use kernels::codec;
use kernels::int_tiles::{IntTiles, matmul_int_tiles};
use kernels::matmul::matmul;
use kernels::row::RowType;
use kernels::{ActivationForm, Activations, Arena, Matrix, Team};

const TYPES: [RowType; 4] = [RowType::Q4_0, RowType::Q4_1, RowType::Int4, RowType::Q8_0];

fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

fn rows_of(ty: RowType, rows: usize, cols: usize) -> Vec<u8> {
    let mut next = noise((rows * 31 + cols) as u64);
    let row_bytes = ty.row_bytes(cols).unwrap();
    let mut bytes = vec![0; row_bytes * rows];
    for row in bytes.chunks_exact_mut(row_bytes) {
        let values: Vec<f32> = (0..cols).map(|_| next()).collect();
        codec::quantize_row(ty, &values, row).unwrap();
    }
    bytes
}

fn skip(ty: RowType) -> bool {
    let skip = !IntTiles::takes(ty);
    if skip {
        println!("skipped: no kernels for tiles of {ty} in {}", kernels::isa().name());
    }
    skip
}

fn by_tiles(w: &[&IntTiles], x: &[f32], form: ActivationForm, threads: usize) -> Vec<Vec<f32>> {
    let cols = w[0].cols();
    let tokens = x.len() / cols;
    let mut input = Activations::default();
    input.load(x, tokens, cols);
    let mut outs: Vec<Vec<f32>> = w.iter().map(|w| vec![f32::NAN; tokens * w.rows()]).collect();
    let mut products: Vec<(&IntTiles, &mut [f32])> =
        w.iter().copied().zip(outs.iter_mut().map(|out| &mut out[..])).collect();
    matmul_int_tiles(&Team::new(threads), &mut input, form, &mut products).unwrap();
    outs
}

#[test]
fn every_type_and_shape_agrees_with_the_rows() {
    for ty in TYPES {
        if skip(ty) {
            return;
        }
        for cols in [32, 64, 96, 544, 576, 2560] {
            for rows in [1, 15, 16, 17, 33, 100] {
                let bytes = rows_of(ty, rows, cols);
                let w = Matrix::new(ty, rows, cols, &bytes).unwrap();
                let packed = IntTiles::pack(&w, 3, &mut Arena::default()).unwrap();
                for tokens in [1, 2, 3, 8, 13] {
                    let mut next = noise((cols + tokens) as u64);
                    let x: Vec<f32> = (0..tokens * cols).map(|_| next()).collect();
                    for form in [ActivationForm::Int8Block, ActivationForm::Int8Token] {
                        let mut input = Activations::default();
                        input.load(&x, tokens, cols);
                        let mut want = vec![f32::NAN; tokens * rows];
                        matmul(&Team::new(1), &w, &mut input, form, &mut want).unwrap();
                        let got = by_tiles(&[&packed], &x, form, 1 + tokens % 3).remove(0);
                        let size = (cols as f32).sqrt();
                        for (got, want) in got.iter().zip(&want) {
                            // The same integers, added in another order.
                            assert!(
                                (got - want).abs() <= 2e-6 * size,
                                "{ty} {rows}x{cols} {tokens}: {got} for {want}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn threads_batches_and_company_change_no_bit() {
    for ty in TYPES {
        if skip(ty) {
            return;
        }
        let cols = 160;
        let bytes: Vec<Vec<u8>> = [40, 23, 7, 64].iter().map(|&rows| rows_of(ty, rows, cols)).collect();
        let packed: Vec<IntTiles> = bytes
            .iter()
            .map(|b| Matrix::new(ty, b.len() / ty.row_bytes(cols).unwrap(), cols, b).unwrap())
            .map(|w| IntTiles::pack(&w, 2, &mut Arena::default()).unwrap())
            .collect();
        let mut next = noise(5);
        let x: Vec<f32> = (0..15 * cols).map(|_| next()).collect();
        let all: Vec<&IntTiles> = packed.iter().collect();
        let together = by_tiles(&all, &x, ActivationForm::Int8Block, 1);
        for threads in [2, 3, 5] {
            assert_eq!(by_tiles(&all, &x, ActivationForm::Int8Block, threads), together);
        }
        for (w, together) in all.iter().zip(&together) {
            let one_by_one: Vec<f32> = x
                .chunks(cols)
                .flat_map(|x| by_tiles(&[w], x, ActivationForm::Int8Block, 1).remove(0))
                .collect();
            assert_eq!(&one_by_one, together, "{ty}");
        }
    }
}

#[test]
fn rows_come_back_bit_for_bit() {
    for ty in TYPES {
        if skip(ty) {
            return;
        }
        let (rows, cols) = (21, 96);
        let bytes = rows_of(ty, rows, cols);
        let w = Matrix::new(ty, rows, cols, &bytes).unwrap();
        let packed = IntTiles::pack(&w, 1, &mut Arena::default()).unwrap();
        let (mut want, mut got) = (vec![0.0; cols], vec![0.0; cols]);
        for r in 0..rows {
            w.dequantize_row(r, &mut want).unwrap();
            packed.dequantize_row(r, &mut got).unwrap();
            assert_eq!(got, want, "{ty}");
        }
        assert!(packed.dequantize_row(rows, &mut got).is_err());
        assert_eq!(packed.find_not_finite(), None);
    }
}

#[test]
fn a_scale_that_is_not_a_number_is_found() {
    let ty = RowType::Q4_0;
    if skip(ty) {
        return;
    }
    let (rows, cols) = (40, 64);
    let mut bytes = rows_of(ty, rows, cols);
    let row_bytes = ty.row_bytes(cols).unwrap();
    bytes[33 * row_bytes + 18..][..2].copy_from_slice(&[0xff, 0x7f]);
    let packed =
        IntTiles::pack(&Matrix::new(ty, rows, cols, &bytes).unwrap(), 1, &mut Arena::default()).unwrap();
    assert_eq!(packed.find_not_finite(), Some(33));
}
