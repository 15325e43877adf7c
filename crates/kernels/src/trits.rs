//! Ternary matrices at 1.6 bits a weight: five trits a byte, rows interleaved by tiles.
//!
//! Decoding one token is bound by the bytes of the weights, so they are stored as densely as whole bytes allow
//! (3^5 = 243 of 256 patterns). A tile is 32 rows. Per block of 20 columns it has two lines of 64 bytes; a line holds two
//! bytes of each row: bytes 0 and 1 in the first, 2 and 3 in the second. Byte `j` of a block holds the columns
//! `j, 4 + j, 8 + j, 12 + j, 16 + j`, the first as the most significant digit in base 3, a digit being the weight + 1.
//! So one byte is an index into tables of partial sums (T-MAC, arXiv 2407.00088), and digit `i` of four bytes is four
//! neighbouring columns, which is what dot-product instructions take. Rows and columns that fill up the last tile and the
//! last block are zeros.
//!
//! The sums are integers, exact in any order: both families of kernels, every number of threads and every batch give the
//! same bits.

use std::cell::RefCell;
use std::ops::Range;

use crate::activations::{ActivationForm, Activations};
use crate::codec::UnpackedRow;
use crate::dispatch::kernels;
use crate::matmul::{Columns, MatmulError, Matrix};
use crate::row::RowType;
use crate::threads::Team;

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
const LINES_PER_BLOCK: usize = 2;

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
    /// Whichever measured faster: lookup for one token, multiply-add for several.
    #[default]
    Auto,
    /// Tables of partial sums, nothing multiplied.
    Lookup,
    /// Dot-product instructions.
    Multiply,
    /// Rows as the file has them, no tiles.
    Reference,
}

/// The inner loops of one instruction set. `tiles` and `tile` are whole tiles.
pub(crate) struct TritKernels {
    /// Fills the tables of one token: per byte of a row one for the first three digits and one for the last two. `x`:
    /// int8 activations, filled up to whole blocks.
    pub(crate) tables: unsafe fn(&[i8], &mut [Table]),
    /// `sums[tile][row]` of one token by lookup.
    pub(crate) lookup: unsafe fn(&[Line], &[Table], &mut [[i32; TILE_ROWS]]),
    /// `sums[token][row]` of one tile and several tokens: tile, activations `[tokens, blocks * 20]`, minus the sum of
    /// each token's activations, room for the decoded digits (two lines per four columns).
    pub(crate) multiply: unsafe fn(&[Line], &[i8], &[i32], &mut [[Line; 2]], &mut [[i32; TILE_ROWS]]),
}

/// The five digits of a byte, most significant first; bytes above 242 stand for nothing and give zeros' digits.
pub(crate) const fn digits_of_byte(byte: u8) -> [u8; PLANES] {
    if byte > 242 {
        return [1; PLANES];
    }
    [byte / 81, byte / 27 % 3, byte / 9 % 3, byte / 3 % 3, byte % 3]
}

/// The byte of five zeros.
const ZERO_BYTE: u8 = 121;

/// A ternary matrix `[rows, cols]` in tiles, with a scale a row.
#[derive(Debug, Clone)]
pub struct Trits {
    rows: usize,
    cols: usize,
    lines: Vec<Line>,
    scale: Vec<f32>,
    family: Family,
}

impl Trits {
    /// Whether this processor has kernels for tiles and rows of this type can be put into them: ternary with one scale.
    pub fn takes(row_type: RowType) -> bool {
        kernels().trits.is_some() && matches!(row_type, RowType::Ternary16 | RowType::Ternary32)
    }

