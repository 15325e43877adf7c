//! Ternary tiles against rows of the same codes: the sums are integers, so every bit is the same.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests stand outside #[test] functions"
)]

mod noise;

use kernels::codec::quantize_row;
use kernels::matmul::matmul;
use kernels::row::RowType;
use kernels::trits::{Family, Trits, matmul_trits};
use kernels::{ActivationForm, Activations, Arena, Matrix, Team};
use noise::noise;

const TY: RowType = RowType::Ternary32;

fn rows_of(rows: usize, cols: usize, next: impl FnMut() -> f32) -> Vec<u8> {
    noise::rows_of(TY, rows, cols, next)
}

fn skip() -> bool {
    let skip = !Trits::are_known();
    if skip {
        println!("skipped: no kernels for ternary tiles in {}", kernels::isa().name());
    }
    skip
}

fn by_rows(w: &Matrix<'_>, x: &[f32]) -> Vec<f32> {
    let tokens = x.len() / w.cols();
    let mut input = Activations::default();
    input.load(x, tokens, w.cols());
    let mut out = vec![f32::NAN; tokens * w.rows()];
    matmul(&Team::new(1), w, &mut input, ActivationForm::Int8Token, &mut out).unwrap();
    out
}

fn by_tiles(w: &[&Trits], x: &[f32], threads: usize) -> Vec<Vec<f32>> {
    let cols = w[0].cols();
    let tokens = x.len() / cols;
    let mut input = Activations::default();
    input.load(x, tokens, cols);
    let mut outs: Vec<Vec<f32>> = w.iter().map(|w| vec![f32::NAN; tokens * w.rows()]).collect();
    let mut products: Vec<(&Trits, &mut [f32])> =
        w.iter().copied().zip(outs.iter_mut().map(|o| &mut o[..])).collect();
    matmul_trits(&Team::new(threads), &mut input, &mut products).unwrap();
    outs
}

