//! Speed of matrix products as the engine calls them, by row type and shape: `cargo bench -p kernels --features bench --bench products`
//! (with `EDGELLM_ISA=avx2` or another for what other processors get). Types that have tiles are packed into them.
//!
//! One thread. `decode`: a token against a matrix that is larger than the caches, which is bound by memory. `prefill`: 64
//! tokens, which is bound by arithmetic.
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use kernels::int_tiles::{IntTiles, matmul_int_tiles};
use kernels::matmul::matmul;
use kernels::trits::{Family, Trits, matmul_trits};
use kernels::{Activations, Arena, Matrix, RowType, Team};

fn main() {
    divan::main();
}

/// Bytes without order, but finite scales and valid codes.
fn data(ty: RowType, rows: usize, cols: usize) -> Vec<u8> {
    let mut state = 1u32;
    let bytes = (0..rows * ty.row_bytes(cols).unwrap()).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0x15
    });
    bytes.collect()
}

/// What the engine multiplies with by default.
const TYPES: [RowType; 12] = [
    RowType::F32,
    RowType::F16,
    RowType::BF16,
    RowType::Q4_0,
    RowType::Q4_1,
    RowType::Q5_0,
    RowType::Q4_K,
    RowType::Q5_K,
    RowType::Q6_K,
    RowType::Q8_0,
    RowType::Int4,
    RowType::Ternary32,
];

#[divan::bench(args = TYPES, sample_count = 10)]
fn decode(bencher: Bencher<'_, '_>, ty: RowType) {
    product(bencher, ty, (64 << 20) / ty.row_bytes(2048).unwrap(), 2048, 1, Family::Auto);
}

#[divan::bench(args = [Family::Lookup, Family::Multiply, Family::Reference], sample_count = 10)]
fn decode_ternary(bencher: Bencher<'_, '_>, family: Family) {
    product(bencher, RowType::Ternary32, 1 << 16, 2560, 1, family);
}

#[divan::bench(args = [Family::Lookup, Family::Multiply, Family::Reference], sample_count = 20)]
fn prefill_ternary(bencher: Bencher<'_, '_>, family: Family) {
    product(bencher, RowType::Ternary32, 768, 768, 64, family);
}

/// A prompt of the BitNet 2B model.
#[divan::bench(args = [Family::Lookup, Family::Multiply], sample_count = 10)]
fn prefill_ternary_2b(bencher: Bencher<'_, '_>, family: Family) {
    product(bencher, RowType::Ternary32, 6912, 2560, 128, family);
}

/// Tokens of several sequences, one of each.
#[divan::bench(args = [Family::Lookup, Family::Multiply], consts = [2, 4, 8, 16], sample_count = 20)]
fn batch_ternary<const TOKENS: usize>(bencher: Bencher<'_, '_>, family: Family) {
    product(bencher, RowType::Ternary32, 1 << 12, 2560, TOKENS, family);
}

#[divan::bench(args = [RowType::Q4_0, RowType::Q4_1, RowType::Q6_K], sample_count = 20)]
fn batch_of_8(bencher: Bencher<'_, '_>, ty: RowType) {
    product(bencher, ty, 1 << 13, 2560, 8, Family::Auto);
}

#[divan::bench(args = TYPES, sample_count = 20)]
fn prefill(bencher: Bencher<'_, '_>, ty: RowType) {
    product(bencher, ty, 768, 768, 64, Family::Auto);
}

#[divan::bench(args = TYPES, sample_count = 10)]
fn prefill_long_rows(bencher: Bencher<'_, '_>, ty: RowType) {
    product(bencher, ty, 256, 8192, 64, Family::Auto);
}

fn product(bencher: Bencher<'_, '_>, ty: RowType, rows: usize, cols: usize, tokens: usize, family: Family) {
    let data = data(ty, rows, cols);
    let matrix = Matrix::new(ty, rows, cols, &data).unwrap();
    let (mut arena, rows_kept) = (Arena::default(), family == Family::Reference);
    let trits = Trits::pack(&matrix, family, 2, &mut arena, &|_| {}).filter(|_| !rows_kept);
    let ints = IntTiles::pack(&matrix, 2, &mut arena, &|_| {}).filter(|_| !rows_kept);
    let x: Vec<f32> = (0..tokens * cols).map(|i| (i % 101) as f32 / 50.0 - 1.0).collect();
    let form = Matrix::integer_form(ty);
    let mut input = Activations::default();
    let (team, mut out) = (Team::new(1), vec![0.0; tokens * rows]);
    let bencher = bencher.counter(BytesCount::new(data.len())).counter(ItemsCount::new(rows * cols * tokens));
    bencher.bench_local(|| {
        input.load(black_box(&x), tokens, cols);
        match (&trits, &ints) {
            (Some(trits), _) => matmul_trits(&team, &mut input, &mut [(trits, &mut out)]).unwrap(),
            (_, Some(ints)) => matmul_int_tiles(&team, &mut input, form, &mut [(ints, &mut out)]).unwrap(),
            _ => matmul(&team, &matrix, &mut input, form, &mut out).unwrap(),
        }
        black_box(&out);
    });
}
