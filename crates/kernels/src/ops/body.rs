//! The loops over one vector, written once and compiled for each instruction set (`arch/ops_*.rs`).

use super::Activation;
use crate::activations::{BLOCK, Rounded};
use crate::vector::{LANES, Vector, exp, load_any, store_any, times_sigmoid};

/// `x = f(x)` for all sixteens and the rest.
#[inline(always)]
fn map<V: Vector>(x: &mut [f32], f: impl Fn(V) -> V) {
    let (lanes, tail) = x.as_chunks_mut::<LANES>();
    for x in lanes {
        f(V::load(x)).store(x);
    }
    if !tail.is_empty() {
        store_any(f(load_any(tail)), tail);
    }
}

/// `x = f(x, y)` for all sixteens and the rest.
#[inline(always)]
fn zip<V: Vector>(x: &mut [f32], y: &[f32], f: impl Fn(V, V) -> V) {
    let y = &y[..x.len()];
    let ((lanes, tail), (y_lanes, y_tail)) = (x.as_chunks_mut::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in lanes.iter_mut().zip(y_lanes) {
        f(V::load(x), V::load(y)).store(x);
    }
    if !tail.is_empty() {
        store_any(f(load_any(tail), load_any(y_tail)), tail);
    }
}

/// `1 / sqrt(mean(x^2) + eps)`, the squares in four interleaved sums of sixteen.
#[inline(always)]
fn inverse_rms<V: Vector>(x: &[f32], eps: f32) -> f32 {
    let mut sums = [V::splat(0.0); 4];
    let (fours, rest) = x.as_chunks::<{ 4 * LANES }>();
    for four in fours {
        for (sum, x) in sums.iter_mut().zip(four.as_chunks::<LANES>().0) {
            let x = V::load(x);
            *sum = sum.add(x.mul(x));
        }
    }
    for x in rest.chunks(LANES) {
        let x = load_any::<V>(x);
        sums[0] = sums[0].add(x.mul(x));
    }
    let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum();
    1.0 / (sum / x.len() as f32 + eps).sqrt()
}

#[inline(always)]
pub(crate) fn rms_norm<V: Vector>(x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let scale = V::splat(inverse_rms::<V>(x, eps));
    zip::<V>(out, x, |_, x| x.mul(scale));
    if let Some(weight) = weight {
        zip::<V>(out, weight, |x, w| x.mul(w));
    }
}

#[inline(always)]
pub(crate) fn rms_norm_in_place<V: Vector>(x: &mut [f32], weight: Option<&[f32]>, eps: f32) {
    let scale = V::splat(inverse_rms::<V>(x, eps));
    match weight {
        Some(weight) => zip::<V>(x, weight, |x, w| x.mul(scale).mul(w)),
        None => map::<V>(x, |x| x.mul(scale)),
    }
}

#[inline(always)]
pub(crate) fn add<V: Vector>(x: &mut [f32], y: &[f32]) {
    zip::<V>(x, y, |x, y| x.add(y));
}

#[inline(always)]
pub(crate) fn gate<V: Vector>(activation: Activation, gate: &mut [f32], up: &[f32]) {
    match activation {
        Activation::Silu => gate_by::<V, Silu>(gate, up),
        Activation::GeluTanh => gate_by::<V, GeluTanh>(gate, up),
        Activation::Relu2 => gate_by::<V, Relu2>(gate, up),
    }
}

/// What a gate does to sixteen elements. A trait and no closure for [`zip`]: nothing makes the compiler inline a closure, and
/// one of this length it does not inline. It is then compiled without the instruction set, every operation a call.
trait Gate {
    fn of<V: Vector>(x: V, up: V) -> V;
}

struct Silu;
struct GeluTanh;
struct Relu2;

impl Gate for Silu {
    #[inline(always)]
    fn of<V: Vector>(x: V, up: V) -> V {
        times_sigmoid(x, x).mul(up)
    }
}

impl Gate for GeluTanh {
    #[inline(always)]
    fn of<V: Vector>(x: V, up: V) -> V {
        // (1 + tanh(y)) / 2 is the logistic function of 2y.
        const TWICE_SQRT_2_OVER_PI: f32 = 2.0 * 0.797_884_6;
        let cubic = x.mul(x).mul(x).mul(V::splat(0.044_715));
        times_sigmoid(x, x.add(cubic).mul(V::splat(TWICE_SQRT_2_OVER_PI))).mul(up)
    }
}

impl Gate for Relu2 {
    #[inline(always)]
    fn of<V: Vector>(x: V, up: V) -> V {
        let x = V::splat(0.0).max(x);
        x.mul(x).mul(up)
    }
}

#[inline(always)]
fn gate_by<V: Vector, G: Gate>(gate: &mut [f32], up: &[f32]) {
    let up = &up[..gate.len()];
    let ((lanes, tail), (up_lanes, up_tail)) = (gate.as_chunks_mut::<LANES>(), up.as_chunks::<LANES>());
    for (x, up) in lanes.iter_mut().zip(up_lanes) {
        G::of(V::load(x), V::load(up)).store(x);
    }
    if !tail.is_empty() {
        store_any(G::of(load_any::<V>(tail), load_any(up_tail)), tail);
    }
}

#[inline(always)]
pub(crate) fn absmax<V: Vector>(x: &[f32]) -> f32 {
    let (lanes, tail) = x.as_chunks::<LANES>();
    let mut max = V::splat(0.0);
    for x in lanes {
        max = V::load(x).abs().max(max);
    }
    load_any::<V>(tail).abs().max(max).max_lane()
}

#[inline(always)]
pub(crate) fn exp_sum<V: Vector>(x: &mut [f32], shift: f32) -> f32 {
    let shift = V::splat(shift);
    let (lanes, tail) = x.as_chunks_mut::<LANES>();
    let mut sum = V::splat(0.0);
    for x in lanes {
        let e = exp(V::load(x).sub(shift));
        e.store(x);
        sum = sum.add(e);
    }
    let mut total = sum.sum();
    if !tail.is_empty() {
        store_any(exp(load_any::<V>(tail).sub(shift)), tail);
        total += tail.iter().sum::<f32>();
    }
    total
}

#[inline(always)]
pub(crate) fn max<V: Vector>(x: &[f32]) -> f32 {
    let (lanes, tail) = x.as_chunks::<LANES>();
    let mut max = [V::splat(f32::NEG_INFINITY); 2];
    for (i, x) in lanes.iter().enumerate() {
        max[i % 2] = V::load(x).max(max[i % 2]);
    }
    tail.iter().fold(max[0].max(max[1]).max_lane(), |max, &x| if x > max { x } else { max })
}

/// `x * multiplier` rounded to integers within +-127, NaN to 0.
#[inline(always)]
fn to_integers<V: Vector>(x: V, multiplier: f32) -> V {
    let x = x.mul(V::splat(multiplier)).zero_nan();
    V::splat(-127.0).max(V::splat(127.0).min(x)).round()
}

#[inline(always)]
fn store_integers<V: Vector>(v: V, out: &mut [i8]) {
    let mut lanes = [0; LANES];
    v.store_i8(&mut lanes);
    match <&mut [i8; LANES]>::try_from(&mut *out) {
        Ok(out) => *out = lanes,
        Err(_) => out.copy_from_slice(&lanes[..out.len()]),
    }
}

/// int8 of one token in blocks of 32 (the last may be shorter). The scale is absmax / 127 of each block, or with
/// `by_token` max(absmax, 1e-5) / 127 of the token.
#[inline(always)]
pub(crate) fn quantize<V: Vector>(x: &[f32], by_token: bool, out: Rounded<'_>) {
    let Rounded { q, scale, sum16, sum32, integers } = out;
    let token_multiplier = if by_token { 127.0 / absmax::<V>(x).max(1e-5) } else { 0.0 };
    let blocks = x.chunks(BLOCK).zip(q.chunks_mut(BLOCK));
    let sums = sum16.as_chunks_mut::<2>().0.iter_mut().zip(sum32).zip(integers.as_chunks_mut::<2>().0);
    for (((x, q), scale), ((sum16, sum32), integers)) in blocks.zip(scale).zip(sums) {
        let (multiplier, exact) = if by_token {
            (token_multiplier, 1.0 / token_multiplier)
        } else {
            let max = absmax::<V>(x);
            if max == 0.0 { (0.0, 0.0) } else { (127.0 / max, max / 127.0) }
        };
        let mut halves = [0.0; 2];
        for ((x, q), half) in x.chunks(LANES).zip(q.chunks_mut(LANES)).zip(&mut halves) {
            let integers = to_integers(load_any::<V>(x), multiplier);
            store_integers(integers, q);
            // Integers of at most 16 * 127: the sum is exact.
            *half = integers.sum();
        }
        *scale = exact;
        *sum16 = halves.map(|sum| sum * exact);
        *sum32 = (halves[0] + halves[1]) * exact;
        *integers = halves.map(|sum| sum as i32);
    }
}

#[inline(always)]
pub(crate) fn to_f16<V: Vector>(x: &[f32], out: &mut [u16]) {
    let ((lanes, tail), (out_lanes, out_tail)) = (x.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    for (x, out) in lanes.iter().zip(out_lanes) {
        V::load(x).store_f16(out);
    }
    if !tail.is_empty() {
        let mut lanes = [0; LANES];
        load_any::<V>(tail).store_f16(&mut lanes);
        out_tail.copy_from_slice(&lanes[..tail.len()]);
    }
}

#[inline(always)]
pub(crate) fn to_i8<V: Vector>(x: &[f32], scale: f32, out: &mut [i8]) {
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for (x, out) in x.chunks(LANES).zip(out.chunks_mut(LANES)) {
        store_integers(to_integers(load_any::<V>(x), inverse), out);
    }
}
