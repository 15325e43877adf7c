//! One layer forward and backward, readable top to bottom.

use kernels::gemm::Output;
use kernels::rope::{Pairing, rotate, table_len};

use super::attention::{self, Derivatives, Input};
use super::elementwise::{gate, gate_backward, rms_norm, rms_norm_backward};
use super::layout::{Id, LayerIds};
use super::linear::{Gradients, Room, Weights};
use super::round::round_activations;

/// What a layer's forward pass leaves for its backward pass; `[tokens, ...]` each.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// What q, k and v are made of: normed, and rounded in a ternary model.
    attn_in: Vec<f32>,
    /// Rotated, as `k`.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attn_out: Vec<f32>,
    /// `[sequences, n_heads, seq]`
    lse: Vec<f32>,
    /// What o reads.
    o_in: Vec<f32>,
    /// The residual stream between attention and feed-forward.
    middle: Vec<f32>,
    ffn_in: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    /// What down reads.
    down_in: Vec<f32>,
}

/// Room that is used again by every layer.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    attention: attention::Scratch,
    hidden: Vec<f32>,
    d_hidden: Vec<f32>,
    d_dim: Vec<f32>,
    d_attn: Vec<f32>,
    d_q: Vec<f32>,
    d_k: Vec<f32>,
    d_v: Vec<f32>,
}

/// The tokens of a pass: whole sequences of one length.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a> {
    pub(crate) seq_len: usize,
    /// For each token the first position of its sequence that it sees.
    pub(crate) starts: &'a [u32],
    /// RoPE's factors of each position, and those that turn back.
    pub(crate) rope: (&'a [f32], &'a [f32]),
}

/// Makes `x` `len` long; what it holds is overwritten by its user.
fn size(x: &mut Vec<f32>, len: usize) {
    x.resize(len, 0.0);
}

/// Turns each head of `x`, `[tokens, dim]`, by its position.
fn turn(x: &mut [f32], dim: usize, head_dim: usize, seq_len: usize, table: &[f32]) {
    let table_len = table_len(head_dim);
    for (t, row) in x.chunks_exact_mut(dim).enumerate() {
        rotate(row, head_dim, Pairing::Half, &table[t % seq_len * table_len..][..table_len]);
    }
}

/// A norm and, in a ternary model, the rounding of what comes out of it. Without a norm the input itself is rounded.
fn prepare(weights: Weights<'_>, norm: Option<Id>, x: &[f32], cols: usize, out: &mut [f32]) {
    match norm {
        Some(norm) => rms_norm(x, weights.of(norm), weights.shape.norm_eps, out),
        None => out.copy_from_slice(x),
    }
    if weights.shape.ternary {
        round_activations(out, cols);
    }
}

/// Adds to `d_x` what `d_out`, the derivative of [`prepare`]'s output, means for its input.
fn prepare_backward(
    weights: Weights<'_>,
    gradients: &mut Gradients<'_>,
    norm: Option<Id>,
    x: &[f32],
    d_out: &[f32],
    d_x: &mut [f32],
) {
    let Some(norm) = norm else {
        d_x.iter_mut().zip(d_out).for_each(|(d_x, d)| *d_x += d);
        return;
    };
    let range = weights.layout.tensors[norm].range.clone();
    let d_weight = gradients.model.as_deref_mut().map(|d| &mut d[range]);
    rms_norm_backward(x, weights.of(norm), weights.shape.norm_eps, d_out, d_x, d_weight);
}

/// `out` = the layer of `x`, both `[tokens, dim]`.
#[allow(clippy::too_many_arguments, reason = "what is read, room for the work, and what is written")]
pub(crate) fn forward(
    weights: Weights<'_>,
    ids: &LayerIds,
    room: &mut Room,
    scratch: &mut Scratch,
    tokens: Tokens<'_>,
    x: &[f32],
    cache: &mut Cache,
    out: &mut [f32],
) {
    let shape = weights.shape;
    let (dim, kv_dim, hidden_dim) = (shape.dim, shape.kv_dim(), shape.hidden_dim);
    let n = x.len() / dim;
    let c = cache;
    for buffer in [&mut c.attn_in, &mut c.q, &mut c.attn_out, &mut c.o_in, &mut c.middle, &mut c.ffn_in] {
        size(buffer, n * dim);
    }
    for buffer in [&mut c.k, &mut c.v] {
        size(buffer, n * kv_dim);
    }
    for buffer in [&mut c.gate, &mut c.up, &mut c.down_in, &mut scratch.hidden] {
        size(buffer, n * hidden_dim);
    }
    size(&mut c.lse, n * shape.n_heads);

    prepare(weights, Some(ids.input_norm), x, dim, &mut c.attn_in);
    weights.linear(room, ids.q, &c.attn_in, &mut c.q);
    weights.linear(room, ids.k, &c.attn_in, &mut c.k);
    weights.linear(room, ids.v, &c.attn_in, &mut c.v);
    turn(&mut c.q, dim, shape.head_dim(), tokens.seq_len, tokens.rope.0);
    turn(&mut c.k, kv_dim, shape.head_dim(), tokens.seq_len, tokens.rope.0);
    let (by_dim, by_kv, by_lse) =
        (tokens.seq_len * dim, tokens.seq_len * kv_dim, tokens.seq_len * shape.n_heads);
    for (s, starts) in tokens.starts.chunks_exact(tokens.seq_len).enumerate() {
        let input = Input {
            q: &c.q[s * by_dim..][..by_dim],
            k: &c.k[s * by_kv..][..by_kv],
            v: &c.v[s * by_kv..][..by_kv],
            starts,
        };
        let out = &mut c.attn_out[s * by_dim..][..by_dim];
        let lse = &mut c.lse[s * by_lse..][..by_lse];
        attention::forward(&mut room.gemm, &mut scratch.attention, shape, &input, out, lse);
    }
    prepare(weights, ids.attn_sub_norm, &c.attn_out, dim, &mut c.o_in);
    weights.linear(room, ids.o, &c.o_in, &mut c.middle);
    kernels::ops::add(&mut c.middle, x);

    prepare(weights, Some(ids.post_norm), &c.middle, dim, &mut c.ffn_in);
    weights.linear(room, ids.gate, &c.ffn_in, &mut c.gate);
    weights.linear(room, ids.up, &c.ffn_in, &mut c.up);
    gate(shape.activation, &c.gate, &c.up, &mut scratch.hidden);
    prepare(weights, ids.ffn_sub_norm, &scratch.hidden, hidden_dim, &mut c.down_in);
    weights.linear(room, ids.down, &c.down_in, out);
    kernels::ops::add(out, &c.middle);
}

