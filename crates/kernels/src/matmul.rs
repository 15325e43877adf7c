//! Matrix products of weight rows with activations: `out[t, r] = w[r] . x[t]`.
//!
//! A row is unpacked once (to int8 with scales, or to f32) and meets all tokens while it is in the first-level
//! cache. Rows are never split across threads and each (row, token) pair is summed in a fixed order, so the
//! result does not depend on the number of threads or on the batch.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use thiserror::Error;

use crate::activations::{ActivationForm, Activations, BLOCK};
use crate::codec::UnpackedRow;
use crate::dispatch::{BlockInput, BlockRow, Kernels, kernels, vector_ops};
use crate::float_rows::{FloatRows, Floats};
use crate::row::RowType;
use crate::threads::Team;

/// A product that was asked for with the wrong shapes.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum MatmulError {
    /// The bytes are not `rows` rows of `cols` weights of this type.
    #[error("a {rows} x {cols} matrix of {ty} is {expected:?} bytes, not {actual}")]
    Bytes {
        /// Row type.
        ty: &'static str,
        /// Output dimension.
        rows: usize,
        /// Input dimension.
        cols: usize,
        /// What the shape needs; `None` if a row is not a whole number of blocks.
        expected: Option<usize>,
        /// What was given.
        actual: usize,
    },
    /// Input or output do not fit the matrix.
    #[error(
        "a {rows} x {cols} matrix takes rows of {cols} activations and gives {rows} a token, not {x} and {out}"
    )]
    Shape {
        /// Output dimension.
        rows: usize,
        /// Input dimension.
        cols: usize,
        /// Length of an input row.
        x: usize,
        /// Length of the whole output.
        out: usize,
    },
    /// This row type cannot be multiplied with activations in this form.
    #[error("rows of {ty} cannot take activations in the form {form:?}")]
    Form {
        /// Row type.
        ty: &'static str,
        /// The form.
        form: ActivationForm,
    },
}

/// A row-major weight matrix `[rows, cols]` = `[out, in]` in one row type.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    ty: RowType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// Checks that `data` is exactly `rows` rows of `cols` weights.
    pub fn new(ty: RowType, rows: usize, cols: usize, data: &'a [u8]) -> Result<Self, MatmulError> {
        let row_bytes = ty.row_bytes(cols);
        let expected = row_bytes.and_then(|bytes| bytes.checked_mul(rows));
        match (row_bytes, expected) {
            (Some(row_bytes), Some(expected)) if expected == data.len() && cols > 0 => {
                Ok(Self { ty, rows, cols, row_bytes, data })
            }
            _ => Err(MatmulError::Bytes { ty: ty.name(), rows, cols, expected, actual: data.len() }),
        }
    }

    /// Row type.
    pub fn row_type(&self) -> RowType {
        self.ty
    }

    /// Output dimension.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input dimension.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of one row.
    pub fn row(&self, r: usize) -> &'a [u8] {
        &self.data[r * self.row_bytes..][..self.row_bytes]
    }

    /// Where the bytes of `rows` lie in those of the matrix.
    pub(crate) fn bytes_of(&self, rows: Range<usize>) -> Range<usize> {
        rows.start * self.row_bytes..rows.end * self.row_bytes
    }

    /// Rows in place where they are floats, and lie as floats do.
    fn floats(&self, rows: Range<usize>) -> Option<Floats<'a>> {
        fn aligned<'b, T>((before, floats, behind): (&[u8], &'b [T], &[u8])) -> Option<&'b [T]> {
            (before.is_empty() && behind.is_empty()).then_some(floats)
        }
        let bytes = &self.data[self.bytes_of(rows)];
        // SAFETY: any four bytes are a float, any two an integer, and `align_to` sees to the alignment.
        unsafe {
            match self.ty {
                RowType::F32 => aligned(bytes.align_to()).map(Floats::F32),
                RowType::F16 => aligned(bytes.align_to()).map(Floats::F16),
                RowType::BF16 => aligned(bytes.align_to()).map(Floats::BF16),
                _ => None,
            }
        }
    }

    /// Writes row `r` as f32 to `out`, `[cols]`: the look-up of an embedding.
    pub fn dequantize_row(&self, r: usize, out: &mut [f32]) -> Result<(), MatmulError> {
        if r >= self.rows || out.len() != self.cols {
            return Err(MatmulError::Shape { rows: self.rows, cols: self.cols, x: r, out: out.len() });
        }
        // SAFETY: `kernels()` gives only functions that this processor can run.
        unsafe { (kernels().dequantize_row)(self.ty, self.row(r), out) };
        Ok(())
    }

    /// The form of activations that this type's integer path takes: none for floats, one scale a token for
    /// rows with one scale (a sum of integers), blocks of 32 for the others.
    pub fn integer_form(ty: RowType) -> ActivationForm {
        match ty {
            RowType::F32 | RowType::F16 | RowType::BF16 => ActivationForm::F32,
            RowType::Ternary16 | RowType::Ternary32 => ActivationForm::Int8Token,
            _ => ActivationForm::Int8Block,
        }
    }
}

