//! Tiles of 4- and 8-bit codes against the rows that they were made of, and against themselves in other batches.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests stand outside #[test] functions"
)]

mod noise;

use kernels::int_tiles::{IntTiles, matmul_int_tiles};
use kernels::matmul::matmul;
use kernels::row::RowType;
use kernels::{ActivationForm, Activations, Arena, Matrix, Team};
use noise::{noise, rows_of};

const TYPES: [RowType; 9] = [
    RowType::Q4_0,
    RowType::Q4_1,
    RowType::Int4,
    RowType::Q5_0,
    RowType::Q5_1,
    RowType::Q8_0,
    RowType::Q4_K,
    RowType::Q5_K,
    RowType::Q6_K,
];

fn rows_of_seed(ty: RowType, rows: usize, cols: usize) -> Vec<u8> {
    rows_of(ty, rows, cols, noise((rows * 31 + cols) as u64))
}

/// Whether rows of such a length are whole blocks.
fn fits(ty: RowType, cols: usize) -> bool {
    ty.row_bytes(cols).is_some()
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
        for cols in [32, 64, 96, 256, 544, 576, 768, 2560].into_iter().filter(|&cols| fits(ty, cols)) {
            for rows in [1, 15, 16, 17, 33, 100] {
                let bytes = rows_of_seed(ty, rows, cols);
                let w = Matrix::new(ty, rows, cols, &bytes).unwrap();
                let packed = IntTiles::pack(&w, 3, &mut Arena::default(), &|_| {}).unwrap();
                // Activations are at most 1.
                let mut row = vec![0.0; cols];
                let sizes: Vec<f32> = (0..rows)
                    .map(|r| {
                        w.dequantize_row(r, &mut row).unwrap();
                        row.iter().map(|w| w.abs()).sum()
                    })
                    .collect();
                for tokens in [1, 2, 3, 8, 13] {
                    let mut next = noise((cols + tokens) as u64);
                    let x: Vec<f32> = (0..tokens * cols).map(|_| next()).collect();
                    for form in [ActivationForm::Int8Block, ActivationForm::Int8Token] {
                        let mut input = Activations::default();
                        input.load(&x, tokens, cols);
                        let mut want = vec![f32::NAN; tokens * rows];
                        matmul(&Team::new(1), &w, &mut input, form, &mut want).unwrap();
                        let got = by_tiles(&[&packed], &x, form, 1 + tokens % 3).remove(0);
                        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                            // The same integers, added in another order.
                            let bound = 1e-6 * sizes[i % rows];
                            assert!(
                                (got - want).abs() <= bound,
                                "{ty} {rows}x{cols} {tokens}: {got} for {want}, {bound} allowed"
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
        let cols = if fits(ty, 160) { 160 } else { 512 };
        let bytes: Vec<Vec<u8>> = [40, 23, 7, 64].iter().map(|&rows| rows_of_seed(ty, rows, cols)).collect();
        let packed: Vec<IntTiles> = bytes
            .iter()
            .map(|b| Matrix::new(ty, b.len() / ty.row_bytes(cols).unwrap(), cols, b).unwrap())
            .map(|w| IntTiles::pack(&w, 2, &mut Arena::default(), &|_| {}).unwrap())
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
        let (rows, cols) = (21, if fits(ty, 96) { 96 } else { 512 });
        let bytes = rows_of_seed(ty, rows, cols);
        let w = Matrix::new(ty, rows, cols, &bytes).unwrap();
        let packed = IntTiles::pack(&w, 1, &mut Arena::default(), &|_| {}).unwrap();
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
    // Where the last factor of a block lies.
    for (ty, at) in [(RowType::Q4_0, 0), (RowType::Q4_1, 2), (RowType::Q4_K, 2), (RowType::Q6_K, 208)] {
        if skip(ty) {
            return;
        }
        let (rows, cols) = (40, 512);
        let mut bytes = rows_of_seed(ty, rows, cols);
        let at = 33 * ty.row_bytes(cols).unwrap() + ty.block().1 + at;
        bytes[at..][..2].copy_from_slice(&[0xff, 0x7f]);
        let w = Matrix::new(ty, rows, cols, &bytes).unwrap();
        let packed = IntTiles::pack(&w, 1, &mut Arena::default(), &|_| {}).unwrap();
        assert_eq!(packed.find_not_finite(), Some(33), "{ty}");
    }
}
