//! How a tile lies in memory, and what each row type becomes.

use crate::row::RowType;
use crate::trits::Line;

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 16;

/// Blocks of 32 columns that share the f16 factors of a K-quant.
pub(crate) const SUPER_BLOCK: usize = 8;

/// How many bits a code has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// Two columns a byte.
    Four,
    /// Four bits as above, and a line of fifth bits: bit `i` belongs to line `i` of the decoded codes.
    Five,
    /// Four bits as above, and two lines of the upper two: bits `2 i` and `2 i + 1` of the first belong to line `i` of the
    /// decoded codes, those of the second to line `4 + i`.
    Six,
    /// One column a byte.
    Eight,
}

impl Width {
    /// Lines of a tile in a block.
    pub(crate) const fn lines(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Five => 5,
            Self::Six => 6,
            Self::Eight => 8,
        }
    }
}

/// What the codes of a block are multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scaling {
    /// An f16.
    Plain,
    /// An f16, and an f16 that is added.
    Affine,
    /// A byte times an f16 of the super-block, and another pair whose product is added.
    Super,
    /// A byte, one for each half of the block, times an f16 of the super-block.
    SuperHalves,
}

/// What rows of a type become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) width: Width,
    pub(crate) scaling: Scaling,
    /// The code that stands for 0 where nothing is added.
    pub(crate) zero: i32,
}

impl Shape {
    /// None for types that stay as they are.
    pub(crate) fn of(row_type: RowType) -> Option<Self> {
        use Scaling::{Affine, Plain, Super, SuperHalves};
        let (width, scaling, zero) = match row_type {
            RowType::Q4_0 | RowType::Int4 => (Width::Four, Plain, 8),
            RowType::Q4_1 => (Width::Four, Affine, 0),
            RowType::Q5_0 => (Width::Five, Plain, 16),
            RowType::Q5_1 => (Width::Five, Affine, 0),
            RowType::Q4_K => (Width::Four, Super, 0),
            RowType::Q5_K => (Width::Five, Super, 0),
            RowType::Q6_K => (Width::Six, SuperHalves, 32),
            RowType::Q8_0 => (Width::Eight, Plain, 128),
            _ => return None,
        };
        Some(Self { width, scaling, zero })
    }

    /// 32 bytes apiece that a tile has beside its codes and the scales of its blocks.
    pub(crate) fn extras(self, blocks: usize) -> usize {
        match self.scaling {
            Scaling::Plain => 0,
            Scaling::Affine => blocks,
            Scaling::Super => blocks / SUPER_BLOCK * 2,
            Scaling::SuperHalves => blocks / SUPER_BLOCK,
        }
    }
}

/// 32 bytes for the 16 rows of a tile: an f16 each, or two bytes each, the first of all rows before the second.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(crate) struct Halves(pub(crate) [u16; TILE_ROWS]);

impl Halves {
    /// As two bytes each.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[[i8; TILE_ROWS]; 2] {
        // SAFETY: both are 32 bytes, any of which are valid, and bytes ask for no alignment.
        unsafe { &*std::ptr::from_ref(&self.0).cast() }
    }

    /// As two bytes each, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [[i8; TILE_ROWS]; 2] {
        // SAFETY: as in `bytes`, and the reference to this value is the only one.
        unsafe { &mut *std::ptr::from_mut(&mut self.0).cast() }
    }

    /// The f16 of a row.
    pub(crate) fn number(&self, row: usize) -> f32 {
        half::f16::from_bits(self.0[row]).to_f32()
    }
}

/// Two in a line.
pub(super) fn as_halves(lines: &[Line]) -> &[Halves] {
    // SAFETY: a line is 64 bytes on a boundary of 64, so two of 32 bytes on boundaries of 32; any bytes are valid.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), 2 * lines.len()) }
}

/// Two in a line, to be written.
pub(super) fn as_halves_mut(lines: &mut [Line]) -> &mut [Halves] {
    // SAFETY: as in `as_halves`, and the reference is the only one.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), 2 * lines.len()) }
}

/// One tile as the inner loops take it.
pub(crate) struct IntTile<'a> {
    pub(crate) shape: Shape,
    /// `[blocks, width.lines()]`
    pub(crate) lines: &'a [Line],
    /// f16 or bytes, `[blocks]`.
    pub(crate) scales: &'a [Halves],
    /// What is added, f16, `[blocks]`; or the factors of the bytes, f16, `[blocks / 8, 1 or 2]`, the second negated.
    pub(crate) extras: &'a [Halves],
}

impl IntTile<'_> {
    /// The code of column `c` of block `b`.
    pub(crate) fn code(&self, row: usize, b: usize, c: usize) -> u8 {
        let lines = &self.lines[b * self.shape.width.lines()..][..self.shape.width.lines()];
        let (line, at) = (c / 4, row * 4 + c % 4);
        if self.shape.width == Width::Eight {
            return lines[line].0[at];
        }
        let low = lines[line % 4].0[at] >> (line / 4 * 4) & 15;
        match self.shape.width {
            Width::Five => low | (lines[4].0[at] >> line & 1) << 4,
            Width::Six => low | (lines[4 + line / 4].0[at] >> (line % 4 * 2) & 3) << 4,
            Width::Four | Width::Eight => low,
        }
    }

    /// The factor of the codes of half `h` of block `b`, and what is added to the products.
    pub(crate) fn factors(&self, row: usize, b: usize, h: usize) -> (f32, Option<f32>) {
        let scale = &self.scales[b];
        let byte = |i: usize| f32::from(scale.bytes()[i][row]);
        let extra = |i: usize| self.extras[i].number(row);
        match self.shape.scaling {
            Scaling::Plain => (scale.number(row), None),
            Scaling::Affine => (scale.number(row), Some(extra(b))),
            Scaling::Super => {
                let at = b / SUPER_BLOCK * 2;
                (extra(at) * byte(0), Some(extra(at + 1) * byte(1)))
            }
            Scaling::SuperHalves => (extra(b / SUPER_BLOCK) * byte(h), None),
        }
    }
}
