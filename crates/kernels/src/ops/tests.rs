//! Every instruction set against f64, against the definition in plain code, and against the others bit by bit.

use super::*;
use crate::activations::Rounded;
use crate::arch::vector_ops::VectorOps;
use crate::dispatch::available_vector_ops;
use crate::rope::{Pairing, rotation, table_len};

/// Lengths around vectors, blocks and the unrolled sums.
const LENGTHS: [usize; 12] = [1, 2, 15, 16, 17, 31, 32, 33, 64, 100, 257, 1030];

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + seed * 101) as f32 * 0.618).sin() * 3.0).collect()
}

/// What `run` leaves of `x` is the same on every instruction set.
fn same_bits<T: Clone + std::fmt::Debug>(x: &T, run: impl Fn(&VectorOps, &mut T)) -> T {
    let results: Vec<T> = available_vector_ops()
        .into_iter()
        .map(|ops| {
            let mut x = x.clone();
            run(ops, &mut x);
            x
        })
        .collect();
    for result in &results {
        // As text, which tells -0 from 0 and any two numbers apart, and lets NaN equal itself.
        assert_eq!(format!("{result:?}"), format!("{:?}", results[0]));
    }
    results[0].clone()
}

#[test]
fn norms_are_those_of_the_definition_everywhere() {
    for n in LENGTHS {
        let (x, weight) = (values(n, 1), values(n, 2));
        let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
        for weight in [None, Some(&weight[..])] {
            let got = same_bits(&vec![f32::NAN; n], |ops, out| {
                // SAFETY: only tables that this processor can run are available.
                unsafe { (ops.rms_norm)(&x, weight, 1e-5, out) }
            });
            let in_place = same_bits(&x, |ops, x| {
                // SAFETY: as above.
                unsafe { (ops.rms_norm_in_place)(x, weight, 1e-5) }
            });
            assert_eq!(got, in_place);
            for i in 0..n {
                let want = f64::from(x[i]) / (mean + 1e-5).sqrt() * weight.map_or(1.0, |w| f64::from(w[i]));
                assert!((f64::from(got[i]) - want).abs() <= 5e-7 * want.abs(), "{} for {want}", got[i]);
            }
        }
    }
}

#[test]
fn exponentials_and_their_sum_are_those_of_the_definition_everywhere() {
    for n in LENGTHS {
        let x = values(n, 7);
        let (got, sum) = same_bits(&(x.clone(), 0.0), |ops, (x, sum)| {
            // SAFETY: only tables that this processor can run are available.
            *sum = unsafe { (ops.exp_sum)(x, 1.5) };
        });
        let want: Vec<f64> = x.iter().map(|&x| (f64::from(x) - 1.5).exp()).collect();
        assert!(got.iter().zip(&want).all(|(&got, want)| (f64::from(got) - want).abs() < 4e-7 * want));
        let total: f64 = want.iter().sum();
        assert!((f64::from(sum) - total).abs() < 1e-6 * total, "{sum} for {total}");
    }
}

#[test]
fn the_greatest_element_is_found_everywhere() {
    for n in LENGTHS {
        for at in [0, n / 2, n - 1] {
            let mut x = values(n, 3);
            x[at] = 9.0;
            x[(at + 1) % n] = if n > 1 { f32::NAN } else { 9.0 };
            let ops_max = |x: &Vec<f32>| {
                // SAFETY: only tables that this processor can run are available.
                same_bits(&vec![0.0], |ops, out| out[0] = unsafe { (ops.max)(x) })[0]
            };
            assert_eq!(ops_max(&x), 9.0);
            assert_eq!(argmax(&x), at);
            assert_eq!(ops_max(&vec![f32::NAN; n]), f32::NEG_INFINITY);
        }
    }
    assert_eq!((max(&[]), argmax(&[]), argmax(&[f32::NAN])), (f32::NEG_INFINITY, 0, 0));
    assert_eq!(argmax(&[&vec![1.0; 5000][..], &[2.0, 2.0]].concat()), 5000, "the first of equals");
}

/// The definitions in f64.
fn truth(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let y = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            // The same as (1 + tanh(y)) / 2, which cancels for negative y.
            x / (1.0 + (-2.0 * y).exp())
        }
        Activation::Relu2 => x.max(0.0).powi(2),
    }
}

