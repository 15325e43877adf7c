//! What an error of a row of weights costs: `e H e^T`, H the second moments of the layer's inputs.

use super::products::Rows;

/// Share of the mean diagonal element that is added to the diagonal, so that inputs that the text hardly shows do not
/// let weights run away (GPTQ's damping, arXiv 2210.17323); and what is added to it for each column that there is to a
/// token: few tokens say little about many columns.
const DAMPING: f64 = 0.01;
const DAMPING_OF_FEW: f64 = 0.2;

/// H with its columns in the order in which they are worked on, and its Cholesky factor.
#[derive(Debug)]
pub(crate) struct Metric {
    /// Columns.
    pub(crate) n: usize,
    /// The column of the weights that stands at each place.
    pub(crate) order: Vec<usize>,
    /// Groups of columns with a common scale, by their places, and the group's index in the row.
    pub(crate) groups: Vec<Group>,
    /// H, damped, `[n, n]`.
    pub(crate) h: Rows,
    /// L of H = L L^T.
    pub(crate) lower: Rows,
    /// L^T, each row divided by its diagonal element.
    pub(crate) upper: Rows,
    /// Squares of L's diagonal: what an error of a column costs that those before it cannot make good.
    pub(crate) conditional: Vec<f32>,
}

/// Columns with a common scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// First place.
    pub(crate) start: usize,
    /// Behind the last place.
    pub(crate) end: usize,
    /// Which group of the row it is.
    pub(crate) index: usize,
}

impl Metric {
    /// From the sum `h` of the outer products of the inputs of `tokens` tokens, `[n, n]`; groups are `group` columns each. The columns that
    /// matter most come last, which is where [`super::codes`] begins: those still to come can make good their errors.
    pub(crate) fn new(h: &[f32], n: usize, group: usize, tokens: usize) -> Self {
        let diagonal = |c: usize| f64::from(h[c * n + c]);
        let mean = (0..n).map(diagonal).sum::<f64>() / n as f64;
        let share = DAMPING + DAMPING_OF_FEW * n as f64 / tokens.max(1) as f64;
        let damping = if mean > 0.0 { mean * share } else { 1.0 };
        let mut ranked: Vec<(usize, f64)> = (0..n.div_ceil(group))
            .map(|g| {
                let columns = g * group..n.min((g + 1) * group);
                let len = columns.len() as f64;
                (g, columns.map(diagonal).sum::<f64>() / len)
            })
            .collect();
        ranked.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        let (mut order, mut groups) = (Vec::with_capacity(n), Vec::with_capacity(ranked.len()));
        for (index, _) in ranked {
            let start = order.len();
            let mut columns: Vec<usize> = (index * group..n.min((index + 1) * group)).collect();
            columns.sort_by(|&a, &b| diagonal(a).total_cmp(&diagonal(b)).then(a.cmp(&b)));
            order.extend(columns);
            groups.push(Group { start, end: order.len(), index });
        }
        let mut damped = vec![0.0f32; n * n];
        for (row, &r) in damped.chunks_exact_mut(n).zip(&order) {
            for (value, &c) in row.iter_mut().zip(&order) {
                // Both halves are the same sums, in another order.
                *value = (h[r * n + c] + h[c * n + r]) / 2.0;
            }
        }
        (0..n).for_each(|i| damped[i * n + i] += damping as f32);
        let factor = cholesky(&damped, n);
        let diagonal: Vec<f32> = (0..n).map(|i| factor[i * n + i]).collect();
        let upper = (0..n * n).map(|i| factor[i % n * n + i / n] / diagonal[i / n]);
        Self {
            n,
            upper: Rows::new(upper, n),
            lower: Rows::new(factor.iter().copied(), n),
            h: Rows::new(damped, n),
            conditional: diagonal.iter().map(|d| d * d).collect(),
            order,
            groups,
        }
    }

    /// The columns of `rows`, `[_, n]`, in this order.
    pub(crate) fn permuted(&self, rows: &[f32]) -> Vec<f32> {
        rows.chunks_exact(self.n).flat_map(|row| self.order.iter().map(|&c| row[c])).collect()
    }
}

/// L of H = L L^T, `[n, n]`, its upper half zero. Where rounding has left no positive element on the diagonal, the
/// least that there can be stands in.
pub(crate) fn cholesky(h: &[f32], n: usize) -> Vec<f32> {
    let mut factor = vec![0.0f32; n * n];
    for i in 0..n {
        let (above, row) = factor.split_at_mut(i * n);
        for j in 0..i {
            let other = &above[j * n..][..n];
            row[j] = ((f64::from(h[i * n + j]) - dot(&row[..j], &other[..j])) / f64::from(other[j])) as f32;
        }
        let left = f64::from(h[i * n + i]) - dot(&row[..i], &row[..i]);
        row[i] = left.max(f64::from(h[i * n + i]).abs() * 1e-6 + 1e-20).sqrt() as f32;
    }
    factor
}

/// x of A x = b, A symmetric and positive, `[n, n]`.
pub(crate) fn divide_one(a: &[f32], b: &[f32]) -> Vec<f32> {
    let n = b.len();
    let factor = cholesky(a, n);
    let mut x = vec![0.0f32; n];
    for i in 0..n {
        let row = &factor[i * n..][..n];
        x[i] = ((f64::from(b[i]) - dot(&row[..i], &x[..i])) / f64::from(row[i])) as f32;
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| f64::from(x[j]) * f64::from(factor[j * n + i])).sum();
        x[i] = ((f64::from(x[i]) - known) / f64::from(factor[i * n + i])) as f32;
    }
    x
}

/// The sum of products, in f64 every 64 of them.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sum = 0.0;
    for (a, b) in a.chunks(64).zip(b.chunks(64)) {
        let mut lanes = [0.0f32; 8];
        let (a_whole, a_rest) = a.as_chunks::<8>();
        let (b_whole, b_rest) = b.as_chunks::<8>();
        for (a, b) in a_whole.iter().zip(b_whole) {
            for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
                *lane += a * b;
            }
        }
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
        sum += f64::from(lanes.iter().sum::<f32>() + rest);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_gives_the_matrix_back() {
        let n = 37;
        let a: Vec<f32> = (0..n * n).map(|i| ((i * 7919 % 1013) as f32 - 506.0) / 506.0).collect();
        let mut h = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                h[i * n + j] =
                    dot(&a[i * n..][..n], &a[j * n..][..n]) as f32 + if i == j { 0.5 } else { 0.0 };
            }
        }
        let l = cholesky(&h, n);
        for i in 0..n {
            for j in 0..n {
                let back = dot(&l[i * n..][..n], &l[j * n..][..n]);
                assert!((back - f64::from(h[i * n + j])).abs() < 1e-4, "{i} {j}");
            }
        }
        let x: Vec<f32> = (0..n).map(|i| i as f32 / 10.0 - 1.0).collect();
        let b: Vec<f32> = h.chunks(n).map(|row| dot(row, &x) as f32).collect();
        let back = divide_one(&h, &b);
        assert!(back.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-3), "{back:?}");
    }

    #[test]
    fn groups_keep_together_and_the_weightiest_comes_last() {
        let n = 7;
        let mut h = vec![0.0; n * n];
        for (i, d) in [1.0, 9.0, 5.0, 0.0, 2.0, 3.0, 40.0].into_iter().enumerate() {
            h[i * n + i] = d;
        }
        let metric = Metric::new(&h, n, 3, 1000);
        assert_eq!(metric.order, [3, 4, 5, 0, 2, 1, 6]);
        assert_eq!(metric.groups.last(), Some(&Group { start: 6, end: 7, index: 2 }));
    }
}
