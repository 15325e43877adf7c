//! Products of two matrices of floats, `C = A B`: what training is made of.
//!
//! The way of Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008): B is packed into panels
//! of a few vectors' width that stay in the second-level cache, a strip of a few rows of A into the first-level one, and
//! their product into registers. A and B are read through strides, so a transposed matrix costs no copy of its own.

use crate::dispatch::vector_ops;
use crate::vector::{LANES, Vector};

/// Depth of what is multiplied at once.
const DEPTH: usize = 256;

/// Columns of B that are packed at once: with [`DEPTH`] rows half a megabyte.
const WIDTH: usize = 512;

/// A matrix in place: element (i, j) is `data[i * row + j * col]`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    row: usize,
    col: usize,
}

impl<'a> View<'a> {
    /// Rows that lie `stride` apart, each row's elements side by side.
    pub fn rows(data: &'a [f32], stride: usize) -> Self {
        Self { data, row: stride, col: 1 }
    }

    /// The same numbers with rows and columns changed over.
    pub fn transposed(self) -> Self {
        Self { data: self.data, row: self.col, col: self.row }
    }

    /// Whether `rows x cols` elements lie inside.
    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.row + (cols - 1) * self.col < self.data.len()
    }
}

/// Sizes of a product: `[m, k] x [k, n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
}

/// What becomes of what C holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// It is overwritten.
    Write,
    /// The product is added to it.
    Add,
}

/// Room for packed panels. One for each thread, reused for all products.
#[derive(Debug, Default)]
pub struct Gemm {
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Gemm {
    /// No room yet: the first product makes it.
    pub fn new() -> Self {
        Self::default()
    }

    /// `C = A B` or `C += A B` on the calling thread; C's rows lie `stride` apart. A sum's order depends on the sizes
    /// and the instruction set alone.
    ///
    /// # Panics
    /// When a matrix is smaller than `size` says, or C's rows overlap.
    pub fn multiply(
        &mut self,
        size: Size,
        a: View<'_>,
        b: View<'_>,
        output: Output,
        c: &mut [f32],
        stride: usize,
    ) {
        let Size { m, n, k } = size;
        assert!(a.holds(m, k) && b.holds(k, n), "a matrix is smaller than {size:?}");
        assert!(m == 0 || n == 0 || (n <= stride && (m - 1) * stride + n <= c.len()), "C for {size:?}");
        if m == 0 || n == 0 {
            return;
        }
        if k == 0 && output == Output::Write {
            c.chunks_mut(stride).take(m).for_each(|row| row[..n].fill(0.0));
        }
        let ops = vector_ops();
        let (rows, width) = ops.gemm_tile;
        self.a.resize(rows * DEPTH, 0.0);
        self.b.resize(WIDTH * DEPTH, 0.0);
        for n0 in (0..n).step_by(WIDTH) {
            let n_part = WIDTH.min(n - n0);
            for k0 in (0..k).step_by(DEPTH) {
                let k_part = DEPTH.min(k - k0);
                let add = output == Output::Add || k0 > 0;
                let b_len = n_part.div_ceil(width) * width * k_part;
                for (panel, to) in self.b[..b_len].chunks_exact_mut(width * k_part).enumerate() {
                    let at = n0 + panel * width;
                    let part = Part { from: b.transposed(), first: at, count: width.min(n - at), k0 };
                    // SAFETY: `vector_ops()` gives only functions that this processor can run.
                    unsafe { (ops.gemm_pack.1)(part, to) };
                }
                for m0 in (0..m).step_by(rows) {
                    let m_part = rows.min(m - m0);
                    let a_len = rows * k_part;
                    let part = Part { from: a, first: m0, count: m_part, k0 };
                    // SAFETY: as above.
                    unsafe { (ops.gemm_pack.0)(part, &mut self.a[..a_len]) };
                    let strip = Strip {
                        a: &self.a[..a_len],
                        b: &self.b[..b_len],
                        rows: m_part,
                        cols: n_part,
                        stride,
                        add,
                    };
                    // SAFETY: as above.
                    unsafe { (ops.gemm_strip)(&strip, &mut c[m0 * stride + n0..]) };
                }
            }
        }
    }
}

/// Which part of a matrix is packed: `count` rows from `first` on, `depth` columns from `k0` on.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    from: View<'a>,
    first: usize,
    count: usize,
    k0: usize,
}

/// Columns that are turned into rows together.
const TURNED: usize = 8;

/// The part as `[depth, W]`; missing rows are 0.
#[inline(always)]
pub(crate) fn pack<const W: usize>(part: Part<'_>, to: &mut [f32]) {
    let Part { from, first, count, k0 } = part;
    let to = to.as_chunks_mut::<W>().0;
    if count < W {
        for (k, to) in to.iter_mut().enumerate() {
            *to = [0.0; W];
            for (i, to) in to.iter_mut().enumerate().take(count) {
                *to = from.data[(first + i) * from.row + (k0 + k) * from.col];
            }
        }
        return;
    }
    if from.row == 1 {
        for (k, to) in to.iter_mut().enumerate() {
            if let Some(x) = from.data[first + (k0 + k) * from.col..].first_chunk() {
                *to = *x;
            }
        }
        return;
    }
    let depth = to.len();
    let row = |i: usize| &from.data[(first + i) * from.row + k0 * from.col..];
    let whole = if from.col == 1 { depth / TURNED * TURNED } else { 0 };
    let (blocks, rest) = to.split_at_mut(whole);
    for (at, block) in blocks.as_chunks_mut::<TURNED>().0.iter_mut().enumerate() {
        for i in 0..W {
            let x = row(i)[at * TURNED..].first_chunk::<TURNED>().copied().unwrap_or_default();
            for (to, x) in block.iter_mut().zip(x) {
                to[i] = x;
            }
        }
    }
    for i in 0..W {
        let x = row(i).iter().step_by(from.col).skip(whole);
        rest.iter_mut().zip(x).for_each(|(to, &x)| to[i] = x);
    }
}

