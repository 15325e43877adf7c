//! Rows of floating-point weights against f32 activations, written once over [`Vector`] and compiled for each instruction
//! set (`arch/ops_*.rs`).
//!
//! Tiles of a few rows and tokens keep their sums in registers. Each pair of a row and a token has one vector of sums, which
//! sees the columns sixteen by sixteen in their order, and whose lanes are summed in one order: whatever tile a pair falls
//! into, its bits are the same. Weights of 16 bits become f32, exactly, on their way into the registers.

use crate::matmul::Columns;
use crate::vector::{LANES, Vector, load_any};

/// Weights in place.
#[derive(Clone, Copy)]
pub(crate) enum Floats<'a> {
    F32(&'a [f32]),
    /// As the bits of IEEE binary16.
    F16(&'a [u16]),
    /// As the upper halves of f32.
    BF16(&'a [u16]),
}

/// Whole rows of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct FloatRows<'a> {
    /// `[rows, cols]`
    pub(crate) rows: Floats<'a>,
    pub(crate) cols: usize,
    /// Number of the first row in the matrix.
    pub(crate) first: usize,
}

/// A weight in memory.
trait Weight: Copy {
    fn load<V: Vector>(x: &[Self; LANES]) -> V;
    /// At most sixteen, the rest 0.
    fn load_any<V: Vector>(x: &[Self]) -> V;
}

impl Weight for f32 {
    #[inline(always)]
    fn load<V: Vector>(x: &[Self; LANES]) -> V {
        V::load(x)
    }

    #[inline(always)]
    fn load_any<V: Vector>(x: &[Self]) -> V {
        load_any(x)
    }
}

/// Sixteen bits whose type a constant tells.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Half<const BRAIN: bool>(u16);

impl<const BRAIN: bool> Half<BRAIN> {
    fn slice(bits: &[u16]) -> &[Self] {
        // SAFETY: the type is transparent: it is laid out as its only field.
        unsafe { std::slice::from_raw_parts(bits.as_ptr().cast(), bits.len()) }
    }
}

impl<const BRAIN: bool> Weight for Half<BRAIN> {
    #[inline(always)]
    fn load<V: Vector>(x: &[Self; LANES]) -> V {
        // SAFETY: as in `slice`.
        let bits = unsafe { &*std::ptr::from_ref(x).cast::<[u16; LANES]>() };
        if BRAIN { V::load_bf16(bits) } else { V::load_f16(bits) }
    }

    #[inline(always)]
    fn load_any<V: Vector>(x: &[Self]) -> V {
        let mut lanes = [Self(0); LANES];
        lanes[..x.len()].copy_from_slice(x);
        Self::load(&lanes)
    }
}

/// `out[t, r] = w[r] . xs[t]`, xs `[tokens, cols]`, by tiles of `R` rows and `T` tokens, or four rows of a single token.
///
/// # Safety
/// No other thread writes the columns of these rows at the same time.
#[inline(always)]
pub(crate) unsafe fn multiply<V: Vector, const R: usize, const T: usize>(
    w: &FloatRows<'_>,
    xs: &[f32],
    out: &Columns<'_>,
) {
    // SAFETY: as the caller promises.
    unsafe {
        match w.rows {
            Floats::F32(rows) => multiply_rows::<V, _, R, T>(rows, w, xs, out),
            Floats::F16(rows) => multiply_rows::<V, _, R, T>(Half::<false>::slice(rows), w, xs, out),
            Floats::BF16(rows) => multiply_rows::<V, _, R, T>(Half::<true>::slice(rows), w, xs, out),
        }
    }
}

/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn multiply_rows<V: Vector, W: Weight, const R: usize, const T: usize>(
    rows: &[W],
    w: &FloatRows<'_>,
    xs: &[f32],
    out: &Columns<'_>,
) {
    let (n, tokens) = (rows.len() / w.cols, xs.len() / w.cols);
    let mut r = 0;
    while r < n {
        let (rows, to) = (&rows[r * w.cols..], w.first + r);
        // SAFETY: as the caller promises.
        r += unsafe {
            match tokens {
                1 if n - r >= 4 => strip::<V, W, 4, 1>(rows, w.cols, xs, out, to),
                2.. if n - r >= R => strip::<V, W, R, T>(rows, w.cols, xs, out, to),
                _ => strip::<V, W, 1, T>(rows, w.cols, xs, out, to),
            }
        };
    }
}

/// The first `R` of `rows` against all tokens; returns `R`.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn strip<V: Vector, W: Weight, const R: usize, const T: usize>(
    rows: &[W],
    cols: usize,
    xs: &[f32],
    out: &Columns<'_>,
    to: usize,
) -> usize {
    let (rows, ahead) = rows.split_at(R * cols);
    let rows: [&[W]; R] = std::array::from_fn(|r| &rows[r * cols..][..cols]);
    let tokens = xs.len() / cols;
    let x = |t: usize| &xs[t * cols..][..cols];
    let mut t = 0;
    while t + T <= tokens {
        // The first tile brings what the next rows need.
        let ahead = if t == 0 { ahead } else { &[] };
        let sums = tile::<V, W, R, T>(rows, std::array::from_fn(|i| x(t + i)), ahead);
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: as the caller promises.
            unsafe { out.write_token(t + i, to, sums) };
        }
        t += T;
    }
    while t < tokens {
        let [sums] = tile::<V, W, R, 1>(rows, [x(t)], &[]);
        // SAFETY: as the caller promises.
        unsafe { out.write_token(t, to, &sums) };
        t += 1;
    }
    R
}

/// `[T][R]` sums; `ahead`: the weights that come next.
#[inline(always)]
fn tile<V: Vector, W: Weight, const R: usize, const T: usize>(
    rows: [&[W]; R],
    xs: [&[f32]; T],
    ahead: &[W],
) -> [[f32; R]; T] {
    let cols = rows[0].len();
    let chunks = cols / LANES;
    let per_line = 64 / (size_of::<W>() * LANES);
    let w16 = rows.map(|row| &row.as_chunks::<LANES>().0[..chunks]);
    let x16 = xs.map(|x| &x.as_chunks::<LANES>().0[..chunks]);
    let mut sums = [[V::splat(0.0); R]; T];
    for c in 0..chunks {
        if c % per_line == 0 && !ahead.is_empty() {
            for r in 0..R {
                V::prefetch(ahead, r * cols + c * LANES);
            }
        }
        let mut w = [V::splat(0.0); R];
        for r in 0..R {
            w[r] = W::load(&w16[r][c]);
        }
        for t in 0..T {
            let x = V::load(&x16[t][c]);
            for r in 0..R {
                sums[t][r] = w[r].mul_add(x, sums[t][r]);
            }
        }
    }
    if chunks * LANES < cols {
        let mut w = [V::splat(0.0); R];
        for r in 0..R {
            w[r] = W::load_any(&rows[r][chunks * LANES..]);
        }
        for t in 0..T {
            let x = load_any::<V>(&xs[t][chunks * LANES..]);
            for r in 0..R {
                sums[t][r] = w[r].mul_add(x, sums[t][r]);
            }
        }
    }
    let mut out = [[0.0; R]; T];
    for t in 0..T {
        out[t] = V::sums(sums[t]);
    }
    out
}
