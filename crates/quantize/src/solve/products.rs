//! Products of matrices in f32 by the kernels that run models.

use kernels::matmul::matmul;
use kernels::row::RowType;
use kernels::{ActivationForm, Activations, MatmulError, Matrix, Team};

/// Rows of f32 as the kernels take them, `[rows, cols]`.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    cols: usize,
    bytes: Vec<u8>,
}

impl Rows {
    pub(crate) fn new(values: impl IntoIterator<Item = f32>, cols: usize) -> Self {
        let values = values.into_iter();
        let mut bytes = Vec::with_capacity(4 * values.size_hint().0);
        values.for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        Self { cols, bytes }
    }

    /// Element `[row, col]`.
    pub(crate) fn at(&self, row: usize, col: usize) -> f32 {
        let bytes = self.bytes[4 * (row * self.cols + col)..].first_chunk::<4>();
        bytes.map_or(0.0, |bytes| f32::from_le_bytes(*bytes))
    }

    /// The rows `first..end` from column `from` to `to`.
    pub(crate) fn part(&self, (first, end): (usize, usize), (from, to): (usize, usize)) -> Vec<f32> {
        (first..end).flat_map(|r| (from..to).map(move |c| self.at(r, c))).collect()
    }
}

/// Threads, and room for the left-hand sides of products.
#[derive(Debug)]
pub(crate) struct Products {
    team: Team,
    threads: usize,
    input: Activations,
}

impl Products {
    pub(crate) fn new(threads: usize) -> Self {
        Self { team: Team::new(threads), threads, input: Activations::default() }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Takes `a`, `[n, cols]`, as the left-hand side of the products to come.
    pub(crate) fn load(&mut self, a: &[f32], cols: usize) {
        self.input.load(a, a.len() / cols, cols);
    }

    /// `out[i, r] = a[i] . b[first + r]` for the rows `first..end` of `b`.
    pub(crate) fn times(
        &mut self,
        b: &Rows,
        (first, end): (usize, usize),
        out: &mut [f32],
    ) -> Result<(), MatmulError> {
        let bytes = &b.bytes[4 * first * b.cols..4 * end * b.cols];
        let matrix = Matrix::new(RowType::F32, end - first, b.cols, bytes)?;
        matmul(&self.team, &matrix, &mut self.input, ActivationForm::F32, out)
    }
}

/// Shares `rows` rows of several arrays among threads: calls `each` with the index of the first row of a share and
/// that share of each array.
pub(crate) fn share_rows<const N: usize>(
    threads: usize,
    rows: usize,
    arrays: [&mut [f32]; N],
    each: impl Fn(usize, [&mut [f32]; N]) + Sync,
) {
    let share = rows.div_ceil(threads.max(1)).max(1);
    let mut rest = arrays.map(|array| {
        let width = array.len() / rows.max(1);
        (array, width)
    });
    std::thread::scope(|scope| {
        for first in (0..rows).step_by(share) {
            let n = share.min(rows - first);
            let mut taken = Vec::with_capacity(N);
            for (array, width) in &mut rest {
                let (head, tail) = std::mem::take(array).split_at_mut(n * *width);
                *array = tail;
                taken.push(head);
            }
            let each = &each;
            if let Ok(taken) = <[&mut [f32]; N]>::try_from(taken) {
                if first + n == rows {
                    each(first, taken);
                } else {
                    scope.spawn(move || each(first, taken));
                }
            }
        }
    });
}
