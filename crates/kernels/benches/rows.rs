//! Speed of the row types: `cargo bench -p kernels --features bench --bench rows` (with `EDGELLM_ISA=scalar` for plain Rust).
//!
//! A matrix of 256 rows of 1536 weights lies in the second-level cache: what the loops cost, not what memory
//! does. One thread, one token, which is how a model answers.
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use kernels::codec::{UnpackedRow, unpack_row};
use kernels::matmul::matmul;
use kernels::{ActivationForm, Activations, Matrix, RowType, Team};

const ROWS: usize = 256;
const COLS: usize = 1536;

fn main() {
    divan::main();
}

/// Bytes without order, but finite scales and valid codes.
fn data(ty: RowType) -> Vec<u8> {
    let mut state = 1u32;
    let bytes = (0..ROWS * ty.row_bytes(COLS).unwrap()).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0x15
    });
    bytes.collect()
}

/// Only unpacking, in plain Rust.
#[divan::bench(args = RowType::ALL.into_iter().filter(|ty| !ty.is_float()))]
fn unpack_row_scalar(bencher: Bencher<'_, '_>, ty: RowType) {
    let data = data(ty);
    let mut out = UnpackedRow::default();
    let row_bytes = ty.row_bytes(COLS).unwrap();
    bencher.counter(BytesCount::new(data.len())).counter(ItemsCount::new(ROWS * COLS)).bench_local(|| {
        for row in black_box(&data).chunks_exact(row_bytes) {
            unpack_row(ty, row, COLS, black_box(&mut out)).unwrap();
        }
    });
}

#[divan::bench(args = RowType::ALL)]
fn dequantize(bencher: Bencher<'_, '_>, ty: RowType) {
    let data = data(ty);
    let matrix = Matrix::new(ty, ROWS, COLS, &data).unwrap();
    let mut out = vec![0.0; COLS];
    bencher.counter(BytesCount::new(data.len())).counter(ItemsCount::new(ROWS * COLS)).bench_local(|| {
        for r in 0..ROWS {
            matrix.dequantize_row(r, black_box(&mut out)).unwrap();
        }
    });
}

#[divan::bench(args = RowType::ALL)]
fn matmul_f32(bencher: Bencher<'_, '_>, ty: RowType) {
    bench_matmul(bencher, ty, ActivationForm::F32);
}

#[divan::bench(args = RowType::ALL.into_iter().filter(|ty| !ty.is_float()))]
fn matmul_int8(bencher: Bencher<'_, '_>, ty: RowType) {
    bench_matmul(bencher, ty, Matrix::integer_form(ty));
}

fn bench_matmul(bencher: Bencher<'_, '_>, ty: RowType, form: ActivationForm) {
    let data = data(ty);
    let matrix = Matrix::new(ty, ROWS, COLS, &data).unwrap();
    let x: Vec<f32> = (0..COLS).map(|i| (i % 101) as f32 / 50.0 - 1.0).collect();
    let mut input = Activations::default();
    input.load(&x, 1, COLS);
    let (team, mut out) = (Team::new(1), vec![0.0; ROWS]);
    bencher.counter(BytesCount::new(data.len())).counter(ItemsCount::new(ROWS * COLS)).bench_local(|| {
        matmul(&team, black_box(&matrix), &mut input, form, black_box(&mut out)).unwrap();
    });
}
