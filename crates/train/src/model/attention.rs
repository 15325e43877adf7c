//! Causal attention inside documents, and its derivative.
//!
//! Scores are made for blocks of queries and never kept: the backward pass makes them anew from the logarithm of each
//! row's sum of exponentials (Dao et al., arXiv 2205.14135).

use kernels::gemm::{Gemm, Output, Size, View};
use kernels::ops;

use super::elementwise::dot;
use super::shape::Shape;

/// Queries whose scores are made at once.
const BLOCK: usize = 64;

/// Queries, keys and values of one sequence.
pub(crate) struct Input<'a> {
    /// `[seq, n_heads, head_dim]`
    pub(crate) q: &'a [f32],
    /// `[seq, n_kv_heads, head_dim]`
    pub(crate) k: &'a [f32],
    /// As `k`.
    pub(crate) v: &'a [f32],
    /// For each position the first that it sees; never falls.
    pub(crate) starts: &'a [u32],
}

/// Derivatives of [`Input`].
pub(crate) struct Derivatives<'a> {
    pub(crate) q: &'a mut [f32],
    pub(crate) k: &'a mut [f32],
    pub(crate) v: &'a mut [f32],
}

/// Room for scores.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    scores: Vec<f32>,
    d_scores: Vec<f32>,
}

/// Sizes of one model's attention.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    n_heads: usize,
    group: usize,
    head_dim: usize,
    q_dim: usize,
    kv_dim: usize,
    scale: f32,
}

impl Sizes {
    fn of(shape: &Shape) -> Self {
        let head_dim = shape.head_dim();
        Self {
            n_heads: shape.n_heads,
            group: shape.n_heads / shape.n_kv_heads,
            head_dim,
            q_dim: shape.dim,
            kv_dim: shape.kv_dim(),
            scale: 1.0 / (head_dim as f32).sqrt(),
        }
    }
}

/// A block of queries of one head, and the keys that some of them see.
#[derive(Debug, Clone, Copy)]
struct Block {
    rows: usize,
    width: usize,
    /// Where the block's queries begin, and its keys.
    q_at: usize,
    kv_at: usize,
}

/// Calls `each(head, first query, first key, block)`.
fn blocks(sizes: Sizes, starts: &[u32], mut each: impl FnMut(usize, usize, usize, Block)) {
    for head in 0..sizes.n_heads {
        for from in (0..starts.len()).step_by(BLOCK) {
            let to = (from + BLOCK).min(starts.len());
            let first = starts[from] as usize;
            let block = Block {
                rows: to - from,
                width: to - first,
                q_at: from * sizes.q_dim + head * sizes.head_dim,
                kv_at: first * sizes.kv_dim + head / sizes.group * sizes.head_dim,
            };
            each(head, from, first, block);
        }
    }
}

/// `scores = Q K^T`, `[rows, width]`.
fn products(gemm: &mut Gemm, sizes: Sizes, q: &[f32], k: &[f32], block: Block, scores: &mut [f32]) {
    let size = Size { m: block.rows, n: block.width, k: sizes.head_dim };
    let q = View::rows(&q[block.q_at..], sizes.q_dim);
    let k = View::rows(&k[block.kv_at..], sizes.kv_dim).transposed();
    gemm.multiply(size, q, k, Output::Write, scores, block.width);
}