/// Buffers of one thread, kept between calls so that decoding does not allocate.
#[derive(Default)]
struct Scratch {
    rows_f32: Vec<f32>,
    unpacked: UnpackedRow,
    scale16: Vec<f32>,
    integers: Vec<i32>,
    /// `[rows of the tile, tokens]`
    out: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Rows that are unpacked before they meet the tokens.
const TILE_ROWS: usize = 4;

/// Tokens that meet weights of 16 bits in place.
const FEW_TOKENS: usize = 4;

/// The output, `[tokens, rows]`, shared by threads that write disjoint columns.
pub(crate) struct Columns<'a> {
    out: *mut f32,
    rows: usize,
    tokens: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: each thread gets its own range of rows, and the writing functions store only into those columns.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// Shares `out`, `[tokens, rows]`.
    pub(crate) fn new(out: &'a mut [f32], rows: usize, tokens: usize) -> Self {
        assert_eq!(out.len(), tokens * rows);
        Self { out: out.as_mut_ptr(), rows, tokens, borrowed: PhantomData }
    }

    /// Stores `values` as columns `first..` of token `t`.
    ///
    /// # Safety
    /// No other thread writes these columns at the same time.
    pub(crate) unsafe fn write_token(&self, t: usize, first: usize, values: &[f32]) {
        assert!(t < self.tokens && first + values.len() <= self.rows);
        // SAFETY: the assertion keeps the range inside the `tokens * rows` floats whose unique borrow `self` holds, and
        // the caller keeps other threads away.
        unsafe {
            let to = self.out.add(t * self.rows + first);
            to.copy_from_nonoverlapping(values.as_ptr(), values.len());
        }
    }

    /// Stores `tile`, `[n, tokens]`, as columns `first..first + n`.
    ///
    /// # Safety
    /// `first + n <= rows`, and no other thread writes these columns at the same time.
    unsafe fn write(&self, first: usize, tile: &[f32]) {
        for (i, row) in tile.chunks_exact(self.tokens).enumerate() {
            for (t, &value) in row.iter().enumerate() {
                // SAFETY: t < tokens and first + i < rows, so the index lies inside the `tokens * rows`
                // floats whose unique borrow `self` holds.
                unsafe { *self.out.add(t * self.rows + first + i) = value };
            }
        }
    }
}

/// `out[t, r] = w[r] . x[t]` for all tokens of `input`, with the activations in `form`: [`ActivationForm::F32`]
/// works for every type, the others as [`Matrix::integer_form`] says.
///
/// `out` is `[tokens, rows]`. Errors: shapes that do not fit, a form that the row type cannot take.
pub fn matmul(
    team: &Team,
    w: &Matrix<'_>,
    input: &mut Activations,
    form: ActivationForm,
    out: &mut [f32],
) -> Result<(), MatmulError> {
    let tokens = input.tokens();
    if input.cols() != w.cols || out.len() != tokens * w.rows {
        return Err(MatmulError::Shape { rows: w.rows, cols: w.cols, x: input.cols(), out: out.len() });
    }
    let form = checked_form(w, form)?;
    if tokens == 0 {
        return Ok(());
    }
    input.ensure(form);
    let run = Run { kernels: kernels(), w, input, form, columns: Columns::new(out, w.rows, tokens) };
    let work = w.rows.saturating_mul(w.cols).saturating_mul(tokens);
    team.split(w.rows, TILE_ROWS, work, &|range| {
        let first = range.start;
        SCRATCH.with_borrow_mut(|scratch| run.rows(range, scratch, first));
    });
    Ok(())
}

/// `out[i] = w[rows[i]] . x` for the only token of `input`: the same bits that [`matmul`] gives for these rows.
///
/// Errors: as of [`matmul`]; rows outside the matrix, more than one token.
pub fn matmul_rows(
    team: &Team,
    w: &Matrix<'_>,
    rows: &[u32],
    input: &mut Activations,
    form: ActivationForm,
    out: &mut [f32],
) -> Result<(), MatmulError> {
    let inside = rows.iter().all(|&r| (r as usize) < w.rows);
    if input.cols() != w.cols || input.tokens() != 1 || out.len() != rows.len() || !inside {
        return Err(MatmulError::Shape { rows: w.rows, cols: w.cols, x: input.cols(), out: out.len() });
    }
    let form = checked_form(w, form)?;
    input.ensure(form);
    let run = Run { kernels: kernels(), w, input, form, columns: Columns::new(out, rows.len(), 1) };
    team.split(rows.len(), 1, rows.len().saturating_mul(w.cols), &|range| {
        SCRATCH.with_borrow_mut(|scratch| {
            for i in range {
                let r = rows[i] as usize;
                run.rows(r..r + 1, scratch, i);
            }
        });
    });
    Ok(())
}

