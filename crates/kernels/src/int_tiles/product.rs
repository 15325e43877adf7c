//! Products of tiles with activations.

use std::cell::RefCell;
use std::ops::Range;

use super::IntTiles;
use super::input::{Grouped, IntInput};
use super::layout::{IntTile, TILE_ROWS};
use crate::activations::{ActivationForm, Activations};
use crate::dispatch::kernels;
use crate::matmul::{Columns, MatmulError};
use crate::threads::Team;
use crate::trits::Line;

/// The inner loop of one instruction set: `out[token][row]` of one tile, and room for its decoded codes.
pub(crate) type IntKernel =
    unsafe fn(&IntTile<'_>, IntInput<'_>, &mut Vec<[Line; 8]>, &mut [[f32; TILE_ROWS]]);

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    codes: Vec<[Line; 8]>,
    out: Vec<[f32; TILE_ROWS]>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static GROUPED: RefCell<Grouped> = RefCell::default();
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
    GROUPED.with_borrow_mut(|grouped| {
        let input = grouped.arrange(team, input.int8(form), tokens);
        multiply_all(team, kernel, input, products);
    });
    Ok(())
}

fn multiply_all(
    team: &Team,
    kernel: IntKernel,
    input: IntInput<'_>,
    products: &mut [(&IntTiles, &mut [f32])],
) {
    let tokens = input.tokens;
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
                    run_tiles(kernel, w, from..to, input, scratch, columns)
                });
            }
        });
    }
}

/// # Safety
/// No other thread writes the columns of these tiles' rows at the same time.
unsafe fn run_tiles(
    kernel: IntKernel,
    w: &IntTiles,
    tiles: Range<usize>,
    input: IntInput<'_>,
    scratch: &mut Scratch,
    columns: &Columns<'_>,
) {
    let tokens = input.tokens;
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
