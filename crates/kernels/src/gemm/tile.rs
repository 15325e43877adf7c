//! The tile of C whose sums stay in registers while A and B go by.

use crate::vector::{LANES, Vector};

/// A packed strip of A, all packed panels of B, and which part of C they make.
pub(crate) struct Strip<'a> {
    /// `[depth, R]`
    pub(super) a: &'a [f32],
    /// `[panels, depth, W]`
    pub(super) b: &'a [f32],
    /// At most R.
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
    pub(super) add: bool,
}

/// What a tile's registers hold and do.
pub(crate) trait Lanes: Copy {
    fn splat(x: f32) -> Self;
    fn load(x: &[f32; LANES]) -> Self;
    fn store(self, out: &mut [f32; LANES]);
    fn add(self, other: Self) -> Self;
    /// `c` and, in each lane, the product of what lies packed in `self` and `b`.
    fn multiply_add(self, b: Self, c: Self) -> Self;
}

impl<V: Vector> Lanes for V {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        V::splat(x)
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        V::load(x)
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        V::store(self, out);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        V::add(self, other)
    }

    #[inline(always)]
    fn multiply_add(self, b: Self, c: Self) -> Self {
        self.mul_add(b, c)
    }
}

/// The part of C, which begins at `c[0]`, by tiles of `R` rows and `N` vectors.
#[inline(always)]
pub(crate) fn multiply_strip<V: Lanes, const R: usize, const N: usize>(strip: &Strip<'_>, c: &mut [f32]) {
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
fn tile<V: Lanes, const R: usize, const N: usize>(a: &[[f32; R]], b: &[[[f32; LANES]; N]]) -> [[V; N]; R] {
    let mut sums = [[V::splat(0.0); N]; R];
    for (a, b) in a.iter().zip(b) {
        let mut columns = [V::splat(0.0); N];
        for j in 0..N {
            columns[j] = V::load(&b[j]);
        }
        for i in 0..R {
            let x = V::splat(a[i]);
            for j in 0..N {
                sums[i][j] = x.multiply_add(columns[j], sums[i][j]);
            }
        }
    }
    sums
}