    /// Packs the rows of `matrix` on `threads` threads; `None` where [`Trits::takes`] says no or a code is not ternary.
    pub fn pack(matrix: &Matrix<'_>, family: Family, threads: usize) -> Option<Self> {
        if !Self::takes(matrix.row_type()) {
            return None;
        }
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let lines_per_tile = cols.div_ceil(COLS_PER_BLOCK) * LINES_PER_BLOCK;
        let tiles = rows.div_ceil(TILE_ROWS);
        let mut lines = vec![Line([ZERO_BYTE; LINE]); lines_per_tile * tiles];
        let mut scale = vec![0.0; tiles * TILE_ROWS];
        let share = tiles.div_ceil(threads.max(1)).max(1);
        let ternary = std::thread::scope(|scope| {
            let parts = lines.chunks_mut(share * lines_per_tile).zip(scale.chunks_mut(share * TILE_ROWS));
            let jobs: Vec<_> = parts
                .enumerate()
                .map(|(i, (lines, scale))| {
                    scope.spawn(move || {
                        pack_tiles(matrix, i * share * TILE_ROWS, lines_per_tile, lines, scale)
                    })
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

/// Packs the rows from `first_row` on into `lines`; false when a weight is not ternary.
fn pack_tiles(
    matrix: &Matrix<'_>,
    first_row: usize,
    lines_per_tile: usize,
    lines: &mut [Line],
    scale: &mut [f32],
) -> bool {
    let mut unpacked = UnpackedRow::default();
    let mut weights = Vec::new();
    for (i, scale) in scale.iter_mut().enumerate().take(matrix.rows() - first_row) {
        let tile = &mut lines[i / TILE_ROWS * lines_per_tile..][..lines_per_tile];
        // SAFETY: `kernels()` gives only functions that this processor can run.
        unsafe {
            (kernels().unpack_row)(matrix.row_type(), matrix.row(first_row + i), matrix.cols(), &mut unpacked)
        };
        *scale = unpacked.scale[0];
        if unpacked.q.iter().fold(0, |any, q| any | (q.unsigned_abs() & !1)) != 0 {
            return false;
        }
        weights.clear();
        weights.extend(unpacked.q.iter().map(|&q| (q + 1) as u8));
        weights.resize(lines_per_tile / LINES_PER_BLOCK * COLS_PER_BLOCK, 1);
        let at = i % TILE_ROWS * 2;
        for (lines, weights) in
            tile.as_chunks_mut::<LINES_PER_BLOCK>().0.iter_mut().zip(weights.as_chunks::<COLS_PER_BLOCK>().0)
        {
            // Four bytes at once: no digit carries into its neighbour, because 242 fits into a byte.
            let four = |plane: usize| {
                let [a, b, c, d] = weights.as_chunks::<BYTES_PER_BLOCK>().0[plane];
                u32::from_le_bytes([a, b, c, d])
            };
            let bytes = ((((four(0) * 3 + four(1)) * 3 + four(2)) * 3 + four(3)) * 3 + four(4)).to_le_bytes();
            lines[0].0[at..at + 2].copy_from_slice(&bytes[..2]);
            lines[1].0[at..at + 2].copy_from_slice(&bytes[2..]);
        }
    }
    true
}

/// What tiles want of the activations, beside their int8 form.
#[derive(Debug, Default)]
pub(crate) struct TritInput {
    /// `[tokens, blocks * 20]`, zeros behind the last column.
    x: Vec<i8>,
    /// Minus the sum of each token's activations.
    minus_sums: Vec<i32>,
    /// Tables of the only token.
    tables: Vec<Table>,
}

impl TritInput {
    fn prepare(&mut self, q: &[i8], tokens: usize, cols: usize, trits: &TritKernels, lookup: bool) {
        let padded = cols.next_multiple_of(COLS_PER_BLOCK);
        self.x.clear();
        self.minus_sums.clear();
        for q in q.chunks_exact(cols).take(tokens) {
            self.x.extend_from_slice(q);
            self.x.resize(self.x.len() + padded - cols, 0);
            self.minus_sums.push(-q.iter().map(|&q| i32::from(q)).sum::<i32>());
        }
        self.tables.clear();
        if lookup {
            let tables = padded / COLS_PER_BLOCK * BYTES_PER_BLOCK * 2;
            self.tables.resize(tables * tokens, Table([0; 32]));
            let per_token = self.x.chunks_exact(padded).zip(self.tables.chunks_exact_mut(tables));
            for (x, tables) in per_token {
                // SAFETY: `kernels()` gives only functions that this processor can run.
                unsafe { (trits.tables)(x, tables) };
            }
        }
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    digits: Vec<[Line; 2]>,
    sums: Vec<[i32; TILE_ROWS]>,
    out: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Tiles that a thread takes together: what [`TritKernels::lookup`] works on at once.
const TILES_AT_ONCE: usize = 4;

/// `out[t, r] = w[r] . x[t]` for several matrices with the same input, in one job of the team: the activations are rounded
/// to int8 by the token. Each `out` is `[tokens, rows]`.
pub fn matmul_trits(
    team: &Team,
    input: &mut Activations,
    products: &mut [(&Trits, &mut [f32])],
) -> Result<(), MatmulError> {
    let (tokens, cols) = (input.tokens(), input.cols());
    for (w, out) in products.iter() {
        if w.cols != cols || out.len() != tokens * w.rows {
            return Err(MatmulError::Shape { rows: w.rows, cols: w.cols, x: cols, out: out.len() });
        }
    }
    let (Some(trits), Some((first, _))) = (kernels().trits, products.first()) else {
        return Ok(());
    };
    if tokens == 0 {
        return Ok(());
    }
    let lookup = match first.family {
        Family::Auto => tokens == 1,
        Family::Lookup => true,
        Family::Multiply | Family::Reference => false,
    };
    input.ensure(ActivationForm::Int8Token);
    let (x, int8) = input.trits_mut();
    x.prepare(&int8.q, tokens, cols, trits, lookup);
    let input = &*input;
    for products in products.chunks_mut(AT_ONCE) {
        multiply_together(team, input, products, trits, lookup);
    }
    Ok(())
}

/// Matrices that share one job of the team: queries, keys and values.
const AT_ONCE: usize = 3;

fn multiply_together(
    team: &Team,
    input: &Activations,
    products: &mut [(&Trits, &mut [f32])],
    trits: &TritKernels,
    lookup: bool,
) {
    let (tokens, blocks) = (input.tokens(), input.blocks());
    let (x, scales) = (input.trits(), &input.int8(ActivationForm::Int8Token).scale);
    let mut products = products.iter_mut();
    let columns: [_; AT_ONCE] =
        std::array::from_fn(|_| products.next().map(|(w, out)| (*w, Columns::new(out, w.rows, tokens))));
    let groups = |w: &Trits| w.tiles().div_ceil(TILES_AT_ONCE);
    let total: usize = columns.iter().flatten().map(|(w, _)| groups(w)).sum();
    let work: usize = columns.iter().flatten().map(|(w, _)| w.rows.saturating_mul(w.cols)).sum();
    team.split(total, 1, work.saturating_mul(tokens), &|range| {
        let mut before = 0;
        for (w, columns) in columns.iter().flatten() {
            let groups = groups(w);
            let from = range.start.clamp(before, before + groups) - before;
            let to = range.end.clamp(before, before + groups) - before;
            before += groups;
            if from == to {
                continue;
            }
            let tiles = from * TILES_AT_ONCE..(to * TILES_AT_ONCE).min(w.tiles());
            SCRATCH.with_borrow_mut(|scratch| {
                let run = Run { trits, w, x, scales, blocks, tokens, lookup };
                // SAFETY: `split` gives disjoint ranges, so no other thread writes the rows of these tiles.
                unsafe { run.tiles(tiles, scratch, columns) };
            });
        }
    });
}

/// One matrix and its input.
struct Run<'a> {
    trits: &'a TritKernels,
    w: &'a Trits,
    x: &'a TritInput,
    /// Scales of the activations, `blocks` of them a token, all the same.
    scales: &'a [f32],
    blocks: usize,
    tokens: usize,
    lookup: bool,
}

impl Run<'_> {
    /// # Safety
    /// No other thread writes the columns of these tiles' rows at the same time.
    unsafe fn tiles(&self, tiles: Range<usize>, scratch: &mut Scratch, columns: &Columns<'_>) {
        let lines = self.w.lines_per_tile();
        let all = &self.w.lines[tiles.start * lines..tiles.end * lines];
        let count = if self.lookup { TILES_AT_ONCE } else { 1 };
        scratch.sums.resize(self.tokens.max(count), [0; TILE_ROWS]);
        scratch.out.resize(TILE_ROWS * self.tokens, 0.0);
        scratch.digits.resize(lines / LINES_PER_BLOCK * PLANES, [Line([0; LINE]); 2]);
        for (i, group) in all.chunks(lines * count).enumerate() {
            let first_tile = tiles.start + i * count;
            if self.lookup {
                let n = group.len() / lines;
                for (t, tables) in self.x.tables.chunks_exact(lines * 4).enumerate() {
                    // SAFETY: `kernels()` gives only functions that this processor can run.
                    unsafe { (self.trits.lookup)(group, tables, &mut scratch.sums[..n]) };
                    for (j, sums) in scratch.sums[..n].iter().enumerate() {
                        let first = (first_tile + j) * TILE_ROWS;
                        let n = TILE_ROWS.min(self.w.rows - first);
                        let out = &mut scratch.out[..n];
                        self.scale(t, &self.w.scale[first..first + n], sums, out);
                        // SAFETY: these are columns of this thread's tiles, as the caller promises.
                        unsafe { columns.write_token(t, first, out) };
                    }
                }
            } else {
                let sums = &mut scratch.sums[..self.tokens];
                // SAFETY: as above.
                unsafe {
                    (self.trits.multiply)(group, &self.x.x, &self.x.minus_sums, &mut scratch.digits, sums)
                };
                let first = first_tile * TILE_ROWS;
                let n = TILE_ROWS.min(self.w.rows - first);
                for (t, sums) in sums.iter().enumerate() {
                    let out = &mut scratch.out[..n];
                    self.scale(t, &self.w.scale[first..first + n], sums, out);
                    // SAFETY: as above.
                    unsafe { columns.write_token(t, first, out) };
                }
            }
        }
    }

    fn scale(&self, t: usize, scales: &[f32], sums: &[i32; TILE_ROWS], out: &mut [f32]) {
        let x_scale = self.scales[t * self.blocks];
        for ((out, &sum), &scale) in out.iter_mut().zip(sums).zip(scales) {
            *out = sum as f32 * x_scale * scale;
        }
    }
}
