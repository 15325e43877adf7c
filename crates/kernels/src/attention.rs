//! Attention of one query head over cached keys and values.

use std::cell::RefCell;

use half::f16;

use crate::arch::scalar::dot_f32;
use crate::dispatch::kernels;
use crate::ops::softmax;
use crate::threads::Team;

/// Keys or values of one layer, `[positions, n_kv_heads * head_dim]`.
#[derive(Debug, Clone, Copy)]
pub enum Cached<'a> {
    /// As computed.
    F32(&'a [f32]),
    /// Rounded to half precision (bits of IEEE binary16).
    F16(&'a [u16]),
    /// int8 with one scale per position and head: `[positions, n_kv_heads]`.
    I8(&'a [i8], &'a [f32]),
}

/// The same, to be written.
#[derive(Debug)]
pub enum CachedMut<'a> {
    /// See [`Cached::F32`].
    F32(&'a mut [f32]),
    /// See [`Cached::F16`].
    F16(&'a mut [u16]),
    /// See [`Cached::I8`].
    I8(&'a mut [i8], &'a mut [f32]),
}

impl CachedMut<'_> {
    /// Stores `x`, `[n_kv_heads, head_dim]`, at `position`.
    pub fn store(&mut self, position: usize, head_dim: usize, x: &[f32]) {
        let at = position * x.len();
        match self {
            Self::F32(cache) => cache[at..][..x.len()].copy_from_slice(x),
            Self::F16(cache) => {
                for (cached, &x) in cache[at..][..x.len()].iter_mut().zip(x) {
                    *cached = f16::from_f32(x).to_bits();
                }
            }
            Self::I8(cache, scales) => {
                let heads = x.len() / head_dim;
                for (head, x) in x.chunks_exact(head_dim).enumerate() {
                    let absmax = x.iter().fold(0f32, |m, x| m.max(x.abs()));
                    let scale = absmax / 127.0;
                    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                    scales[position * heads + head] = scale;
                    for (cached, &x) in cache[at + head * head_dim..][..head_dim].iter_mut().zip(x) {
                        *cached = (x * inverse).round_ties_even() as i8;
                    }
                }
            }
        }
    }
}

/// The queries of consecutive tokens of one sequence and the layer's cache that they look at.
#[derive(Debug, Clone, Copy)]
pub struct Queries<'a> {
    /// `[tokens, n_heads, head_dim]`, after RoPE.
    pub queries: &'a [f32],
    /// Length of a head.
    pub head_dim: usize,
    /// Query heads a token.
    pub n_heads: usize,
    /// Key and value heads a position; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Position of the first token.
    pub position: usize,
    /// How many positions a token sees, itself included; `None` for all before it.
    pub window: Option<usize>,
    /// Factor on every score.
    pub scale: f32,
}

thread_local! {
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Causal attention of all tokens and heads: `out` is `[tokens, n_heads, head_dim]`. Working space grows with
/// the context and not with its square.
pub fn attend_all(team: &Team, q: &Queries<'_>, keys: Cached<'_>, values: Cached<'_>, out: &mut [f32]) {
    let per_kv_head = q.n_heads / q.n_kv_heads;
    let work = 2 * out.len() * (q.position + out.len() / (q.n_heads * q.head_dim));
    team.for_each_chunk(out, q.head_dim, work, &|i, out| {
        let (token, n) = (i / q.n_heads, i % q.n_heads);
        let end = q.position + token + 1;
        let head = Head {
            query: &q.queries[i * q.head_dim..][..q.head_dim],
            keys,
            values,
            kv_head: n / per_kv_head,
            n_kv_heads: q.n_kv_heads,
            start: q.window.map_or(0, |window| end.saturating_sub(window)),
            end,
            scale: q.scale,
        };
        SCORES.with_borrow_mut(|scores| {
            if scores.len() < end {
                // The next power of two, so that decoding grows this a few times and not at every token.
                scores.resize(end.next_power_of_two(), 0.0);
            }
            attend(&head, scores, out);
        });
    });
}

/// One query head and what it looks at.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The query, `[head_dim]`, after RoPE.
    pub query: &'a [f32],
    /// Keys of the layer.
    pub keys: Cached<'a>,
    /// Values of the layer.
    pub values: Cached<'a>,
    /// Which key and value head this query reads.
    pub kv_head: usize,
    /// Key and value heads a position.
    pub n_kv_heads: usize,
    /// First position that is visible (0 but for a sliding window).
    pub start: usize,
    /// One past the last visible position.
    pub end: usize,
    /// Factor on every score, 1 / sqrt(head_dim) as a rule.
    pub scale: f32,
}

/// `out = softmax(scale * query . keys) . values` over positions `start..end`; `scores` is working space of at
/// least `end - start`.
pub fn attend(head: &Head<'_>, scores: &mut [f32], out: &mut [f32]) {
    let head_dim = head.query.len();
    let at = |position: usize| (position * head.n_kv_heads + head.kv_head) * head_dim;
    let scores = &mut scores[..head.end - head.start];
    let kernels = kernels();
    for (score, position) in scores.iter_mut().zip(head.start..) {
        let dot = match head.keys {
            Cached::F32(keys) => dot_f32(head.query, &keys[at(position)..][..head_dim]),
            // SAFETY: `kernels()` gives only functions that this processor can run.
            Cached::F16(keys) => unsafe { (kernels.dot_f16)(head.query, &keys[at(position)..][..head_dim]) },
            Cached::I8(keys, scales) => {
                let keys = &keys[at(position)..][..head_dim];
                let dot: f32 = head.query.iter().zip(keys).map(|(q, &k)| q * f32::from(k)).sum();
                dot * scales[position * head.n_kv_heads + head.kv_head]
            }
        };
        *score = dot * head.scale;
    }
    softmax(scores);
    out.fill(0.0);
    for (&score, position) in scores.iter().zip(head.start..) {
        match head.values {
            Cached::F32(values) => {
                for (out, v) in out.iter_mut().zip(&values[at(position)..][..head_dim]) {
                    *out += score * v;
                }
            }
            // SAFETY: as above.
            Cached::F16(values) => unsafe {
                (kernels.axpy_f16)(score, &values[at(position)..][..head_dim], out)
            },
            Cached::I8(values, scales) => {
                let factor = score * scales[position * head.n_kv_heads + head.kv_head];
                for (out, &v) in out.iter_mut().zip(&values[at(position)..][..head_dim]) {
                    *out += factor * f32::from(v);
                }
            }
        }
    }
}
