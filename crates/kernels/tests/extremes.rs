//! The largest sums that ternary rows can have, through every path from a stored row to the output: exact.
//!
//! All weights +1 or -1 and all activations +-127 is what random tests never show; sums kept in 16 bits wrap
//! from 259 weights on. Every instruction set's own loops are tested so inside the crate; here it is the one that
//! `EDGELLM_ISA` names, and CI names all.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

use kernels::codec::quantize_row;
use kernels::matmul::matmul;
use kernels::trits::{Family, Trits, matmul_trits};
use kernels::{ActivationForm, Activations, Arena, Matrix, RowType, Team};

/// All short rows, then the neighbours of powers of two.
fn lengths() -> impl Iterator<Item = usize> {
    let powers = (9..=14).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1]);
    (1..=300).chain(powers).filter(|&cols| cols <= 16384)
}

/// How the weights of a row follow each other, and the sum of a row of `cols` of them.
type Pattern = (fn(usize, usize) -> f32, fn(usize) -> f32);

const PATTERNS: [Pattern; 4] = [
    (|_, _| 1.0, |cols| cols as f32),
    (|_, _| -1.0, |cols| -(cols as f32)),
    // The sum rises to half of the extreme and falls again: a sum that saturates does not come back.
    (|i, cols| if i <= cols / 2 { 1.0 } else { -1.0 }, |cols| 2.0 - (cols % 2) as f32),
    (|i, _| if i % 2 == 0 { 1.0 } else { -1.0 }, |cols| (cols % 2) as f32),
];

/// A matrix whose rows are the patterns.
fn patterns(ty: RowType, cols: usize) -> Vec<u8> {
    let row_bytes = ty.row_bytes(cols).unwrap();
    let mut bytes = vec![0; row_bytes * PATTERNS.len()];
    for ((weight, _), bytes) in PATTERNS.iter().zip(bytes.chunks_exact_mut(row_bytes)) {
        let row: Vec<f32> = (0..cols).map(|i| weight(i, cols)).collect();
        quantize_row(ty, &row, bytes).unwrap();
    }
    bytes
}

#[test]
fn ternary_sums_are_exact_at_the_extremes() {
    let team = Team::new(1);
    for cols in lengths() {
        let tokens = [127.0, -127.0, 127.0, -127.0, 127.0];
        let x: Vec<f32> = tokens.iter().flat_map(|&activation| vec![activation; cols]).collect();
        let mut input = Activations::default();
        input.load(&x, tokens.len(), cols);
        for ty in [RowType::Ternary16, RowType::Ternary32, RowType::TQ1_0, RowType::TQ2_0] {
            if ty.row_bytes(cols).is_none() {
                continue;
            }
            let bytes = patterns(ty, cols);
            let w = Matrix::new(ty, PATTERNS.len(), cols, &bytes).unwrap();
            // Every scale is 1, and the sums are below 2^24: exact in f32 too.
            let want = tokens.map(|activation| PATTERNS.map(|(_, sum)| sum(cols) * activation));
            for family in [Family::Lookup, Family::Multiply] {
                let Some(packed) = Trits::pack(&w, family, 1, &mut Arena::default(), &|_| {}) else {
                    continue;
                };
                let mut out = [[f32::NAN; PATTERNS.len()]; 5];
                matmul_trits(&team, &mut input, &mut [(&packed, out.as_flattened_mut())]).unwrap();
                assert_eq!(out, want, "{ty} {cols} {family:?}");
            }
            for form in [ActivationForm::F32, ActivationForm::Int8Token, Matrix::integer_form(ty)] {
                let mut out = [[f32::NAN; PATTERNS.len()]; 5];
                matmul(&team, &w, &mut input, form, out.as_flattened_mut()).unwrap();
                assert_eq!(out, want, "{ty} {cols} {form:?}");
            }
        }
    }
}