/// The form in which the kernels take the activations where `form` is asked for.
fn checked_form(w: &Matrix<'_>, form: ActivationForm) -> Result<ActivationForm, MatmulError> {
    let integer = Matrix::integer_form(w.ty);
    // Activations rounded by the token are a special case of rounded by the block.
    let fits = form == ActivationForm::F32
        || form == integer
        || (form == ActivationForm::Int8Token && integer == ActivationForm::Int8Block);
    if !fits {
        return Err(MatmulError::Form { ty: w.ty.name(), form });
    }
    // The integer kernels take whole blocks of activations.
    let whole = integer != ActivationForm::Int8Block || w.cols.is_multiple_of(BLOCK);
    Ok(if whole { form } else { ActivationForm::F32 })
}

/// A matrix, its input, and where the outputs go.
struct Run<'a> {
    kernels: &'static Kernels,
    w: &'a Matrix<'a>,
    input: &'a Activations,
    form: ActivationForm,
    columns: Columns<'a>,
}

impl Run<'_> {
    /// The rows of `range`, whose outputs are the columns from `to` on.
    fn rows(&self, range: Range<usize>, scratch: &mut Scratch, to: usize) {
        match self.form {
            ActivationForm::F32 => self.rows_f32(range, scratch, to),
            _ if Matrix::integer_form(self.w.ty) == ActivationForm::Int8Token => {
                self.rows_ternary(range, scratch, to);
            }
            _ => self.rows_block(range, scratch, to),
        }
    }

    fn rows_f32(&self, range: Range<usize>, scratch: &mut Scratch, to: usize) {
        let Self { kernels, w, input, columns, .. } = self;
        let multiply = |rows: Floats<'_>, first: usize| {
            let rows = FloatRows { rows, cols: w.cols, first };
            // SAFETY: `vector_ops()` gives only functions that this processor can run, and `split` disjoint ranges.
            unsafe { (vector_ops().multiply_floats)(&rows, input.f32(), columns) };
        };
        // Weights of 16 bits that meet many tokens are better widened once than for each tile.
        if (w.ty == RowType::F32 || columns.tokens <= FEW_TOKENS)
            && let Some(rows) = w.floats(range.clone())
        {
            return multiply(rows, to);
        }
        scratch.rows_f32.resize(TILE_ROWS * w.cols, 0.0);
        for first in range.clone().step_by(TILE_ROWS) {
            let n = TILE_ROWS.min(range.end - first);
            let rows = &mut scratch.rows_f32[..n * w.cols];
            for (i, row) in rows.chunks_exact_mut(w.cols).enumerate() {
                // SAFETY: `kernels` holds only functions that this processor can run.
                unsafe { (kernels.dequantize_row)(w.ty, w.row(first + i), row) };
            }
            multiply(Floats::F32(rows), to + first - range.start);
        }
    }

    fn rows_ternary(&self, range: Range<usize>, scratch: &mut Scratch, to: usize) {
        let Self { kernels, w, input, columns, .. } = self;
        let x = input.int8(ActivationForm::Int8Token);
        scratch.integers.resize(columns.tokens, 0);
        scratch.out.resize(columns.tokens.max(scratch.out.len()), 0.0);
        for (i, r) in range.enumerate() {
            // SAFETY: `kernels` holds only functions that this processor can run.
            unsafe { (kernels.unpack_row)(w.ty, w.row(r), w.cols, &mut scratch.unpacked) };
            let scale = scratch.unpacked.scale[0];
            // SAFETY: as above.
            unsafe { (kernels.gemm_ternary)(&scratch.unpacked.q[..w.cols], &x.q, &mut scratch.integers) };
            let tile = &mut scratch.out[..columns.tokens];
            for (t, (out, &sum)) in tile.iter_mut().zip(&scratch.integers).enumerate() {
                *out = sum as f32 * x.scale[t * input.blocks()] * scale;
            }
            // SAFETY: `split` gives disjoint ranges inside the columns.
            unsafe { columns.write(to + i, tile) };
        }
    }

    fn rows_block(&self, range: Range<usize>, scratch: &mut Scratch, to: usize) {
        let Self { kernels, w, input, form, columns } = self;
        let x = input.int8(*form);
        scratch.out.resize(columns.tokens.max(scratch.out.len()), 0.0);
        for (i, r) in range.enumerate() {
            // SAFETY: `kernels` holds only functions that this processor can run.
            unsafe { (kernels.unpack_row)(w.ty, w.row(r), w.cols, &mut scratch.unpacked) };
            let row = &scratch.unpacked;
            // Rows with a scale per 32 give it to both halves of the block.
            let (scale16, sums) = if row.group == 16 {
                (&row.scale[..], &x.sum16[..])
            } else {
                scratch.scale16.clear();
                scratch.scale16.extend(row.scale.iter().flat_map(|&scale| [scale, scale]));
                (&scratch.scale16[..], &x.sum32[..])
            };
            let block_input = BlockInput { q: &x.q, scale: &x.scale, sums };
            let row = BlockRow { q: &row.q[..w.cols], scale16, offset: &row.offset };
            let tile = &mut scratch.out[..columns.tokens];
            // SAFETY: as above.
            unsafe { (kernels.gemm_int8_block)(&row, &block_input, tile) };
            // SAFETY: `split` gives disjoint ranges inside the columns.
            unsafe { columns.write(to + i, tile) };
        }
    }
}
