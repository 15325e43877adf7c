//! Matrices of 4- and 8-bit integers with a scale per 32 columns, rows interleaved by tiles.
//!
//! A tile is 16 rows, a block 32 columns. The codes of a block are lines of 64 bytes in which four neighbouring columns of
//! each row stand beside each other, row after row: what a dot-product instruction takes, without a sum across lanes. A
//! line of 4-bit codes holds the columns `4 i` to `4 i + 3` in the low and `16 + 4 i` to `16 + 4 i + 3` in the high halves
//! of its bytes; a line of 8-bit codes, plus 128 to be unsigned, holds the columns `4 i` to `4 i + 3`. Scales and offsets
//! lie apart, 16 of a block together.
//!
//! Values: `(code - zero) * scale`, or `code * scale + offset`, as the row types have them. For each row and token the
//! blocks are added in their order, one fused multiply-add each, whatever the batch: no bit depends on it.

use std::cell::RefCell;
use std::ops::Range;

use crate::activations::{ActivationForm, Activations, BLOCK};
use crate::arena::{Arena, Lines};
use crate::codec::UnpackedRow;
use crate::dispatch::kernels;
use crate::matmul::{Columns, MatmulError, Matrix};
use crate::row::RowType;
use crate::threads::Team;
use crate::trits::{LINE, Line};

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 16;

/// How many bits a code has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// Two columns a byte.
    Four,
    /// One column a byte.
    Eight,
}

impl Width {
    /// Lines of a tile in a block.
    pub(crate) const fn lines(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

/// A tile's scales or offsets in one block.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(crate) struct Halves(pub(crate) [u16; TILE_ROWS]);

/// One tile as the inner loops take it.
pub(crate) struct IntTile<'a> {
    pub(crate) width: Width,
    /// `[blocks, width.lines()]`
    pub(crate) lines: &'a [Line],
    /// f16, `[blocks]`.
    pub(crate) scales: &'a [Halves],
    /// f16, `[blocks]` or none.
    pub(crate) offsets: &'a [Halves],
    /// The code that stands for 0 where there are no offsets.
    pub(crate) zero: i32,
}

/// int8 activations with a scale per block.
#[derive(Clone, Copy)]
pub(crate) struct IntInput<'a> {
    /// `[tokens, blocks * 32]`
    pub(crate) q: &'a [i8],
    /// `[tokens, blocks]`
    pub(crate) scale: &'a [f32],
    /// Sum of q of each block, `[tokens, blocks]`.
    pub(crate) sum: &'a [i32],
    /// The same times the scale.
    pub(crate) scaled_sum: &'a [f32],
}

/// The inner loop of one instruction set: `out[token][row]` of one tile, and room for its decoded codes.
pub(crate) type IntKernel =
    unsafe fn(&IntTile<'_>, IntInput<'_>, &mut Vec<[Line; 8]>, &mut [[f32; TILE_ROWS]]);

/// A matrix `[rows, cols]` in tiles.
#[derive(Debug)]
pub struct IntTiles {
    row_type: RowType,
    width: Width,
    zero: i32,
    rows: usize,
    cols: usize,
    lines: Lines,
    scales: Vec<Halves>,
    offsets: Vec<Halves>,
}

/// Width, zero and whether there are offsets.
fn shape_of(row_type: RowType) -> Option<(Width, i32, bool)> {
    match row_type {
        RowType::Q4_0 | RowType::Int4 => Some((Width::Four, 8, false)),
        RowType::Q4_1 => Some((Width::Four, 0, true)),
        RowType::Q8_0 => Some((Width::Eight, 128, false)),
        _ => None,
    }
}

impl IntTiles {
    /// Whether this processor has kernels for tiles and rows of this type can be put into them.
    pub fn takes(row_type: RowType) -> bool {
        kernels().int_tiles.is_some() && shape_of(row_type).is_some()
    }