/// `out = softmax(Q K^T / sqrt(head_dim)) V` over what each position sees. `lse`, `[n_heads, seq]`: the logarithms of the
/// sums of exponentials, for [`backward`].
pub(crate) fn forward(
    gemm: &mut Gemm,
    scratch: &mut Scratch,
    shape: &Shape,
    input: &Input<'_>,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let sizes = Sizes::of(shape);
    let seq = input.starts.len();
    blocks(sizes, input.starts, |head, from, first, block| {
        scratch.scores.resize(block.rows * block.width, 0.0);
        let scores = &mut scratch.scores;
        products(gemm, sizes, input.q, input.k, block, scores);
        for (i, row) in scores.chunks_exact_mut(block.width).enumerate() {
            let seen = input.starts[from + i] as usize - first..from + i + 1 - first;
            row[..seen.start].fill(0.0);
            row[seen.end..].fill(0.0);
            let row = &mut row[seen];
            row.iter_mut().for_each(|s| *s *= sizes.scale);
            let max = ops::max(row);
            let sum = ops::exp_sum(row, max);
            lse[head * seq + from + i] = max + sum.ln();
            let inverse = 1.0 / sum;
            row.iter_mut().for_each(|s| *s *= inverse);
        }
        let size = Size { m: block.rows, n: sizes.head_dim, k: block.width };
        let v = View::rows(&input.v[block.kv_at..], sizes.kv_dim);
        let p = View::rows(scores, block.width);
        gemm.multiply(size, p, v, Output::Write, &mut out[block.q_at..], sizes.q_dim);
    });
}

/// The derivative of [`forward`]; `out` and `lse` are what that gave, `d_out` its derivative. `d` is overwritten.
pub(crate) fn backward(
    gemm: &mut Gemm,
    scratch: &mut Scratch,
    shape: &Shape,
    input: &Input<'_>,
    (out, lse): (&[f32], &[f32]),
    d_out: &[f32],
    d: &mut Derivatives<'_>,
) {
    let sizes = Sizes::of(shape);
    let Sizes { head_dim, q_dim, kv_dim, scale, .. } = sizes;
    let seq = input.starts.len();
    d.k.fill(0.0);
    d.v.fill(0.0);
    blocks(sizes, input.starts, |head, from, first, block| {
        let Block { rows, width, q_at, kv_at } = block;
        let Scratch { scores, d_scores } = scratch;
        scores.resize(rows * width, 0.0);
        d_scores.resize(rows * width, 0.0);
        products(gemm, sizes, input.q, input.k, block, scores);
        // dP = dO V^T
        let d_o = View::rows(&d_out[q_at..], q_dim);
        let v = View::rows(&input.v[kv_at..], kv_dim);
        gemm.multiply(
            Size { m: rows, n: width, k: head_dim },
            d_o,
            v.transposed(),
            Output::Write,
            d_scores,
            width,
        );
        for (i, (p, d_s)) in scores.chunks_exact_mut(width).zip(d_scores.chunks_exact_mut(width)).enumerate()
        {
            let seen = input.starts[from + i] as usize - first..from + i + 1 - first;
            for row in [&mut *p, &mut *d_s] {
                row[..seen.start].fill(0.0);
                row[seen.end..].fill(0.0);
            }
            let (p, d_s) = (&mut p[seen.clone()], &mut d_s[seen]);
            p.iter_mut().for_each(|s| *s *= scale);
            ops::exp_sum(p, lse[head * seq + from + i]);
            let at = q_at + i * q_dim;
            let mean = dot(&d_out[at..][..head_dim], &out[at..][..head_dim]);
            // dS = P (dP - sum(dO O)) / sqrt(head_dim)
            for (d_s, &p) in d_s.iter_mut().zip(&*p) {
                *d_s = p * (*d_s - mean) * scale;
            }
        }
        let (p, d_s) = (View::rows(scores, width), View::rows(d_scores, width));
        let q = View::rows(&input.q[q_at..], q_dim);
        let k = View::rows(&input.k[kv_at..], kv_dim);
        let by_query = Size { m: rows, n: head_dim, k: width };
        let by_key = Size { m: width, n: head_dim, k: rows };
        gemm.multiply(by_query, d_s, k, Output::Write, &mut d.q[q_at..], q_dim);
        gemm.multiply(by_key, d_s.transposed(), q, Output::Add, &mut d.k[kv_at..], kv_dim);
        gemm.multiply(by_key, p.transposed(), d_o, Output::Add, &mut d.v[kv_at..], kv_dim);
    });
}
