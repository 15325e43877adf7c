//! Products of two matrices of floats, `C = A B`: what training is made of.
//!
//! The way of Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008): B is packed into panels
//! of a few vectors' width that stay in the second-level cache, a strip of a few rows of A into the first-level one, and
//! their product into registers. A and B are read through strides, so a transposed matrix costs no copy of its own.

#[cfg(target_arch = "x86_64")]
mod pairs;
mod tile;

#[cfg(target_arch = "x86_64")]
pub(crate) use pairs::{Pairs, pack_pairs};
#[cfg(target_arch = "x86_64")]
pub(crate) use tile::Lanes;
pub(crate) use tile::{Strip, multiply_strip};

use crate::dispatch::{gemm_pairs, vector_ops};

/// Depth of what is multiplied at once.
const DEPTH: usize = 256;

/// Columns of B that are packed at once: with [`DEPTH`] rows half a megabyte.
const WIDTH: usize = 512;

/// Rows of A that are packed at once: a multiple of every tile's. A transposed matrix is so read by several cache lines side
/// by side, without waiting for each.
const HEIGHT: usize = 96;

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

/// How exactly a product is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// In f32.
    #[default]
    F32,
    /// Factors are rounded to bfloat16, whose 8 bits of mantissa make an error of at most 1/512 of each; sums are kept in
    /// f32. Twice as fast where the processor has instructions for it (AVX512-BF16); elsewhere the same as `F32`.
    Bf16,
}

/// Room for packed panels. One for each thread, reused for all products.
#[derive(Debug, Default)]
pub struct Gemm {
    /// How the products to come are made.
    pub precision: Precision,
    a: Vec<f32>,
    b: Vec<f32>,
}

/// The inner loops of one instruction set and precision.
pub(crate) struct GemmOps {
    /// Rows and columns of the tile that [`multiply_strip`] keeps in registers.
    pub(crate) tile: (usize, usize),
    /// How many elements of A's rows and B's columns lie in one packed number.
    pub(crate) group: usize,
    /// See [`pack`]: as many rows as the tile has, and as many as it has columns.
    pub(crate) pack: (Pack, Pack),
    /// See [`multiply_strip`].
    pub(crate) strip: unsafe fn(&Strip<'_>, &mut [f32]),
}

/// What is packed, and where to.
type Pack = unsafe fn(Part<'_>, &mut [f32]);

impl Gemm {
    /// No room yet: the first product makes it.
    pub fn new(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }

    /// `C = A B` or `C += A B` on the calling thread; C's rows lie `stride` apart. A sum's order depends on the sizes,
    /// the precision and the instruction set alone.
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
        let pairs = gemm_pairs().filter(|_| self.precision == Precision::Bf16);
        let ops = pairs.unwrap_or(&vector_ops().gemm);
        let (rows, width) = ops.tile;
        self.a.resize(HEIGHT.div_ceil(rows) * rows * DEPTH, 0.0);
        self.b.resize(WIDTH * DEPTH, 0.0);
        for n0 in (0..n).step_by(WIDTH) {
            let n_part = WIDTH.min(n - n0);
            for k0 in (0..k).step_by(DEPTH) {
                let k_part = DEPTH.min(k - k0);
                let add = output == Output::Add || k0 > 0;
                let depth = k_part.div_ceil(ops.group);
                let b_len = n_part.div_ceil(width) * width * depth;
                let part = Part { from: b.transposed(), first: n0, count: n_part, k0, k_part };
                // SAFETY: the dispatch page gives only functions that this processor can run.
                unsafe { (ops.pack.1)(part, &mut self.b[..b_len]) };
                for m0 in (0..m).step_by(HEIGHT) {
                    let m_part = HEIGHT.min(m - m0);
                    let a_len = m_part.div_ceil(rows) * rows * depth;
                    let part = Part { from: a, first: m0, count: m_part, k0, k_part };
                    // SAFETY: as above.
                    unsafe { (ops.pack.0)(part, &mut self.a[..a_len]) };
                    for (strip, a) in self.a[..a_len].chunks_exact(rows * depth).enumerate() {
                        let first = strip * rows;
                        let rows = rows.min(m_part - first);
                        let strip = Strip { a, b: &self.b[..b_len], rows, cols: n_part, stride, add };
                        // SAFETY: as above.
                        unsafe { (ops.strip)(&strip, &mut c[(m0 + first) * stride + n0..]) };
                    }
                }
            }
        }
    }
}

/// Which part of a matrix is packed: `count` rows from `first` on, `k_part` columns from `k0` on.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    from: View<'a>,
    first: usize,
    count: usize,
    k0: usize,
    k_part: usize,
}

/// Columns that are turned into rows together.
const TURNED: usize = 8;

/// The part as panels of `W` rows, `[panels, k_part, W]`; missing rows are 0.
#[inline(always)]
pub(crate) fn pack<const W: usize>(part: Part<'_>, to: &mut [f32]) {
    let Part { from, first, count, k0, k_part } = part;
    let side_by_side = if from.row == 1 { count / W } else { 0 };
    for k in 0..if side_by_side > 0 { k_part } else { 0 } {
        let x = &from.data[first + (k0 + k) * from.col..][..side_by_side * W];
        for (panel, x) in x.as_chunks::<W>().0.iter().enumerate() {
            to[(panel * k_part + k) * W..][..W].copy_from_slice(x);
        }
    }
    for (panel, to) in to.chunks_exact_mut(k_part * W).enumerate().skip(side_by_side) {
        pack_panel(part.panel(panel, W), to.as_chunks_mut::<W>().0);
    }
}

impl Part<'_> {
    /// Of panels of `width` rows the one of this index.
    #[inline(always)]
    fn panel(self, index: usize, width: usize) -> Self {
        let before = index * width;
        Self { first: self.first + before, count: width.min(self.count - before), ..self }
    }
}

/// One panel, as `[depth, W]`.
#[inline(always)]
fn pack_panel<const W: usize>(part: Part<'_>, to: &mut [[f32; W]]) {
    let Part { from, first, count, k0, .. } = part;
    if count < W {
        for (k, to) in to.iter_mut().enumerate() {
            *to = [0.0; W];
            for (i, to) in to.iter_mut().enumerate().take(count) {
                *to = from.data[(first + i) * from.row + (k0 + k) * from.col];
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
            for layout in 0..16 {
                let (a_t, b_t, add) = (layout & 1 > 0, layout & 2 > 0, layout & 4 > 0);
                let precision = if layout & 8 > 0 { Precision::Bf16 } else { Precision::F32 };
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
                let mut gemm = Gemm::new(precision);
                gemm.multiply(Size { m, n, k }, a, b, output, &mut c, stride);
                // What rounding both factors can do at most, and nothing where that is not done.
                let rounded = precision == Precision::Bf16 && gemm_pairs().is_some();
                let factors = if rounded { 2.0 / 256.0 } else { 0.0 };
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
                        let bound = (k + 2) as f64 * f64::from(f32::EPSILON) / 2.0 + factors;
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
        Gemm::default().multiply(Size { m: 2, n: 2, k: 0 }, empty, empty, Output::Add, &mut c, 2);
        assert_eq!(c, [1.0; 4]);
        Gemm::default().multiply(Size { m: 2, n: 2, k: 0 }, empty, empty, Output::Write, &mut c, 2);
        assert_eq!(c, [0.0; 4]);
    }
}
