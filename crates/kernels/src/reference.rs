//! The truth: each operation in its plainest form, in f64 where it matters. Tests compare everything with this.

use crate::codec::{self, CodecError};
use crate::row::RowType;

/// `out[t, r] = w[r] . x[t]` of dequantized rows, summed in f64. `w` is `rows` rows of type `ty`, `x` is
/// `[tokens, cols]`.
pub fn matmul(ty: RowType, w: &[u8], rows: usize, cols: usize, x: &[f32]) -> Result<Vec<f32>, CodecError> {
    let tokens = x.len() / cols;
    let mut row = vec![0.0; cols];
    let mut out = vec![0.0; tokens * rows];
    let row_bytes = w.len() / rows;
    for r in 0..rows {
        codec::dequantize_row(ty, &w[r * row_bytes..][..row_bytes], &mut row)?;
        for t in 0..tokens {
            let dot: f64 =
                row.iter().zip(&x[t * cols..][..cols]).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            out[t * rows + r] = dot as f32;
        }
    }
    Ok(out)
}

/// Attention of one head in f64: query `[head_dim]`, keys and values `[positions, head_dim]`.
pub fn attend(query: &[f32], keys: &[f32], values: &[f32], scale: f32) -> Vec<f32> {
    let head_dim = query.len();
    let scores: Vec<f64> = keys
        .chunks_exact(head_dim)
        .map(|k| {
            query.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>() * f64::from(scale)
        })
        .collect();
    let max = scores.iter().fold(f64::NEG_INFINITY, |m, &s| m.max(s));
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..head_dim)
        .map(|i| {
            let sum: f64 =
                weights.iter().zip(values.chunks_exact(head_dim)).map(|(w, v)| w * f64::from(v[i])).sum();
            (sum / total) as f32
        })
        .collect()
}