#[test]
fn activations_keep_their_error_bounds_everywhere() {
    for (activation, relative, absolute) in [
        (Activation::Silu, 3e-7, 1e-30),
        (Activation::GeluTanh, 4e-7, 1e-8),
        (Activation::Relu2, 2e-7, 1e-45),
    ] {
        let x: Vec<f32> =
            (-120_000..=120_000).map(|i| i as f32 * 0.001).chain([-0.0, 1e-30, -1e-30]).collect();
        let up = vec![1.0; x.len()];
        let got = same_bits(&x, |ops, x| {
            // SAFETY: only tables that this processor can run are available.
            unsafe { (ops.gate)(activation, x, &up) }
        });
        for (&x, &got) in x.iter().zip(&got) {
            let want = truth(activation, f64::from(x));
            let error = (f64::from(got) - want).abs();
            assert!(error <= relative * want.abs() + absolute, "{activation:?}({x}) is {got}, not {want}");
        }
    }
}

#[test]
fn gates_multiply_odd_lengths_and_pass_nan_on() {
    for n in LENGTHS {
        let (x, up) = (values(n, 3), values(n, 4));
        for activation in [Activation::Silu, Activation::GeluTanh, Activation::Relu2] {
            let got = same_bits(&x, |ops, x| {
                // SAFETY: only tables that this processor can run are available.
                unsafe { (ops.gate)(activation, x, &up) }
            });
            for i in 0..n {
                let want = truth(activation, f64::from(x[i])) * f64::from(up[i]);
                assert!((f64::from(got[i]) - want).abs() <= 3e-6 * want.abs() + 1e-30);
            }
            let mut nan = vec![f32::NAN; n];
            activation.gate(&mut nan, &up);
            assert!(nan.iter().all(|x| x.is_nan()), "{activation:?}");
        }
    }
}

#[test]
fn activations_at_known_points() {
    let at = |activation: Activation, x: f32| {
        let mut gate = [x];
        activation.gate(&mut gate, &[1.0]);
        gate[0]
    };
    assert_eq!(at(Activation::Relu2, -3.0), 0.0);
    assert_eq!(at(Activation::Relu2, 3.0), 9.0);
    assert!((at(Activation::Silu, 1.0) - 0.731_058_6).abs() < 1e-6);
    assert!((at(Activation::GeluTanh, 1.0) - 0.841_192).abs() < 1e-5);
}

#[test]
fn sums_and_rotations_have_the_same_bits_everywhere() {
    for n in LENGTHS {
        let (x, y) = (values(n, 5), values(n, 6));
        let got = same_bits(&x, |ops, x| {
            // SAFETY: only tables that this processor can run are available.
            unsafe { (ops.add)(x, &y) }
        });
        assert!(got.iter().zip(x.iter().zip(&y)).all(|(got, (x, y))| *got == x + y));
    }
    for head_dim in [2, 20, 34, 64, 80, 128] {
        let frequencies: Vec<f32> = (0..head_dim / 2).map(|i| 0.8f32.powi(i)).collect();
        for pairing in [Pairing::Adjacent, Pairing::Half] {
            let mut table = vec![0.0; table_len(head_dim as usize)];
            rotation(7, &frequencies, pairing, &mut table);
            same_bits(&values(3 * head_dim as usize, 7), |ops, x| {
                // SAFETY: as above.
                unsafe { (ops.rotate)(x, head_dim as usize, pairing, &table) }
            });
        }
    }
}

/// What `Rounded` takes, in its order.
type Integers = (Vec<i8>, Vec<f32>, Vec<f32>, Vec<f32>, Vec<i32>);