    /// Packs the rows of `matrix` on `threads` threads; `None` where [`IntTiles::takes`] says no or
    /// there is no memory.
    pub fn pack(matrix: &Matrix<'_>, threads: usize, arena: &mut Arena) -> Option<Self> {
        let (width, zero, has_offsets) =
            shape_of(matrix.row_type()).filter(|_| Self::takes(matrix.row_type()))?;
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let (tiles, blocks) = (rows.div_ceil(TILE_ROWS), cols / BLOCK);
        let lines_per_tile = blocks * width.lines();
        let mut lines = arena.take(tiles * lines_per_tile)?;
        let mut scales = vec![Halves([0; TILE_ROWS]); tiles * blocks];
        let mut offsets = vec![Halves([0; TILE_ROWS]); if has_offsets { tiles * blocks } else { 0 }];
        let share = tiles.div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            let mut offsets = offsets.chunks_mut(share * blocks);
            let parts = lines.chunks_mut(share * lines_per_tile).zip(scales.chunks_mut(share * blocks));
            for (i, (lines, scales)) in parts.enumerate() {
                let part = Part { matrix, first_row: i * share * TILE_ROWS, width, zero, blocks };
                let offsets = offsets.next().unwrap_or_default();
                scope.spawn(move || part.pack(lines, scales, offsets));
            }
        });
        Some(Self { row_type: matrix.row_type(), width, zero, rows, cols, lines, scales, offsets })
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
        self.lines.len() * LINE + (self.scales.len() + self.offsets.len()) * size_of::<Halves>()
    }

    /// Writes row `r` as f32 to `out`, `[cols]`: the look-up of an embedding.
    pub fn dequantize_row(&self, r: usize, out: &mut [f32]) -> Result<(), MatmulError> {
        if r >= self.rows || out.len() != self.cols {
            return Err(MatmulError::Shape { rows: self.rows, cols: self.cols, x: r, out: out.len() });
        }
        let (tile, row) = (self.tile(r / TILE_ROWS), r % TILE_ROWS);
        let number = |halves: &Halves| half::f16::from_bits(halves.0[row]).to_f32();
        let blocks = tile.lines.chunks_exact(self.width.lines()).zip(out.chunks_exact_mut(BLOCK));
        for (b, (lines, out)) in blocks.enumerate() {
            let (scale, offset) = (number(&tile.scales[b]), tile.offsets.get(b).map(number));
            for (c, out) in out.iter_mut().enumerate() {
                let code = match self.width {
                    Width::Four => lines[c % 16 / 4].0[row * 4 + c % 4] >> (c / 16 * 4) & 15,
                    Width::Eight => lines[c / 4].0[row * 4 + c % 4],
                };
                let value = (i32::from(code) - self.zero) as f32 * scale;
                *out = offset.map_or(value, |offset| value + offset);
            }
        }
        Ok(())
    }

    /// The first row whose scales or offsets are NaN or infinite.
    pub fn find_not_finite(&self) -> Option<usize> {
        let bad = |halves: &Halves| halves.0.iter().position(|&h| !half::f16::from_bits(h).is_finite());
        let blocks = self.blocks().max(1);
        let all = self.scales.iter().enumerate().chain(self.offsets.iter().enumerate());
        all.filter_map(|(i, halves)| Some(i / blocks * TILE_ROWS + bad(halves)?)).min()
    }

    fn blocks(&self) -> usize {
        self.cols / BLOCK
    }

    fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }

    fn tile(&self, i: usize) -> IntTile<'_> {
        let (blocks, lines) = (self.blocks(), self.blocks() * self.width.lines());
        let offsets = if self.offsets.is_empty() { &[] } else { &self.offsets[i * blocks..][..blocks] };
        IntTile {
            width: self.width,
            lines: &self.lines[i * lines..][..lines],
            scales: &self.scales[i * blocks..][..blocks],
            offsets,
            zero: self.zero,
        }
    }
}

/// A share of the rows, to be packed.
struct Part<'a> {
    matrix: &'a Matrix<'a>,
    first_row: usize,
    width: Width,
    zero: i32,
    blocks: usize,
}

