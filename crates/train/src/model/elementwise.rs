//! Norms, gates and sums with their derivatives. `[tokens, cols]` everywhere.

use kernels::ops;

use super::shape::Activation;

/// Numbers that are summed side by side, so that the compiler may use vectors.
const LANES: usize = 16;

/// Sum of products.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let ((a_chunks, a_tail), (b_chunks, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + tail
}

/// Sum of `a[i] * b[i] * c[i]`.
fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a, b, c) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
    for ((a, b), c) in a.0.iter().zip(b.0).zip(c.0) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i] * c[i];
        }
    }
    let tail: f32 = a.1.iter().zip(b.1).zip(c.1).map(|((a, b), c)| a * b * c).sum();
    sums.iter().sum::<f32>() + tail
}

/// `out = x / rms(x) * weight` of each row.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let dim = weight.len();
    for (x, out) in x.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
        ops::rms_norm(x, Some(weight), eps, out);
    }
}

/// The derivative of [`rms_norm`]: adds to `d_x` what `d_out` means for x, and to `d_weight`, if wanted, what it means for
/// the weight.
///
/// With r = 1 / rms(x): d_x = r (w d_out) - r^3 x mean(w d_out x).
pub(crate) fn rms_norm_backward(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    d_out: &[f32],
    d_x: &mut [f32],
    mut d_weight: Option<&mut [f32]>,
) {
    let dim = weight.len();
    let rows = x.chunks_exact(dim).zip(d_out.chunks_exact(dim)).zip(d_x.chunks_exact_mut(dim));
    for ((x, d_out), d_x) in rows {
        let r = 1.0 / (dot(x, x) / dim as f32 + eps).sqrt();
        let along = r * r * r * dot3(weight, d_out, x) / dim as f32;
        for (((d_x, &x), &d), &w) in d_x.iter_mut().zip(x).zip(d_out).zip(weight) {
            *d_x += r * (w * d) - along * x;
        }
        if let Some(d_weight) = d_weight.as_deref_mut() {
            for ((d_w, &x), &d) in d_weight.iter_mut().zip(x).zip(d_out) {
                *d_w += d * (x * r);
            }
        }
    }
}

/// `out = f(gate) * up`.
pub(crate) fn gate(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    out.copy_from_slice(gate);
    let activation = match activation {
        Activation::Silu => ops::Activation::Silu,
        Activation::Relu2 => ops::Activation::Relu2,
    };
    activation.gate(out, up);
}

/// The derivative of [`gate`]: `gate` and `up` become their own derivatives, given that of the output.
pub(crate) fn gate_backward(activation: Activation, gate: &mut [f32], up: &mut [f32], d_out: &[f32]) {
    let rows = gate.iter_mut().zip(up.iter_mut()).zip(d_out);
    match activation {
        Activation::Relu2 => {
            for ((gate, up), &d) in rows {
                let positive = if *gate > 0.0 { *gate } else { 0.0 };
                let d_gate = d * *up * (2.0 * positive);
                *up = d * (positive * positive);
                *gate = d_gate;
            }
        }
        Activation::Silu => {
            // Chunks small enough for the first cache: e^-x of each first.
            let mut exponentials = [0.0f32; 512];
            let chunks = gate.chunks_mut(512).zip(up.chunks_mut(512)).zip(d_out.chunks(512));
            for ((gate, up), d_out) in chunks {
                let exponentials = &mut exponentials[..gate.len()];
                for (e, x) in exponentials.iter_mut().zip(&*gate) {
                    *e = -x;
                }
                ops::exp_sum(exponentials, 0.0);
                for (((gate, up), &d), &e) in gate.iter_mut().zip(up).zip(d_out).zip(&*exponentials) {
                    let sigmoid = 1.0 / (1.0 + e);
                    let x = *gate;
                    *gate = d * *up * (sigmoid * (1.0 + x * (1.0 - sigmoid)));
                    *up = d * (x * sigmoid);
                }
            }
        }
    }
}
