//! Matrices of 4- to 8-bit integers with scales per 16 or 32 columns, rows interleaved by tiles.
//!
//! A tile is 16 rows, a block 32 columns. The codes of a block are lines of 64 bytes in which four neighbouring columns of
//! each row stand beside each other, row after row: what a dot-product instruction takes, without a sum across lanes. A
//! line of 4-bit codes holds the columns `4 i` to `4 i + 3` in the low and `16 + 4 i` to `16 + 4 i + 3` in the high halves
//! of its bytes; a line of 8-bit codes, unsigned, holds the columns `4 i` to `4 i + 3`. The further bits of 5- and 6-bit
//! codes have lines of their own (`layout::Width`). Scales lie apart, those of a block together; K-quants keep theirs as
//! bytes with f16 factors per 256 columns, the products of which are exact in f32.
//!
//! Values: `(code - zero) * scale`, or `code * scale + offset`, as the row types have them.

pub(crate) mod body;
mod input;
mod layout;
mod pack;
mod product;

use crate::activations::BLOCK;
use crate::arena::{Arena, Done, Lines};
use crate::dispatch::kernels;
use crate::matmul::{MatmulError, Matrix};
use crate::row::RowType;
use crate::trits::LINE;
pub(crate) use input::IntInput;
use layout::{Halves, Shape, as_halves, as_halves_mut};
pub(crate) use layout::{IntTile, TILE_ROWS};
use pack::Part;
pub use pack::Seen;
pub(crate) use product::IntKernel;
pub use product::matmul_int_tiles;

/// A matrix `[rows, cols]` in tiles.
#[derive(Debug)]
pub struct IntTiles {
    row_type: RowType,
    shape: Shape,
    rows: usize,
    cols: usize,
    lines: Lines,
    scales: Lines,
    extras: Lines,
}

impl IntTiles {
    /// Whether this processor has kernels for tiles and rows of this type can be put into them.
    pub fn takes(row_type: RowType) -> bool {
        kernels().int_tiles.is_some() && Shape::of(row_type).is_some()
    }

    /// Bytes in memory of a matrix in tiles; `None` where [`IntTiles::takes`] says no or the size overflows.
    pub fn bytes_for(row_type: RowType, rows: usize, cols: usize) -> Option<usize> {
        let shape = Shape::of(row_type).filter(|_| Self::takes(row_type))?;
        let (tiles, blocks) = (rows.div_ceil(TILE_ROWS), cols / BLOCK);
        let lines = tiles.checked_mul(blocks * shape.width.lines())?;
        let halves = |of_tile: usize| tiles.checked_mul(of_tile).map(|n| n.div_ceil(2));
        lines.checked_add(halves(blocks)?)?.checked_add(halves(shape.extras(blocks))?)?.checked_mul(LINE)
    }

    /// Packs the rows of `matrix` on `threads` threads; `None` where [`IntTiles::takes`] says no or
    /// there is no memory. `done` hears of the rows that have been read.
    pub fn pack(matrix: &Matrix<'_>, threads: usize, arena: &mut Arena, done: Done<'_>) -> Option<Self> {
        Self::pack_as(matrix, None, threads, arena, done)
    }

    /// Packs the rows of `matrix`, of any type, rounded to `row_type`. `seen` is shown each row before and after.
    pub fn pack_rounded(
        matrix: &Matrix<'_>,
        row_type: RowType,
        threads: usize,
        arena: &mut Arena,
        seen: Seen<'_>,
    ) -> Option<Self> {
        Self::pack_as(matrix, Some((row_type, seen)), threads, arena, &|_| ())
    }

