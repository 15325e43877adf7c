//! The order of the four weights in a byte of a bitllama file, told from trained weights.
//!
//! Both orders have the same codes, so that no invalid code gives the wrong one away. But a trained transformer
//! reads its residual stream in the directions in which it writes it. The writing side is known in either
//! order: the rows of wo and w2 are residual dimensions, and a product of two rows does not change when both
//! are permuted alike. The reading side is the columns of wq, wk, wv, w1 and w3, whose places depend on the
//! order. So the products of all pairs of rows are correlated with the products of all pairs of columns, once
//! for each of the 24 orders that four weights can have. Two of those are real orders; the other 22 say how
//! much correlation chance gives.

use crate::bitllama::BitOrder;
use crate::error::FormatError;
use crate::header::Header;
use crate::tensor::TensorInfo;

/// Most residual dimensions that are compared, all four of a byte together.
const MAX_DIMS: usize = 256;
/// Most weights of one dimension that enter a product; more would cost time and not change the answer.
const MAX_WEIGHTS: usize = 1 << 16;
/// Codes in a word.
const CODES: usize = 32;

/// Bytes of a matrix's codes in the file: behind its scale.
struct Codes<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
}

/// The order of a file whose tensors are these (in whichever order they were read).
///
/// The order is told when its correlation is more than twice that of every other of the 24 permutations and
/// more than ten standard deviations of chance. The files that we know have 0.69 and 0.59 against at most
/// 0.23 and 0.21.
///
/// # Errors
/// [`FormatError::Field`] "bit order" when it is not.
pub(crate) fn detect_order(
    bytes: &[u8],
    header: &Header,
    tensors: &[TensorInfo],
) -> Result<BitOrder, FormatError> {
    let groups = sampled_groups(header.dim / 4);
    let written = gram(&rows(bytes, tensors, &["wo", "w2"], &groups)?);
    let read = gram(&columns(bytes, tensors, &["wq", "wk", "wv", "w1", "w3"], &groups)?);
    let least_first = [0, 1, 2, 3];
    let most_first = [3, 2, 1, 0];
    let scores: Vec<([usize; 4], f64)> =
        permutations().into_iter().map(|order| (order, correlation(&written, &read, order))).collect();
    let pairs = groups.len() * 4 * (groups.len() * 4 - 1) / 2;
    let chance = 10.0 / (pairs.max(1) as f64).sqrt();
    for (order, named) in
        [(least_first, BitOrder::LeastSignificantFirst), (most_first, BitOrder::MostSignificantFirst)]
    {
        let (own, others): (Vec<_>, Vec<_>) = scores.iter().partition(|(other, _)| *other == order);
        let score = own.first().map_or(0.0, |(_, score)| *score);
        if score > chance && others.iter().all(|(_, other)| score > 2.0 * other.abs()) {
            return Ok(named);
        }
    }
    let problem = "the weights do not tell in which order a byte holds them; name it";
    Err(FormatError::field("bit order", 0, problem))
}

/// Indices of the bytes of a row that are looked at, evenly spread.
fn sampled_groups(count: usize) -> Vec<usize> {
    let step = count.div_ceil(MAX_DIMS / 4).max(1);
    (0..count).step_by(step).collect()
}

/// The matrices with these names in every layer.
fn matrices<'a>(
    bytes: &'a [u8],
    tensors: &[TensorInfo],
    stems: &[&str],
) -> Result<Vec<Codes<'a>>, FormatError> {
    let wanted = tensors
        .iter()
        .filter(|tensor| tensor.name.rsplit_once('.').is_some_and(|(_, stem)| stems.contains(&stem)));
    wanted
        .map(|tensor| {
            let range = tensor.range(bytes.len() as u64)?;
            let codes = &bytes[range.start + 4..range.end];
            Ok(Codes { bytes: codes, row_bytes: tensor.cols() as usize / 4 })
        })
        .collect()
}