/// int8 of one token as the definition has it, one element at a time.
fn quantize_plainly(x: &[f32], by_token: bool) -> Integers {
    let absmax = |x: &[f32]| x.iter().fold(0.0f32, |m, x| if x.abs() > m { x.abs() } else { m });
    let (mut q, mut scale, mut sum16, mut sum32, mut integers) = (vec![], vec![], vec![], vec![], vec![]);
    for block in x.chunks(32) {
        let (multiplier, exact) = match (by_token, absmax(block)) {
            (true, _) => (127.0 / absmax(x).max(1e-5), 1.0 / (127.0 / absmax(x).max(1e-5))),
            (false, 0.0) => (0.0, 0.0),
            (false, max) => (127.0 / max, max / 127.0),
        };
        let at = q.len();
        // A cast turns NaN into 0.
        q.extend(block.iter().map(|x| (x * multiplier).round_ties_even().clamp(-127.0, 127.0) as i8));
        let integer = |q: &[i8]| q.iter().map(|&q| i32::from(q)).sum::<i32>();
        let sum = |q: &[i8]| integer(q) as f32 * exact;
        let middle = (at + 16).min(q.len());
        scale.push(exact);
        sum16.extend([sum(&q[at..middle]), sum(&q[middle..])]);
        sum32.push(sum(&q[at..]));
        integers.extend([integer(&q[at..middle]), integer(&q[middle..])]);
    }
    (q, scale, sum16, sum32, integers)
}

#[test]
fn rounding_to_int8_is_that_of_the_definition_everywhere() {
    let mut cases: Vec<Vec<f32>> = LENGTHS.iter().map(|&n| values(n, 8)).collect();
    cases.push((0..96).map(|i| i as f32 * 0.5 - 20.0).collect()); // ties
    cases.push(vec![0.0; 50]);
    cases.push(vec![127.0; 40]);
    cases.push(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-45, 0.0, 1.0]);
    cases.push(vec![1e-45, -1e-45, 0.0]);
    for x in cases {
        for by_token in [false, true] {
            let blocks = x.len().div_ceil(32);
            let floats = |n: usize| vec![9.0f32; n];
            let start = (
                vec![99i8; x.len()],
                floats(blocks),
                floats(2 * blocks),
                floats(blocks),
                vec![9i32; 2 * blocks],
            );
            let got = same_bits(&start, |ops, (q, scale, sum16, sum32, integers)| {
                // SAFETY: only tables that this processor can run are available.
                unsafe { (ops.quantize)(&x, by_token, Rounded { q, scale, sum16, sum32, integers }) }
            });
            let bits = |x: &[f32]| {
                x.iter().map(|x| if x.is_nan() { 0 } else { (x + 0.0).to_bits() }).collect::<Vec<_>>()
            };
            let want = quantize_plainly(&x, by_token);
            assert_eq!(got.0, want.0, "{x:?}");
            assert_eq!(got.4, want.4, "{x:?}");
            assert_eq!(
                [bits(&got.1), bits(&got.2), bits(&got.3)],
                [bits(&want.1), bits(&want.2), bits(&want.3)],
                "{x:?}"
            );
        }
    }
}

#[test]
fn halves_are_rounded_as_the_standard_says() {
    let mut x: Vec<f32> =
        (0..=u16::MAX).map(|h| half::f16::from_bits(h).to_f32()).filter(|x| !x.is_nan()).collect();
    // Between two halves, ties included, and beyond the largest.
    let between: Vec<f32> = x.iter().map(|&x| x * (1.0 + f32::EPSILON * 4096.0)).collect();
    x.extend(between);
    x.extend([65519.0, 65520.0, 1e30, 1e-8, 5.96e-8, f32::INFINITY, f32::NEG_INFINITY]);
    let want: Vec<u16> = x.iter().map(|&x| half::f16::from_f32(x).to_bits()).collect();
    let got = same_bits(&vec![0u16; x.len()], |ops, out| {
        // SAFETY: only tables that this processor can run are available.
        unsafe { (ops.to_f16)(&x, out) }
    });
    assert_eq!(got, want);
}

#[test]
fn rows_are_the_same_on_any_number_of_threads() {
    let (rows, cols) = (50, 1000);
    let (x, weight, up) = (values(rows * cols, 1), values(cols, 2), values(rows * cols, 3));
    let run = |threads: usize| {
        let team = Team::new(threads);
        let mut out = vec![0.0; x.len()];
        rms_norm_rows(&team, &x, cols, Some(&weight), 1e-6, &mut out);
        rms_norm_rows_in_place(&team, &mut out, &weight, 1e-6);
        Activation::Silu.gate_on(&team, &mut out, &up);
        add_on(&team, &mut out, &up);
        out
    };
    let alone = run(1);
    assert!([2, 3, 5].into_iter().all(|threads| run(threads) == alone));
}
