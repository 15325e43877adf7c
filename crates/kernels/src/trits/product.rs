//! Products of ternary tiles with activations.

use std::cell::RefCell;
use std::ops::Range;

use super::{
    BYTES_PER_BLOCK, COLS_PER_BLOCK, Family, LINE, LINES_PER_BLOCK, Line, PLANES, TILE_ROWS, Table,
    TritKernels, Trits, many,
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
    /// The activations of some tokens, `cols` each: whole blocks.
    pub(super) fn of(&self, tokens: Range<usize>, cols: usize) -> &[i8] {
        &self.x[tokens.start * cols..tokens.end * cols]
    }

    /// `looked_up`: the tokens whose own tables are wanted.
    fn prepare(
        &mut self,
        q: &[i8],
        tokens: usize,
        cols: usize,
        trits: &TritKernels,
        looked_up: Range<usize>,
    ) {
        let padded = cols.next_multiple_of(COLS_PER_BLOCK);
        self.x.clear();
        self.minus_sums.clear();
        for q in q.chunks_exact(cols).take(tokens) {
            self.x.extend_from_slice(q);
            self.x.resize(self.x.len() + padded - cols, 0);
            self.minus_sums.push(-q.iter().map(|&q| i32::from(q)).sum::<i32>());
        }
        let tables = padded / COLS_PER_BLOCK * BYTES_PER_BLOCK * 2;
        self.tables.clear();
        self.tables.resize(tables * looked_up.len(), Table([0; 32]));
        let x = &self.x[looked_up.start * padded..looked_up.end * padded];
        for (x, tables) in x.chunks_exact(padded).zip(self.tables.chunks_exact_mut(tables)) {
            // SAFETY: `kernels()` gives only functions that this processor can run.
            unsafe { (trits.tables)(x, tables) };
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
    let family = first.family;
    // The first tokens by one-to-many tables where the processor has kernels for those.
    let by_tables = match family {
        Family::Multiply | Family::Reference => 0,
        _ => trits.many.map_or(0, |many| many::tokens_by_tables(many, tokens)),
    };
    let few = tokens - by_tables <= trits.lookup_up_to;
    let lookup = family == Family::Lookup || (family == Family::Auto && few);
    let looked_up = if lookup { by_tables..tokens } else { 0..0 };
    input.ensure(ActivationForm::Int8Token);
    let (x, int8) = input.trits_mut();
    x.prepare(&int8.q, tokens, cols, trits, looked_up);
    let input = &*input;
    for products in products.chunks_mut(AT_ONCE) {
        let mut products = products.iter_mut();
        let runs: Runs<'_> = std::array::from_fn(|_| {
            let (w, out) = products.next()?;
            let columns = Columns::new(out, w.rows, tokens);
            let (x, scales) = (input.trits(), &input.int8(ActivationForm::Int8Token).scale);
            Some(Run {
                trits,
                w,
                x,
                scales,
                blocks: input.blocks(),
                tokens: by_tables..tokens,
                lookup,
                columns,
            })
        });
        if let (Some(many), 1..) = (trits.many, by_tables) {
            many::multiply(team, &runs, many, by_tables);
        }
        multiply_together(team, &runs, tokens - by_tables);
    }
    Ok(())
}

/// Matrices that share one job of the team: queries, keys and values.
const AT_ONCE: usize = 3;

/// Matrices that share one job of the team.
pub(super) type Runs<'a> = [Option<Run<'a>>; AT_ONCE];