#[test]
fn every_shape_family_and_thread_count_equals_the_rows() {
    if skip() {
        return;
    }
    let cols = [1, 2, 3, 4, 5, 19, 20, 21, 40, 64, 67, 100, 239, 240, 241, 260, 576, 2560];
    for (i, cols) in cols.into_iter().enumerate() {
        for rows in [1, 31, 32, 33, 64, 127, 130, 161] {
            let bytes = rows_of(rows, cols, noise((rows * 31 + cols) as u64));
            let w = Matrix::new(TY, rows, cols, &bytes).unwrap();
            // Many tokens go another way; that takes long where instructions are emulated.
            let many: &[usize] = if rows == 33 { &[33, 52, 85] } else { &[] };
            for &tokens in [1, 2, 3, 7, 8, 13].iter().chain(many) {
                let mut next = noise((cols + tokens) as u64);
                let x: Vec<f32> = (0..tokens * cols).map(|_| next()).collect();
                let want = by_rows(&w, &x);
                for family in [Family::Auto, Family::Lookup, Family::Multiply] {
                    let threads = 1 + (i + tokens) % 3;
                    let packed = Trits::pack(&w, family, threads, &mut Arena::default(), &|_| {}).unwrap();
                    assert_eq!(
                        by_tiles(&[&packed], &x, threads)[0],
                        want,
                        "{rows}x{cols} {tokens} {family:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn several_matrices_in_one_job() {
    if skip() {
        return;
    }
    let cols = 172;
    let bytes: Vec<Vec<u8>> =
        [200, 40, 40, 7, 33].iter().map(|&rows| rows_of(rows, cols, noise(rows as u64))).collect();
    let matrices: Vec<Matrix<'_>> = bytes
        .iter()
        .map(|b| Matrix::new(TY, b.len() / TY.row_bytes(cols).unwrap(), cols, b).unwrap())
        .collect();
    let packed: Vec<Trits> = matrices
        .iter()
        .map(|m| Trits::pack(m, Family::Auto, 2, &mut Arena::default(), &|_| {}).unwrap())
        .collect();
    for tokens in [1, 5] {
        let mut next = noise(9);
        let x: Vec<f32> = (0..tokens * cols).map(|_| next()).collect();
        let want: Vec<Vec<f32>> = matrices.iter().map(|m| by_rows(m, &x)).collect();
        for threads in [1, 2, 5] {
            assert_eq!(by_tiles(&packed.iter().collect::<Vec<_>>(), &x, threads), want);
        }
    }
}

#[test]
fn sums_are_exact_at_the_extremes() {
    if skip() {
        return;
    }
    let lengths =
        (1..=300).chain([511, 512, 513, 1023, 1024, 2560, 4095, 4096, 4097, 6912, 8191, 16383, 16384]);
    for cols in lengths {
        for (weight, activation) in [(1.0, 127.0), (-1.0, 127.0), (1.0, -127.0), (-1.0, -127.0)] {
            let bytes = rows_of(1, cols, || weight);
            let w = Matrix::new(TY, 1, cols, &bytes).unwrap();
            for family in [Family::Lookup, Family::Multiply] {
                let packed = Trits::pack(&w, family, 1, &mut Arena::default(), &|_| {}).unwrap();
                let many: &[usize] = if cols % 240 < 2 || cols > 4096 { &[1, 32] } else { &[1] };
                for &tokens in many {
                    let out = by_tiles(&[&packed], &vec![activation; cols * tokens], 1);
                    let want = weight * activation * cols as f32;
                    assert!(out[0].iter().all(|&y| y == want), "{cols} {tokens} {family:?}");
                }
            }
        }
    }
}

#[test]
fn rows_come_back() {
    if skip() {
        return;
    }
    let (rows, cols) = (45, 73);
    let bytes = rows_of(rows, cols, noise(3));
    let w = Matrix::new(TY, rows, cols, &bytes).unwrap();
    let packed = Trits::pack(&w, Family::Auto, 1, &mut Arena::default(), &|_| {}).unwrap();
    let (mut want, mut got) = (vec![0.0; cols], vec![0.0; cols]);
    for r in 0..rows {
        w.dequantize_row(r, &mut want).unwrap();
        packed.dequantize_row(r, &mut got).unwrap();
        assert_eq!(got, want);
    }
    assert!(packed.dequantize_row(rows, &mut got).is_err());
    assert!(packed.dequantize_row(0, &mut got[1..]).is_err());
}

#[test]
fn codes_that_are_not_ternary_are_not_packed() {
    if skip() {
        return;
    }
    let mut bytes = rows_of(2, 8, noise(3));
    bytes[5] = 0b10; // stands for no weight
    let w = Matrix::new(TY, 2, 8, &bytes).unwrap();
    assert!(Trits::pack(&w, Family::Auto, 1, &mut Arena::default(), &|_| {}).is_none());
    let floats = vec![0; 4 * 8];
    assert!(
        Trits::pack(
            &Matrix::new(RowType::F32, 1, 8, &floats).unwrap(),
            Family::Auto,
            1,
            &mut Arena::default(),
            &|_| {}
        )
        .is_none()
    );
}

#[test]
fn blocks_with_the_scale_of_their_row_are_packed() {
    if skip() {
        return;
    }
    let (n_rows, cols) = (37, 512);
    let mut next = noise(11);
    let x: Vec<f32> = (0..3 * cols).map(|_| next()).collect();
    for ty in [RowType::TQ1_0, RowType::TQ2_0] {
        let mut bytes = vec![0; n_rows * ty.row_bytes(cols).unwrap()];
        for (r, row) in bytes.chunks_exact_mut(ty.row_bytes(cols).unwrap()).enumerate() {
            // The greatest weight of a block becomes its scale.
            let scale = (r + 1) as f32 / 16.0;
            let weights: Vec<f32> = (0..cols)
                .map(|c| if c % 256 == 0 { scale } else { (next() * 1.5).round() * scale })
                .collect();
            quantize_row(ty, &weights, row).unwrap();
        }
        let w = Matrix::new(ty, n_rows, cols, &bytes).unwrap();
        let packed = Trits::pack(&w, Family::Auto, 2, &mut Arena::default(), &|_| {}).unwrap();
        // By rows each block's sum is rounded by itself.
        let (tiles, rows) = (by_tiles(&[&packed], &x, 2), by_rows(&w, &x));
        let most = rows.iter().fold(0.0f32, |most, y| most.max(y.abs()));
        for (tile, row) in tiles[0].iter().zip(&rows) {
            assert!((tile - row).abs() <= 1e-5 * most, "{ty}: {tile} for {row}");
        }

        let end = bytes.len();
        bytes[end - 1] ^= 4;
        let w = Matrix::new(ty, n_rows, cols, &bytes).unwrap();
        assert!(!Trits::takes(&w) && Trits::bytes_for(&w).is_none(), "{ty}: two scales");
        assert!(Trits::pack(&w, Family::Auto, 2, &mut Arena::default(), &|_| {}).is_none());
    }
}
