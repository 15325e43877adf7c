//! Rows into tiles.

use super::layout::{Halves, SUPER_BLOCK, Scaling, Shape, TILE_ROWS, Width};
use crate::activations::BLOCK;
use crate::arena::{Done, ROWS_AT_ONCE};
use crate::codec::{UnpackedRow, quantize_row, super_blocks};
use crate::dispatch::kernels;
use crate::matmul::Matrix;
use crate::row::RowType;
use crate::trits::Line;

/// Is shown a row's number, its weights before rounding, and after it.
pub type Seen<'a> = &'a (dyn Fn(usize, &[f32], &[f32]) + Sync);

/// A share of the rows, to be packed.
pub(super) struct Part<'a> {
    pub(super) matrix: &'a Matrix<'a>,
    /// The type that the rows are rounded to first, and who sees that.
    pub(super) rounded: Option<(RowType, Seen<'a>)>,
    pub(super) first_row: usize,
    pub(super) shape: Shape,
    pub(super) done: Done<'a>,
}

impl Part<'_> {
    /// Fills whole tiles; the last one's rows may be fewer.
    pub(super) fn pack(&self, lines: &mut [Line], scales: &mut [Halves], extras: &mut [Halves]) {
        let (mut unpacked, mut rounding) = (UnpackedRow::default(), Rounding::default());
        let (matrix, zero) = (self.matrix, self.shape.zero as u8);
        let (blocks, of_block) = (matrix.cols() / BLOCK, self.shape.width.lines());
        let per_tile = self.shape.extras(blocks);
        let rows = lines.len() / (blocks * of_block).max(1) * TILE_ROWS;
        for i in 0..rows.min(matrix.rows() - self.first_row) {
            let (tile, row) = (i / TILE_ROWS, i % TILE_ROWS);
            let (row_type, bytes) = match self.rounded {
                Some((row_type, seen)) => {
                    (row_type, rounding.row(matrix, self.first_row + i, row_type, seen))
                }
                None => (matrix.row_type(), matrix.row(self.first_row + i)),
            };
            // SAFETY: `kernels()` gives only functions that this processor can run.
            unsafe { (kernels().unpack_row)(row_type, bytes, matrix.cols(), &mut unpacked) };
            let lines = &mut lines[tile * blocks * of_block..][..blocks * of_block];
            for (q, lines) in unpacked.q.as_chunks::<BLOCK>().0.iter().zip(lines.chunks_exact_mut(of_block)) {
                put_codes(self.shape.width, q.map(|q| (q as u8).wrapping_add(zero)), lines, row);
            }
            let scales = &mut scales[tile * blocks..][..blocks];
            self.put_scales(bytes, &unpacked, scales, &mut extras[tile * per_tile..][..per_tile], row);
            if (i + 1).is_multiple_of(ROWS_AT_ONCE) {
                let end = self.first_row + i + 1;
                (self.done)(matrix.bytes_of(end - ROWS_AT_ONCE..end));
            }
        }
    }

    /// Writes the scales of a row, `bytes` of a type that [`Shape::of`] knows.
    fn put_scales(
        &self,
        bytes: &[u8],
        unpacked: &UnpackedRow,
        scales: &mut [Halves],
        extras: &mut [Halves],
        row: usize,
    ) {
        // The numbers were f16 in the rows: the way back is exact.
        let put = |to: &mut [Halves], from: &[f32]| {
            to.iter_mut().zip(from).for_each(|(to, &x)| to.0[row] = half::f16::from_f32(x).to_bits());
        };
        match self.shape.scaling {
            Scaling::Plain | Scaling::Affine => {
                put(scales, &unpacked.scale);
                put(extras, &unpacked.offset);
            }
            Scaling::Super | Scaling::SuperHalves => {
                let factors = extras.chunks_exact_mut(self.shape.extras(SUPER_BLOCK));
                let row_type = self.rounded.map_or(self.matrix.row_type(), |(row_type, _)| row_type);
                let supers = super_blocks(row_type, bytes);
                for ((block, factors), scales) in
                    supers.zip(factors).zip(scales.chunks_exact_mut(SUPER_BLOCK))
                {
                    put(factors, &[block.factor, -block.subtracted]);
                    for (scales, pair) in scales.iter_mut().zip(block.pairs) {
                        for (to, byte) in scales.bytes_mut().iter_mut().zip(pair) {
                            to[row] = byte;
                        }
                    }
                }
            }
        }
    }
}

/// A row on its way to another type.
#[derive(Default)]
struct Rounding {
    before: Vec<f32>,
    after: Vec<f32>,
    bytes: Vec<u8>,
}

impl Rounding {
    /// Row `r` in `row_type`; zeros where it holds what cannot be rounded, and then that shows in what `seen` sees.
    fn row(&mut self, matrix: &Matrix<'_>, r: usize, row_type: RowType, seen: Seen<'_>) -> &[u8] {
        let Self { before, after, bytes } = self;
        before.resize(matrix.cols(), 0.0);
        after.resize(matrix.cols(), 0.0);
        bytes.resize(row_type.row_bytes(matrix.cols()).unwrap_or(0), 0);
        // SAFETY: `kernels()` gives only functions that this processor can run.
        unsafe { (kernels().dequantize_row)(matrix.row_type(), matrix.row(r), before) };
        if quantize_row(row_type, before, bytes).is_err() {
            bytes.fill(0);
        }
        // SAFETY: as above.
        unsafe { (kernels().dequantize_row)(row_type, bytes, after) };
        seen(r, before, after);
        bytes
    }
}

/// Puts the codes of a block of one row into the lines of its tile.
fn put_codes(width: Width, codes: [u8; BLOCK], lines: &mut [Line], row: usize) {
    // Four codes at once: no part of a byte reaches into its neighbour.
    let fours: [u32; 8] = std::array::from_fn(|i| u32::from_le_bytes(codes.as_chunks::<4>().0[i]));
    let low = |i: usize| fours[i] & 0x0f0f_0f0f;
    let high = |i: usize| fours[i] >> 4 & 0x0f0f_0f0f;
    for (i, line) in lines.iter_mut().enumerate() {
        let columns = match (width, i) {
            (Width::Eight, _) => fours[i],
            (_, 0..4) => low(i) | low(4 + i) << 4,
            (Width::Five, _) => (0..8).fold(0, |bits, i| bits | high(i) << i),
            (_, i) => (0..4).fold(0, |bits, j| bits | high((i - 4) * 4 + j) << (2 * j)),
        };
        line.0[row * 4..row * 4 + 4].copy_from_slice(&columns.to_le_bytes());
    }
}