    fn pack_as(
        matrix: &Matrix<'_>,
        rounded: Option<(RowType, Seen<'_>)>,
        threads: usize,
        arena: &mut Arena,
        done: Done<'_>,
    ) -> Option<Self> {
        let row_type = rounded.map_or(matrix.row_type(), |(row_type, _)| row_type);
        let shape = Shape::of(row_type).filter(|_| Self::takes(row_type))?;
        row_type.row_bytes(matrix.cols())?;
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let (tiles, blocks) = (rows.div_ceil(TILE_ROWS), cols / BLOCK);
        let (of_lines, of_extras) = (blocks * shape.width.lines(), shape.extras(blocks));
        let mut lines = arena.take(tiles * of_lines)?;
        let mut scales = arena.take((tiles * blocks).div_ceil(2))?;
        let mut extras = arena.take((tiles * of_extras).div_ceil(2))?;
        // Whole lines of scales for every thread.
        let share = tiles.div_ceil(threads.max(1)).max(1).next_multiple_of(2);
        std::thread::scope(|scope| {
            let mut extras = as_halves_mut(&mut extras).chunks_mut((share * of_extras).max(1));
            let scales = as_halves_mut(&mut scales).chunks_mut(share * blocks);
            for (i, (lines, scales)) in lines.chunks_mut(share * of_lines).zip(scales).enumerate() {
                let part = Part { matrix, rounded, first_row: i * share * TILE_ROWS, shape, done };
                let extras = extras.next().unwrap_or_default();
                scope.spawn(move || part.pack(lines, scales, extras));
            }
        });
        Some(Self { row_type, shape, rows, cols, lines, scales, extras })
    }

    /// Output dimension.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input dimension.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Type of the rows that were packed.
    pub fn row_type(&self) -> RowType {
        self.row_type
    }

    /// Bytes in memory.
    pub fn byte_len(&self) -> usize {
        (self.lines.len() + self.scales.len() + self.extras.len()) * LINE
    }

    /// Writes row `r` as f32 to `out`, `[cols]`: the look-up of an embedding.
    pub fn dequantize_row(&self, r: usize, out: &mut [f32]) -> Result<(), MatmulError> {
        if r >= self.rows || out.len() != self.cols {
            return Err(MatmulError::Shape { rows: self.rows, cols: self.cols, x: r, out: out.len() });
        }
        let (tile, row) = (self.tile(r / TILE_ROWS), r % TILE_ROWS);
        for (i, out) in out.as_chunks_mut::<{ BLOCK / 2 }>().0.iter_mut().enumerate() {
            let (b, half) = (i / 2, i % 2);
            let (scale, added) = tile.factors(row, b, half);
            for (c, out) in out.iter_mut().enumerate() {
                let code = i32::from(tile.code(row, b, half * BLOCK / 2 + c));
                let value = (code - self.shape.zero) as f32 * scale;
                *out = added.map_or(value, |added| value + added);
            }
        }
        Ok(())
    }

    /// The first row whose scales or offsets are NaN or infinite.
    pub fn find_not_finite(&self) -> Option<usize> {
        let blocks = self.blocks();
        let bad = |r: usize| {
            let (tile, row) = (self.tile(r / TILE_ROWS), r % TILE_ROWS);
            let finite =
                |(scale, added): (f32, Option<f32>)| scale.is_finite() && added.is_none_or(f32::is_finite);
            !(0..2 * blocks).all(|i| finite(tile.factors(row, i / 2, i % 2)))
        };
        (0..self.rows).find(|&r| bad(r))
    }

    fn blocks(&self) -> usize {
        self.cols / BLOCK
    }

    fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }

    fn tile(&self, i: usize) -> IntTile<'_> {
        let blocks = self.blocks();
        let (of_lines, of_extras) = (blocks * self.shape.width.lines(), self.shape.extras(blocks));
        let halves: [&[Halves]; 2] = [as_halves(&self.scales), as_halves(&self.extras)];
        IntTile {
            shape: self.shape,
            lines: &self.lines[i * of_lines..][..of_lines],
            scales: &halves[0][i * blocks..][..blocks],
            extras: &halves[1][i * of_extras..][..of_extras],
        }
    }
}