/// The rows that belong to the sampled residual dimensions, each over all matrices, as words of codes.
fn rows(
    bytes: &[u8],
    tensors: &[TensorInfo],
    stems: &[&str],
    groups: &[usize],
) -> Result<Vec<Vec<u64>>, FormatError> {
    let mut vectors = vec![Vec::new(); groups.len() * 4];
    for matrix in matrices(bytes, tensors, stems)? {
        for (vector, row) in vectors.iter_mut().zip(groups.iter().flat_map(|group| group * 4..group * 4 + 4))
        {
            let codes = &matrix.bytes[row * matrix.row_bytes..][..matrix.row_bytes];
            if vector.len() * CODES < MAX_WEIGHTS {
                vector.extend(codes.chunks(8).map(word));
            }
        }
    }
    Ok(vectors)
}

fn word(codes: &[u8]) -> u64 {
    codes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// The columns at the four places of the sampled bytes, least significant first, over all matrices.
fn columns(
    bytes: &[u8],
    tensors: &[TensorInfo],
    stems: &[&str],
    groups: &[usize],
) -> Result<Vec<Vec<u64>>, FormatError> {
    let mut vectors = vec![Vec::new(); groups.len() * 4];
    for matrix in matrices(bytes, tensors, stems)? {
        for rows in matrix.bytes.chunks(matrix.row_bytes * CODES) {
            if vectors.first().is_none_or(|vector| vector.len() * CODES >= MAX_WEIGHTS) {
                break;
            }
            for (&group, places) in groups.iter().zip(vectors.chunks_mut(4)) {
                let mut words = [0u64; 4];
                for (i, row) in rows.chunks(matrix.row_bytes).enumerate() {
                    for (place, word) in words.iter_mut().enumerate() {
                        *word |= u64::from(row[group] >> (2 * place) & 3) << (2 * i);
                    }
                }
                for (vector, word) in places.iter_mut().zip(words) {
                    vector.push(word);
                }
            }
        }
    }
    Ok(vectors)
}

/// Products of all pairs of vectors.
fn gram(vectors: &[Vec<u64>]) -> Vec<Vec<f64>> {
    let mut products = vec![vec![0.0; vectors.len()]; vectors.len()];
    for (i, a) in vectors.iter().enumerate() {
        for (j, b) in vectors.iter().enumerate().take(i) {
            let product = dot(a, b) as f64;
            products[i][j] = product;
            products[j][i] = product;
        }
    }
    products
}

/// Sum of the products of the ternary weights: a code is not zero when its low bit is set, negative when its
/// high bit is.
fn dot(a: &[u64], b: &[u64]) -> i64 {
    const LOW_BITS: u64 = 0x5555_5555_5555_5555;
    let pairs = a.iter().zip(b).map(|(&a, &b)| {
        let both = a & b & LOW_BITS;
        let differ = (a ^ b) >> 1 & both;
        i64::from(both.count_ones()) - 2 * i64::from(differ.count_ones())
    });
    pairs.sum()
}

/// Pearson's correlation over all pairs of dimensions, when weight `p` of a byte lies at place `order[p]`.
fn correlation(written: &[Vec<f64>], read: &[Vec<f64>], order: [usize; 4]) -> f64 {
    let place = |dim: usize| dim / 4 * 4 + order[dim % 4];
    let (mut n, mut x, mut y, mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (i, row) in written.iter().enumerate() {
        for (j, &w) in row.iter().enumerate().take(i) {
            let r = read[place(i)][place(j)];
            n += 1.0;
            x += w;
            y += r;
            xx += w * w;
            yy += r * r;
            xy += w * r;
        }
    }
    let variance = (n * xx - x * x) * (n * yy - y * y);
    if variance > 0.0 { (n * xy - x * y) / variance.sqrt() } else { 0.0 }
}

/// The 24 orders of four places.
fn permutations() -> Vec<[usize; 4]> {
    let all = (0..256).map(|n| [n % 4, n / 4 % 4, n / 16 % 4, n / 64]);
    all.filter(|order| (0..4).all(|place| order.contains(&place))).collect()
}
