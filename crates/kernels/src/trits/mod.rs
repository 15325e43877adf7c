//! Ternary matrices at 1.6 bits a weight: five trits a byte, rows interleaved by tiles.
//!
//! Decoding one token is bound by the bytes of the weights, so they are stored as densely as whole bytes allow
//! (3^5 = 243 of 256 patterns). A tile is 32 rows. Per block of 20 columns it has two lines of 64 bytes; a line holds two
//! bytes of each row: bytes 0 and 1 in the first, 2 and 3 in the second. Byte `j` of a block holds the columns
//! `j, 4 + j, 8 + j, 12 + j, 16 + j`, the first as the most significant digit in base 3, a digit being the weight + 1.
//! So one byte is an index into tables of partial sums (T-MAC, arXiv 2407.00088), and digit `i` of four bytes is four
//! neighbouring columns, which is what dot-product instructions take. Columns that fill up
//! the last block are zeros; rows that fill up the last tile are of no meaning.
//!
//! The sums are integers, exact in any order: both families of kernels, every number of threads and every batch give the
//! same bits.

#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "no kernels of other processors use all of it")
)]
pub(crate) mod many;
mod product;

use std::cell::RefCell;

use crate::arena::{Arena, Done, Lines, ROWS_AT_ONCE};
use crate::codec::UnpackedRow;
use crate::codec::ternary::has_one_scale;
use crate::dispatch::kernels;
use crate::matmul::{MatmulError, Matrix};
use crate::row::RowType;

pub(crate) use product::TritInput;
pub use product::matmul_trits;

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 32;
/// Columns of a block.
pub(crate) const COLS_PER_BLOCK: usize = 20;
/// Bytes of a row in a block.
pub(crate) const BYTES_PER_BLOCK: usize = 4;
/// Digits of a byte.
pub(crate) const PLANES: usize = 5;
/// Bytes of a line.
pub(crate) const LINE: usize = 64;
/// Lines of a tile in a block.
pub(crate) const LINES_PER_BLOCK: usize = 2;

/// 64 bytes of a tile, on a boundary of the cache's lines.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(pub(crate) [u8; LINE]);

/// Partial sums for the patterns of two or three trits.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Table(pub(crate) [i16; 32]);

/// Which family of kernels multiplies. For ternary weights all give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Whichever measured faster: lookup for one token (on AVX2 up to three) and for many, multiply-add for several.
    #[default]
    Auto,
    /// Tables of partial sums, nothing multiplied.
    Lookup,
    /// Dot-product instructions.
    Multiply,
    /// Rows as the file has them, no tiles.
    Reference,
}

/// See [`TritKernels::multiply`].
pub(crate) type MultiplyKernel = unsafe fn(&[Line], &[i8], &[i32], &mut [[Line; 2]], &mut [[i32; TILE_ROWS]]);

/// The inner loops of one instruction set. `tiles` and `tile` are whole tiles.
pub(crate) struct TritKernels {
    /// Fills the tables of one token: per byte of a row one for the first three digits and one for the last two. `x`:
    /// int8 activations, filled up to whole blocks.
    pub(crate) tables: unsafe fn(&[i8], &mut [Table]),
    /// `sums[tile][row]` of one token by lookup.
    pub(crate) lookup: unsafe fn(&[Line], &[Table], &mut [[i32; TILE_ROWS]]),
    /// `sums[token][row]` of one tile and several tokens: tile, activations `[tokens, blocks * 20]`, minus the sum of
    /// each token's activations, room for the decoded digits (two lines per four columns).
    pub(crate) multiply: MultiplyKernel,
    /// So many tokens are faster looked up one by one than multiplied together; measured.
    pub(crate) lookup_up_to: usize,
    /// Many tokens at once by lookup.
    pub(crate) many: Option<&'static many::ManyKernels>,
}

/// The five digits of a byte, most significant first; bytes above 242 stand for nothing and give zeros' digits.
pub(crate) const fn digits_of_byte(byte: u8) -> [u8; PLANES] {
    if byte > 242 {
        return [1; PLANES];
    }
    [byte / 81, byte / 27 % 3, byte / 9 % 3, byte / 3 % 3, byte % 3]
}