/// The derivative of [`forward`]: `d`, that of the output, becomes that of the input. The cache is used up.
#[allow(clippy::too_many_arguments, reason = "what is read, room for the work, and what is written")]
pub(crate) fn backward(
    weights: Weights<'_>,
    ids: &LayerIds,
    room: &mut Room,
    scratch: &mut Scratch,
    tokens: Tokens<'_>,
    x: &[f32],
    cache: &mut Cache,
    gradients: &mut Gradients<'_>,
    d: &mut [f32],
) {
    let shape = weights.shape;
    let (dim, kv_dim, hidden_dim) = (shape.dim, shape.kv_dim(), shape.hidden_dim);
    let n = x.len() / dim;
    let (c, s) = (cache, scratch);
    for buffer in [&mut s.hidden, &mut s.d_hidden] {
        size(buffer, n * hidden_dim);
    }
    for buffer in [&mut s.d_dim, &mut s.d_attn, &mut s.d_q] {
        size(buffer, n * dim);
    }
    for buffer in [&mut s.d_k, &mut s.d_v] {
        size(buffer, n * kv_dim);
    }

    // Feed-forward: what down reads, then the gate's output, then gate and up, then their input.
    weights.linear_backward(room, gradients, ids.down, &c.down_in, d, Output::Write, &mut s.d_hidden);
    if ids.ffn_sub_norm.is_some() {
        gate(shape.activation, &c.gate, &c.up, &mut s.hidden);
        // What down read is not needed any more: its place takes the derivative of the gate's output.
        c.down_in.fill(0.0);
        prepare_backward(weights, gradients, ids.ffn_sub_norm, &s.hidden, &s.d_hidden, &mut c.down_in);
    } else {
        c.down_in.copy_from_slice(&s.d_hidden);
    }
    gate_backward(shape.activation, &mut c.gate, &mut c.up, &c.down_in);
    weights.linear_backward(room, gradients, ids.gate, &c.ffn_in, &c.gate, Output::Write, &mut s.d_dim);
    weights.linear_backward(room, gradients, ids.up, &c.ffn_in, &c.up, Output::Add, &mut s.d_dim);
    prepare_backward(weights, gradients, Some(ids.post_norm), &c.middle, &s.d_dim, d);

    // Attention.
    weights.linear_backward(room, gradients, ids.o, &c.o_in, d, Output::Write, &mut s.d_dim);
    s.d_attn.fill(0.0);
    prepare_backward(weights, gradients, ids.attn_sub_norm, &c.attn_out, &s.d_dim, &mut s.d_attn);
    let (by_dim, by_kv, by_lse) =
        (tokens.seq_len * dim, tokens.seq_len * kv_dim, tokens.seq_len * shape.n_heads);
    for (i, starts) in tokens.starts.chunks_exact(tokens.seq_len).enumerate() {
        let (at_dim, at_kv) = (i * by_dim..(i + 1) * by_dim, i * by_kv..(i + 1) * by_kv);
        let input = Input { q: &c.q[at_dim.clone()], k: &c.k[at_kv.clone()], v: &c.v[at_kv.clone()], starts };
        let forward = (&c.attn_out[at_dim.clone()], &c.lse[i * by_lse..][..by_lse]);
        let mut derivatives =
            Derivatives { q: &mut s.d_q[at_dim.clone()], k: &mut s.d_k[at_kv.clone()], v: &mut s.d_v[at_kv] };
        let d_out = &s.d_attn[at_dim];
        let room = &mut room.gemm;
        attention::backward(room, &mut s.attention, shape, &input, forward, d_out, &mut derivatives);
    }
    turn(&mut s.d_q, dim, shape.head_dim(), tokens.seq_len, tokens.rope.1);
    turn(&mut s.d_k, kv_dim, shape.head_dim(), tokens.seq_len, tokens.rope.1);
    weights.linear_backward(room, gradients, ids.q, &c.attn_in, &s.d_q, Output::Write, &mut s.d_dim);
    weights.linear_backward(room, gradients, ids.k, &c.attn_in, &s.d_k, Output::Add, &mut s.d_dim);
    weights.linear_backward(room, gradients, ids.v, &c.attn_in, &s.d_v, Output::Add, &mut s.d_dim);
    prepare_backward(weights, gradients, Some(ids.input_norm), x, &s.d_dim, d);
}