impl Part<'_> {
    fn pack(&self, lines: &mut [Line], scales: &mut [Halves], offsets: &mut [Halves]) {
        let mut unpacked = UnpackedRow::default();
        let (matrix, zero) = (self.matrix, self.zero as u8);
        let rows = scales.len() / self.blocks.max(1) * TILE_ROWS;
        for i in 0..rows.min(matrix.rows() - self.first_row) {
            let (tile, row) = (i / TILE_ROWS, i % TILE_ROWS);
            let bytes = matrix.row(self.first_row + i);
            // SAFETY: `kernels()` gives only functions that this processor can run.
            unsafe { (kernels().unpack_row)(matrix.row_type(), bytes, matrix.cols(), &mut unpacked) };
            for (b, q) in unpacked.q.as_chunks::<BLOCK>().0.iter().enumerate() {
                let codes = q.map(|q| (q as u8).wrapping_add(zero));
                let four = |i: usize| u32::from_le_bytes(codes.as_chunks::<4>().0[i]);
                let block = tile * self.blocks + b;
                let lines = &mut lines[block * self.width.lines()..][..self.width.lines()];
                for (i, line) in lines.iter_mut().enumerate() {
                    let columns = match self.width {
                        // No half of a byte reaches into its neighbour.
                        Width::Four => four(i) | four(4 + i) << 4,
                        Width::Eight => four(i),
                    };
                    line.0[row * 4..row * 4 + 4].copy_from_slice(&columns.to_le_bytes());
                }
                // The scales were f16 in the rows: the way back is exact.
                scales[block].0[row] = half::f16::from_f32(unpacked.scale[b]).to_bits();
                if let Some(offsets) = offsets.get_mut(block) {
                    offsets.0[row] = half::f16::from_f32(unpacked.offset[b]).to_bits();
                }
            }
        }
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    codes: Vec<[Line; 8]>,
    out: Vec<[f32; TILE_ROWS]>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Matrices that share one job of the team: queries, keys and values.
const AT_ONCE: usize = 3;

/// `out[t, r] = w[r] . x[t]` for several matrices with the same input, in one job of the team: the activations are rounded
/// to int8 in `form`. Each `out` is `[tokens, rows]`.
pub fn matmul_int_tiles(
    team: &Team,
    input: &mut Activations,
    form: ActivationForm,
    products: &mut [(&IntTiles, &mut [f32])],
) -> Result<(), MatmulError> {
    let (tokens, cols) = (input.tokens(), input.cols());
    for (w, out) in products.iter() {
        if w.cols != cols || out.len() != tokens * w.rows {
            return Err(MatmulError::Shape { rows: w.rows, cols: w.cols, x: cols, out: out.len() });
        }
        if form == ActivationForm::F32 {
            return Err(MatmulError::Form { ty: w.row_type.name(), form });
        }
    }
    let Some(kernel) = kernels().int_tiles.filter(|_| tokens > 0) else { return Ok(()) };
    input.ensure(form);
    let int8 = input.int8(form);
    let input = IntInput { q: &int8.q, scale: &int8.scale, sum: &int8.whole, scaled_sum: &int8.sum32 };
    for products in products.chunks_mut(AT_ONCE) {
        let mut products = products.iter_mut();
        let columns: [_; AT_ONCE] =
            std::array::from_fn(|_| products.next().map(|(w, out)| (*w, Columns::new(out, w.rows, tokens))));
        let total: usize = columns.iter().flatten().map(|(w, _)| w.tiles()).sum();
        let work: usize = columns.iter().flatten().map(|(w, _)| w.rows.saturating_mul(w.cols)).sum();
        team.split(total, 1, work.saturating_mul(tokens), &|range| {
            let mut before = 0;
            for (w, columns) in columns.iter().flatten() {
                let from = range.start.clamp(before, before + w.tiles()) - before;
                let to = range.end.clamp(before, before + w.tiles()) - before;
                before += w.tiles();
                // SAFETY: `split` gives disjoint ranges, so no other thread writes the rows of these tiles.
                SCRATCH.with_borrow_mut(|scratch| unsafe {
                    run_tiles(kernel, w, from..to, input, tokens, scratch, columns)
                });
            }
        });
    }
    Ok(())
}

/// # Safety
/// No other thread writes the columns of these tiles' rows at the same time.
unsafe fn run_tiles(
    kernel: IntKernel,
    w: &IntTiles,
    tiles: Range<usize>,
    input: IntInput<'_>,
    tokens: usize,
    scratch: &mut Scratch,
    columns: &Columns<'_>,
) {
    scratch.out.resize(tokens, [0.0; TILE_ROWS]);
    for tile in tiles {
        let out = &mut scratch.out[..tokens];
        // SAFETY: `kernels()` gives only functions that this processor can run.
        unsafe { kernel(&w.tile(tile), input, &mut scratch.codes, out) };
        let first = tile * TILE_ROWS;
        let n = TILE_ROWS.min(w.rows - first);
        for (t, out) in out.iter().enumerate() {
            // SAFETY: as the caller promises.
            unsafe { columns.write_token(t, first, &out[..n]) };
        }
    }
}
