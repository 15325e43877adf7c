//! Every row type, form of activations, shape and thread count against the reference. `EDGELLM_ISA` chooses
//! the instruction set that is tested; CI runs this once with the best and once with `scalar`.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod noise;

use kernels::row::RowType;
use kernels::{ActivationForm, Activations, Matrix, Team, matmul::matmul, reference};
use noise::{noise, rows_of};

/// Relative to the size of the sums: f32 rounding over a row.
const F32_TOLERANCE: f32 = 2e-5;
/// int8 activations with a scale per 32: half a step of 1/127 of the block's maximum in each of them.
const INT8_TOLERANCE: f32 = 0.02;

/// Types that we can write, with lengths of rows that they take.
fn cases() -> Vec<(RowType, Vec<usize>)> {
    let any = vec![1, 2, 7, 8, 31, 32, 33, 64, 100, 172, 576];
    let blocks = vec![32, 64, 96, 544, 576];
    vec![
        (RowType::F32, any.clone()),
        (RowType::F16, any.clone()),
        (RowType::BF16, any.clone()),
        (RowType::Q8_0, blocks.clone()),
        (RowType::Q4_0, blocks.clone()),
        (RowType::Q4_1, blocks.clone()),
        (RowType::Int4, blocks.clone()),
        (RowType::Int8, blocks),
        (RowType::TQ1_0, vec![256, 768]),
        (RowType::TQ2_0, vec![256, 768]),
        (RowType::Ternary16, any.clone()),
        (RowType::Ternary32, any.clone()),
        (RowType::TG1, any.clone()),
        (RowType::TG2, any.clone()),
        (RowType::BG1, any),
    ]
}

fn weights(ty: RowType, rows: usize, cols: usize) -> Vec<u8> {
    rows_of(ty, rows, cols, noise((rows * 31 + cols) as u64))
}

fn run(threads: usize, w: &Matrix<'_>, x: &[f32], form: ActivationForm) -> Vec<f32> {
    let tokens = x.len() / w.cols();
    let mut input = Activations::default();
    input.load(x, tokens, w.cols());
    let mut out = vec![f32::NAN; tokens * w.rows()];
    matmul(&Team::new(threads), w, &mut input, form, &mut out).unwrap();
    out
}

#[test]
fn every_type_and_shape_agrees_with_the_reference() {
    for (ty, lengths) in cases() {
        for cols in lengths {
            for (rows, tokens) in [(1, 1), (5, 1), (9, 3), (4, 6)] {
                let bytes = weights(ty, rows, cols);
                let w = Matrix::new(ty, rows, cols, &bytes).unwrap();
                let mut next = noise(cols as u64);
                let x: Vec<f32> = (0..tokens * cols).map(|_| next()).collect();
                let expected = reference::matmul(ty, &bytes, rows, cols, &x).unwrap();
                let size = (cols as f32).sqrt();
                for (form, tolerance) in
                    [(ActivationForm::F32, F32_TOLERANCE), (Matrix::integer_form(ty), INT8_TOLERANCE)]
                {
                    let tolerance = if form == ActivationForm::F32 { F32_TOLERANCE } else { tolerance };
                    for (got, want) in run(1, &w, &x, form).iter().zip(&expected) {
                        let error = (got - want).abs() / size;
                        assert!(error <= tolerance, "{ty} {rows}x{cols} {form:?}: {got} for {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn ternary_sums_are_exact_at_the_extremes() {
    for cols in [1, 3, 4, 31, 32, 33, 63, 255, 256, 1000, 6912, 16384] {
        for (weight, activation) in [(1.0, 127.0), (-1.0, 127.0), (1.0, -127.0), (-1.0, -127.0)] {
            let ty = RowType::Ternary32;
            let mut bytes = vec![0; ty.row_bytes(cols).unwrap()];
            kernels::codec::quantize_row(ty, &vec![weight; cols], &mut bytes).unwrap();
            let w = Matrix::new(ty, 1, cols, &bytes).unwrap();
            let x: Vec<f32> = vec![activation; cols];
            let out = run(1, &w, &x, ActivationForm::Int8Token);
            // The scale is 1 on both sides, and the sum is below 2^24: exact in f32.
            assert_eq!(out[0], weight * activation * cols as f32, "{cols}");
        }
    }
}

#[test]
fn threads_and_batches_change_no_bit() {
    for (ty, cols) in [
        (RowType::F32, 100),
        (RowType::F16, 172),
        (RowType::Q4_1, 576),
        (RowType::Q8_0, 96),
        (RowType::TQ2_0, 256),
        (RowType::Ternary32, 172),
        (RowType::TG1, 576),
        (RowType::TG2, 172),
        (RowType::BG1, 96),
    ] {
        let (rows, tokens) = (23, 7);
        let bytes = weights(ty, rows, cols);
        let w = Matrix::new(ty, rows, cols, &bytes).unwrap();
        let mut next = noise(5);
        let x: Vec<f32> = (0..tokens * cols).map(|_| next()).collect();
        for form in [ActivationForm::F32, Matrix::integer_form(ty)] {
            let one = run(1, &w, &x, form);
            for threads in [2, 3, 5] {
                assert_eq!(one, run(threads, &w, &x, form), "{ty} {form:?} on {threads} threads");
            }
            let singly: Vec<f32> = x.chunks(cols).flat_map(|x| run(1, &w, x, form)).collect();
            assert_eq!(one, singly, "{ty} {form:?} token by token");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let bytes = vec![0; 34 * 2];
    assert!(Matrix::new(RowType::Q8_0, 2, 32, &bytes).is_ok());
    assert!(Matrix::new(RowType::Q8_0, 2, 31, &bytes).is_err());
    assert!(Matrix::new(RowType::Q8_0, 3, 32, &bytes).is_err());
    assert!(Matrix::new(RowType::F32, usize::MAX, 32, &bytes).is_err());
    let w = Matrix::new(RowType::Q8_0, 2, 32, &bytes).unwrap();
    let mut input = Activations::default();
    input.load(&[0.0; 64], 2, 32);
    let team = Team::new(1);
    assert!(matmul(&team, &w, &mut input, ActivationForm::F32, &mut [0.0; 3]).is_err());
    input.load(&[0.0; 33], 1, 33);
    assert!(matmul(&team, &w, &mut input, ActivationForm::F32, &mut [0.0; 2]).is_err());
    assert!(w.dequantize_row(2, &mut [0.0; 32]).is_err());
}