/// The products of the last `tokens` tokens.
fn multiply_together(team: &Team, runs: &Runs<'_>, tokens: usize) {
    if tokens == 0 {
        return;
    }
    let groups = |w: &Trits| w.tiles().div_ceil(TILES_AT_ONCE);
    let total: usize = runs.iter().flatten().map(|run| groups(run.w)).sum();
    let work: usize = runs.iter().flatten().map(|run| run.w.rows.saturating_mul(run.w.cols)).sum();
    team.split(total, 1, work.saturating_mul(tokens), &|range| {
        let mut before = 0;
        for run in runs.iter().flatten() {
            let groups = groups(run.w);
            let from = range.start.clamp(before, before + groups) - before;
            let to = range.end.clamp(before, before + groups) - before;
            before += groups;
            if from == to {
                continue;
            }
            let tiles = from * TILES_AT_ONCE..(to * TILES_AT_ONCE).min(run.w.tiles());
            SCRATCH.with_borrow_mut(|scratch| {
                // SAFETY: `split` gives disjoint ranges, so no other thread writes the rows of these tiles.
                unsafe { run.tiles(tiles, scratch) };
            });
        }
    });
}

/// One matrix and its input.
pub(super) struct Run<'a> {
    pub(super) trits: &'a TritKernels,
    pub(super) w: &'a Trits,
    pub(super) x: &'a TritInput,
    /// Scales of the activations, `blocks` of them a token, all the same.
    scales: &'a [f32],
    blocks: usize,
    /// The tokens that do not go through one-to-many tables.
    tokens: Range<usize>,
    lookup: bool,
    /// Where the outputs go.
    pub(super) columns: Columns<'a>,
}

impl Run<'_> {
    /// # Safety
    /// No other thread writes the columns of these tiles' rows at the same time.
    unsafe fn tiles(&self, tiles: Range<usize>, scratch: &mut Scratch) {
        let lines = self.w.lines_per_tile();
        let all = &self.w.lines[tiles.start * lines..tiles.end * lines];
        let count = if self.lookup { TILES_AT_ONCE } else { 1 };
        scratch.sums.resize(self.tokens.len().max(count), [0; TILE_ROWS]);
        scratch.out.resize(TILE_ROWS, 0.0);
        scratch.digits.resize(lines / LINES_PER_BLOCK * PLANES, [Line([0; LINE]); 2]);
        for (i, group) in all.chunks(lines * count).enumerate() {
            let first_tile = tiles.start + i * count;
            if self.lookup {
                let n = group.len() / lines;
                for (t, tables) in self.tokens.clone().zip(self.x.tables.chunks_exact(lines * 4)) {
                    // SAFETY: `kernels()` gives only functions that this processor can run.
                    unsafe { (self.trits.lookup)(group, tables, &mut scratch.sums[..n]) };
                    for (j, sums) in scratch.sums[..n].iter().enumerate() {
                        // SAFETY: these are columns of this thread's tiles, as the caller promises.
                        unsafe { self.write(t, first_tile + j, sums, &mut scratch.out) };
                    }
                }
            } else {
                let sums = &mut scratch.sums[..self.tokens.len()];
                let cols = lines / LINES_PER_BLOCK * COLS_PER_BLOCK;
                let x = self.x.of(self.tokens.clone(), cols);
                let minus_sums = &self.x.minus_sums[self.tokens.clone()];
                // SAFETY: as above.
                unsafe { (self.trits.multiply)(group, x, minus_sums, &mut scratch.digits, sums) };
                for (t, sums) in self.tokens.clone().zip(sums) {
                    // SAFETY: as above.
                    unsafe { self.write(t, first_tile, sums, &mut scratch.out) };
                }
            }
        }
    }

    /// Scales the sums of a token and a tile, and stores them.
    ///
    /// # Safety
    /// No other thread writes the columns of this tile's rows at the same time.
    unsafe fn write(&self, t: usize, tile: usize, sums: &[i32; TILE_ROWS], out: &mut [f32]) {
        let first = tile * TILE_ROWS;
        let n = TILE_ROWS.min(self.w.rows - first);
        let (out, x_scale) = (&mut out[..n], self.x_scale(t));
        for ((out, &sum), &scale) in out.iter_mut().zip(sums).zip(&self.w.scale[first..first + n]) {
            *out = sum as f32 * x_scale * scale;
        }
        // SAFETY: as the caller promises.
        unsafe { self.columns.write_token(t, first, out) };
    }

    /// The scale of token `t`'s activations.
    pub(super) fn x_scale(&self, t: usize) -> f32 {
        self.scales[t * self.blocks]
    }
}
