//! Products of ternary tiles with activations.

use std::cell::RefCell;
use std::ops::Range;

use super::{
    BYTES_PER_BLOCK, COLS_PER_BLOCK, Family, LINE, LINES_PER_BLOCK, Line, PLANES, TILE_ROWS, Table,
    TritKernels, Trits,
};
use crate::activations::{ActivationForm, Activations};
use crate::dispatch::kernels;
use crate::matmul::{Columns, MatmulError};
use crate::threads::Team;

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