/// A ternary matrix `[rows, cols]` in tiles, with a scale a row.
#[derive(Debug)]
pub struct Trits {
    rows: usize,
    cols: usize,
    lines: Lines,
    scale: Vec<f32>,
    family: Family,
}

impl Trits {
    /// Whether this processor has kernels for tiles.
    pub fn are_known() -> bool {
        kernels().trits.is_some()
    }

    /// Whether this processor has kernels for tiles and the rows of `matrix` can be put into them: ternary, and with one
    /// scale each.
    pub fn takes(matrix: &Matrix<'_>) -> bool {
        let row_type = matrix.row_type();
        Self::are_known()
            && match row_type {
                RowType::Ternary16 | RowType::Ternary32 => true,
                RowType::TQ1_0 | RowType::TQ2_0 => {
                    (0..matrix.rows()).all(|r| has_one_scale(row_type, matrix.row(r)))
                }
                _ => false,
            }
    }

    /// Bytes in memory of `matrix` in tiles; `None` where [`Trits::takes`] says no.
    pub fn bytes_for(matrix: &Matrix<'_>) -> Option<usize> {
        let lines = matrix.cols().div_ceil(COLS_PER_BLOCK) * LINES_PER_BLOCK;
        let bytes = matrix.rows().div_ceil(TILE_ROWS) * lines * LINE;
        Self::takes(matrix).then_some(bytes + matrix.rows() * 4)
    }

    /// Packs the rows of `matrix` on `threads` threads; `None` where [`Trits::takes`] says no, a code is
    /// not ternary, or there is no memory. `done` hears of the rows that have been read.
    pub fn pack(
        matrix: &Matrix<'_>,
        family: Family,
        threads: usize,
        arena: &mut Arena,
        done: Done<'_>,
    ) -> Option<Self> {
        if !Self::takes(matrix) {
            return None;
        }
        Self::pack_rows(matrix.rows(), matrix.cols(), family, threads, arena, &|r, weights| {
            UNPACKED.with_borrow_mut(|unpacked| {
                // SAFETY: `kernels()` gives only functions that this processor can run.
                unsafe { (kernels().unpack_row)(matrix.row_type(), matrix.row(r), matrix.cols(), unpacked) };
                weights.copy_from_slice(&unpacked.q[..matrix.cols()]);
                if (r + 1).is_multiple_of(ROWS_AT_ONCE) {
                    done(matrix.bytes_of(r + 1 - ROWS_AT_ONCE..r + 1));
                }
                unpacked.scale[0]
            })
        })
    }

    /// Packs `rows` rows of `cols` weights on `threads` threads. `row(r, weights)` fills in the weights of a row, -1, 0 or 1,
    /// and returns its scale. `None` where this processor has no kernels for tiles, a weight is not ternary, or there is no
    /// memory.
    fn pack_rows(
        rows: usize,
        cols: usize,
        family: Family,
        threads: usize,
        arena: &mut Arena,
        row: &(dyn Fn(usize, &mut [i8]) -> f32 + Sync),
    ) -> Option<Self> {
        kernels().trits?;
        let lines_per_tile = cols.div_ceil(COLS_PER_BLOCK) * LINES_PER_BLOCK;
        let tiles = rows.div_ceil(TILE_ROWS);
        let mut lines = arena.take(lines_per_tile * tiles)?;
        let mut scale = vec![0.0; tiles * TILE_ROWS];
        let share = tiles.div_ceil(threads.max(1)).max(1);
        let ternary = std::thread::scope(|scope| {
            let parts = lines.chunks_mut(share * lines_per_tile).zip(scale.chunks_mut(share * TILE_ROWS));
            let jobs: Vec<_> = parts
                .enumerate()
                .map(|(i, (lines, scale))| {
                    let first = i * share * TILE_ROWS;
                    let scale = &mut scale[..(rows - first).min(share * TILE_ROWS)];
                    scope.spawn(move || pack_tiles(first, cols, lines, scale, row))
                })
                .collect();
            jobs.into_iter().all(|job| job.join().unwrap_or(false))
        });
        scale.truncate(rows);
        ternary.then_some(Self { rows, cols, lines, scale, family })
    }