/// A packed strip of A, all packed panels of B, and which part of C they make.
pub(crate) struct Strip<'a> {
    /// `[depth, R]`
    a: &'a [f32],
    /// `[panels, depth, W]`
    b: &'a [f32],
    /// At most R.
    rows: usize,
    cols: usize,
    stride: usize,
    add: bool,
}

/// The part of C, which begins at `c[0]`, by tiles of `R` rows and `N` vectors.
#[inline(always)]
pub(crate) fn multiply_strip<V: Vector, const R: usize, const N: usize>(strip: &Strip<'_>, c: &mut [f32]) {
    let a = strip.a.as_chunks::<R>().0;
    let width = N * LANES;
    for (panel, b) in strip.b.chunks_exact(a.len() * width).enumerate() {
        let sums = tile::<V, R, N>(a, b.as_chunks::<LANES>().0.as_chunks::<N>().0);
        let from = panel * width;
        let cols = width.min(strip.cols - from);
        let c = &mut c[from..];
        if strip.rows == R && cols == width {
            for i in 0..R {
                let (c, _) = c[i * strip.stride..][..width].as_chunks_mut::<LANES>();
                for j in 0..N {
                    let sum = sums[i][j];
                    if strip.add { V::load(&c[j]).add(sum) } else { sum }.store(&mut c[j]);
                }
            }
            continue;
        }
        // At the edges, through memory: sums that are found by a variable index would never stay in registers.
        let mut lanes = [[[0.0; LANES]; N]; R];
        for i in 0..R {
            for j in 0..N {
                sums[i][j].store(&mut lanes[i][j]);
            }
        }
        for (i, lanes) in lanes.iter().enumerate().take(strip.rows) {
            for (c, sum) in c[i * strip.stride..][..cols].iter_mut().zip(lanes.as_flattened()) {
                *c = if strip.add { *c + sum } else { *sum };
            }
        }
    }
}

/// The sums of one tile.
#[inline(always)]
fn tile<V: Vector, const R: usize, const N: usize>(a: &[[f32; R]], b: &[[[f32; LANES]; N]]) -> [[V; N]; R] {
    let mut sums = [[V::splat(0.0); N]; R];
    for (a, b) in a.iter().zip(b) {
        let mut columns = [V::splat(0.0); N];
        for j in 0..N {
            columns[j] = V::load(&b[j]);
        }
        for i in 0..R {
            let x = V::splat(a[i]);
            for j in 0..N {
                sums[i][j] = x.mul_add(columns[j], sums[i][j]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 29 + seed * 71) as f32 * 0.618).sin()).collect()
    }

    /// Every way in which a matrix can lie, sizes around tiles and blocks, against sums in f64.
    #[test]
    fn products_are_those_of_the_definition() {
        let sizes =
            [(1, 1, 1), (3, 5, 7), (12, 32, 256), (13, 33, 257), (25, 70, 40), (7, 600, 3), (5, 9, 520)];
        for (m, n, k) in sizes {
            for layout in 0..8 {
                let (a_t, b_t, add) = (layout & 1 > 0, layout & 2 > 0, layout & 4 > 0);
                let (pad, stride) = (3, n + 2);
                let (a_stride, b_stride) = (if a_t { m } else { k } + pad, if b_t { k } else { n } + pad);
                let a = values(a_stride * if a_t { k } else { m }, 1);
                let b = values(b_stride * if b_t { n } else { k }, 2);
                let view = |data, stride, transposed| {
                    let view = View::rows(data, stride);
                    if transposed { view.transposed() } else { view }
                };
                let (a, b) = (view(&a, a_stride, a_t), view(&b, b_stride, b_t));
                let before = values(m * stride, 3);
                let mut c = before.clone();
                let output = if add { Output::Add } else { Output::Write };
                Gemm::new().multiply(Size { m, n, k }, a, b, output, &mut c, stride);
                for i in 0..m {
                    for j in 0..stride {
                        let old = f64::from(before[i * stride + j]);
                        let at = |v: View<'_>, i, j| f64::from(v.data[i * v.row + j * v.col]);
                        let got = f64::from(c[i * stride + j]);
                        if j >= n {
                            assert_eq!(got, old, "{m} {n} {k} {layout}: written between C's rows");
                            continue;
                        }
                        let terms = (0..k).map(|l| at(a, i, l) * at(b, l, j));
                        let terms: Vec<f64> = terms.chain(add.then_some(old)).collect();
                        let want: f64 = terms.iter().sum();
                        // What k roundings and as many of partial sums can do at most (Higham, 2002, section 3.1).
                        let bound = (k + 2) as f64 * f64::from(f32::EPSILON) / 2.0;
                        let bound = bound * terms.iter().map(|t| t.abs()).sum::<f64>();
                        assert!((got - want).abs() <= bound, "{m} {n} {k} {layout}: {got} for {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_product_without_depth_is_zero() {
        let mut c = [1.0; 4];
        let empty = View::rows(&[], 0);
        Gemm::new().multiply(Size { m: 2, n: 2, k: 0 }, empty, empty, Output::Add, &mut c, 2);
        assert_eq!(c, [1.0; 4]);
        Gemm::new().multiply(Size { m: 2, n: 2, k: 0 }, empty, empty, Output::Write, &mut c, 2);
        assert_eq!(c, [0.0; 4]);
    }
}