    /// Output dimension.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input dimension.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Whether many tokens are multiplied by one-to-many tables on this processor.
    pub fn looks_up_many() -> bool {
        kernels().trits.is_some_and(|trits| trits.many.is_some())
    }

    /// Bytes in memory.
    pub fn byte_len(&self) -> usize {
        self.lines.len() * LINE + self.scale.len() * 4
    }

    /// The family of kernels that it was packed for.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The scale of each row.
    pub fn scales(&self) -> &[f32] {
        &self.scale
    }

    /// Writes row `r` as f32 to `out`, `[cols]`.
    pub fn dequantize_row(&self, r: usize, out: &mut [f32]) -> Result<(), MatmulError> {
        if r >= self.rows || out.len() != self.cols {
            return Err(MatmulError::Shape { rows: self.rows, cols: self.cols, x: r, out: out.len() });
        }
        let tile = &self.lines[r / TILE_ROWS * self.lines_per_tile()..][..self.lines_per_tile()];
        let at = r % TILE_ROWS * 2;
        for (lines, out) in tile.as_chunks::<LINES_PER_BLOCK>().0.iter().zip(out.chunks_mut(COLS_PER_BLOCK)) {
            let bytes = [lines[0].0[at], lines[0].0[at + 1], lines[1].0[at], lines[1].0[at + 1]];
            let digits = bytes.map(digits_of_byte);
            for (c, out) in out.iter_mut().enumerate() {
                let digit = digits[c % BYTES_PER_BLOCK][c / BYTES_PER_BLOCK];
                *out = self.scale[r] * (f32::from(digit) - 1.0);
            }
        }
        Ok(())
    }

    fn lines_per_tile(&self) -> usize {
        self.cols.div_ceil(COLS_PER_BLOCK) * LINES_PER_BLOCK
    }

    fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }
}

thread_local! {
    static UNPACKED: RefCell<UnpackedRow> = RefCell::default();
}

/// Packs the rows from `first_row` on, as many as there are scales, into `lines`; false when a weight is not ternary.
fn pack_tiles(
    first_row: usize,
    cols: usize,
    lines: &mut [Line],
    scale: &mut [f32],
    row: &(dyn Fn(usize, &mut [i8]) -> f32 + Sync),
) -> bool {
    let padded = cols.next_multiple_of(COLS_PER_BLOCK);
    let lines_per_tile = padded / COLS_PER_BLOCK * LINES_PER_BLOCK;
    let mut weights = vec![0; padded];
    for (i, scale) in scale.iter_mut().enumerate() {
        let tile = &mut lines[i / TILE_ROWS * lines_per_tile..][..lines_per_tile];
        *scale = row(first_row + i, &mut weights[..cols]);
        if weights.iter().fold(0, |any, q| any | (q.unsigned_abs() & !1)) != 0 {
            return false;
        }
        let at = i % TILE_ROWS * 2;
        for (lines, weights) in
            tile.as_chunks_mut::<LINES_PER_BLOCK>().0.iter_mut().zip(weights.as_chunks::<COLS_PER_BLOCK>().0)
        {
            // Four bytes at once: no digit carries into its neighbour, because 242 fits into a byte.
            let four = |plane: usize| {
                u32::from_le_bytes(weights.as_chunks::<BYTES_PER_BLOCK>().0[plane].map(|q| (q + 1) as u8))
            };
            let bytes = ((((four(0) * 3 + four(1)) * 3 + four(2)) * 3 + four(3)) * 3 + four(4)).to_le_bytes();
            lines[0].0[at..at + 2].copy_from_slice(&bytes[..2]);
            lines[1].0[at..at + 2].copy_from_slice(&bytes[2..]);
        }
    }
    true
}
