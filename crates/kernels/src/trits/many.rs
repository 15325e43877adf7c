//! Products of ternary tiles with many tokens, by one-to-many tables (Vec-LUT, arXiv 2512.06443).
//!
//! A byte of a tile stands for five weights. Its table holds, for each of the 243 patterns, the sums of the five
//! activations for 32 tokens beside each other: 64 bytes. So one load and one addition do 160 multiply-adds, the byte of
//! the tile is the index as it is, and nothing is multiplied. Threads take groups of tokens, not rows: then no table is
//! filled twice.
//!
//! Sums are kept in 16 bits as long as the activations that went into them cannot exceed those, and in 32 bits then.

use std::cell::RefCell;
use std::ops::Range;

use super::product::{Run, Runs};
use super::{BYTES_PER_BLOCK, COLS_PER_BLOCK, LINES_PER_BLOCK, Line, PLANES, TILE_ROWS, Trits};
use crate::threads::Team;

/// Tokens of a table.
pub(crate) const TOKENS: usize = 32;

/// One number for each token, 16 bits.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Tokens16(pub(crate) [i16; TOKENS]);

/// One number for each token, 32 bits.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Tokens32(pub(crate) [i32; TOKENS]);

/// The sums of five columns for all patterns. There is an entry for every byte; those above 242 stand for nothing.
pub(crate) type ByteTable = [Tokens16; 256];

/// The tables of a block of 20 columns.
pub(crate) type BlockTables = [ByteTable; BYTES_PER_BLOCK];

/// Four activations of each token, one a byte.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Fours(pub(crate) [[i8; 4]; TOKENS]);

/// A block's activations.
pub(crate) type Planes = [Fours; PLANES];

/// A tile's outputs, token by token.
pub(crate) type TileOut = [[f32; TILE_ROWS]; TOKENS];

/// See [`ManyKernels::finish`].
pub(crate) type Finish = unsafe fn(
    &[Tokens16; TILE_ROWS],
    Option<&[Tokens32; TILE_ROWS]>,
    &[f32; TOKENS],
    &[f32; TILE_ROWS],
    &mut TileOut,
);

/// The inner loops of one instruction set.
pub(crate) struct ManyKernels {
    /// Puts the activations of a group's tokens beside each other: `fours[i].0[t]` are columns `4 i .. 4 i + 4` of `x[t]`,
    /// `[tokens, fours.len() * 4]`.
    pub(crate) interleave: unsafe fn(&[i8], &mut [Fours]),
    /// Fills the tables of a block, and adds its absolute activations to those of each token.
    pub(crate) tables: unsafe fn(&Planes, &mut BlockTables, &mut Tokens32),
    /// Adds the sums of a block to those of each row: tiles (whole), lines of a tile, the block, its tables, sums `[rows]`.
    pub(crate) add: unsafe fn(&[Line], usize, usize, &BlockTables, &mut [Tokens16]),
    /// Adds the short sums to the long ones (the first time, these are of no meaning), and makes them zero.
    pub(crate) widen: unsafe fn(&mut [Tokens16], &mut [Tokens32], bool),
    /// `out[token][row] = (short + long)[row][token] * x_scale[token] * scale[row]`
    pub(crate) finish: Finish,
    /// Tiles whose sums a thread keeps at once, 2 kB each, beside 64 kB of tables in its second-level cache.
    pub(crate) tiles_at_once: usize,
    /// Fewer tokens than this are faster without tables; measured.
    pub(crate) full_enough: usize,
}

/// Buffers of one thread.
struct Scratch {
    fours: Vec<Fours>,
    tables: Box<BlockTables>,
    short: Vec<Tokens16>,
    long: Vec<Tokens32>,
}

impl Default for Scratch {
    fn default() -> Self {
        let tables = Box::new([[Tokens16([0; TOKENS]); 256]; BYTES_PER_BLOCK]);
        Self { fours: vec![], tables, short: vec![], long: vec![] }
    }
}

thread_local! {
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

/// How many of `tokens` tokens go through tables, the first ones: whole groups, and a last one that is mostly full.
pub(super) fn tokens_by_tables(kernels: &ManyKernels, tokens: usize) -> usize {
    let rest = tokens % TOKENS;
    if rest >= kernels.full_enough { tokens } else { tokens - rest }
}

/// The products of the first `tokens` tokens.
pub(super) fn multiply(team: &Team, runs: &Runs<'_>, kernels: &ManyKernels, tokens: usize) {
    let groups = tokens.div_ceil(TOKENS);
    let tiles: usize = runs.iter().flatten().map(|run| run.w.tiles()).sum();
    let work: usize = runs.iter().flatten().map(|run| run.w.rows.saturating_mul(run.w.cols)).sum();
    // Rows are parted only as far as the threads would otherwise not have equally much to do.
    let threads = team.threads();
    let parts =
        (1..threads).find(|parts| (groups * parts).is_multiple_of(threads)).unwrap_or(threads).min(tiles);
    team.for_each(groups * parts, work.saturating_mul(tokens), &|i| {
        let (part, group) = (i / groups, i % groups);
        let tokens = group * TOKENS..((group + 1) * TOKENS).min(tokens);
        let part = part * tiles / parts..(part + 1) * tiles / parts;
        SCRATCH.with_borrow_mut(|scratch| {
            let scratch = scratch.get_or_insert_default();
            let job = Job { runs, kernels, tokens };
            job.interleave(&mut scratch.fours);
            let at_once = part.len().div_ceil(part.len().div_ceil(kernels.tiles_at_once).max(1)).max(1);
            let mut start = part.start;
            while start < part.end {
                let end = (start + at_once).min(part.end);
                // SAFETY: each job has its own tokens or its own rows.
                unsafe { job.tiles(start..end, scratch) };
                start = end;
            }
        });
    });
}

/// A group of tokens and the matrices that they meet.
struct Job<'a> {
    runs: &'a Runs<'a>,
    kernels: &'a ManyKernels,
    tokens: Range<usize>,
}

impl Job<'_> {
    fn interleave(&self, fours: &mut Vec<Fours>) {
        let Some(Some(Run { w, x, .. })) = self.runs.first() else { return };
        let cols = w.cols.next_multiple_of(COLS_PER_BLOCK);
        fours.clear();
        fours.resize(cols / 4, Fours([[0; 4]; TOKENS]));
        // SAFETY: `kernels()` gives only functions that this processor can run.
        unsafe { (self.kernels.interleave)(x.of(self.tokens.clone(), cols), fours) };
    }

    /// The tiles of `range`, counted through all matrices.
    ///
    /// # Safety
    /// No other thread writes the rows of these tiles for these tokens at the same time.
    unsafe fn tiles(&self, range: Range<usize>, scratch: &mut Scratch) {
        let Scratch { fours, tables, short, long } = scratch;
        short.clear();
        short.resize(range.len() * TILE_ROWS, Tokens16([0; TOKENS]));
        let mut widened = false;
        let mut reach = Tokens32([0; TOKENS]);
        for (block, planes) in fours.as_chunks().0.iter().enumerate() {
            let before = reach;
            // SAFETY: `kernels()` gives only functions that this processor can run.
            unsafe { (self.kernels.tables)(planes, tables, &mut reach) };
            if reach.0.iter().any(|&reach| reach > i16::MAX.into()) {
                long.resize(short.len().max(long.len()), Tokens32([0; TOKENS]));
                // SAFETY: as above.
                unsafe { (self.kernels.widen)(short, long, !widened) };
                widened = true;
                reach.0.iter_mut().zip(before.0).for_each(|(reach, before)| *reach -= before);
            }
            self.each(&range, |run, tiles, at| {
                let lines = run.w.lines_per_tile();
                let short = &mut short[at * TILE_ROWS..][..tiles.len() * TILE_ROWS];
                let all = &run.w.lines[tiles.start * lines..tiles.end * lines];
                // SAFETY: as above.
                unsafe { (self.kernels.add)(all, lines, block, tables, short) };
            });
        }
        self.each(&range, |run, tiles, at| {
            let short = short[at * TILE_ROWS..].as_chunks().0;
            let long = widened.then(|| long[at * TILE_ROWS..].as_chunks().0);
            for (i, tile) in tiles.enumerate() {
                // SAFETY: these are the tiles and tokens of this thread, as the caller promises.
                unsafe { self.finish(run, tile, &short[i], long.map(|long| &long[i])) };
            }
        });
    }

    /// Calls `f` for each matrix that has tiles in `range`: its own numbers of those, and where in the range they begin.
    fn each(&self, range: &Range<usize>, mut f: impl FnMut(&Run<'_>, Range<usize>, usize)) {
        let mut before = 0;
        for run in self.runs.iter().flatten() {
            let n = run.w.tiles();
            let from = range.start.clamp(before, before + n);
            let to = range.end.clamp(before, before + n);
            if from < to {
                f(run, from - before..to - before, from - range.start);
            }
            before += n;
        }
    }

    /// # Safety
    /// No other thread writes this tile's rows of these tokens at the same time.
    unsafe fn finish(
        &self,
        run: &Run<'_>,
        tile: usize,
        short: &[Tokens16; TILE_ROWS],
        long: Option<&[Tokens32; TILE_ROWS]>,
    ) {
        let Trits { rows, scale, .. } = run.w;
        let first = tile * TILE_ROWS;
        let n = TILE_ROWS.min(rows - first);
        let mut scales = [0.0; TILE_ROWS];
        scales[..n].copy_from_slice(&scale[first..first + n]);
        let mut x_scales = [0.0; TOKENS];
        for (x_scale, t) in x_scales.iter_mut().zip(self.tokens.clone()) {
            *x_scale = run.x_scale(t);
        }
        let mut out = [[0.0; TILE_ROWS]; TOKENS];
        // SAFETY: `kernels()` gives only functions that this processor can run.
        unsafe { (self.kernels.finish)(short, long, &x_scales, &scales, &mut out) };
        for (t, out) in self.tokens.clone().zip(&out) {
            // SAFETY: as the caller promises.
            unsafe { run.columns.write_token(t, first, &out[..n]) };
        }
    }
}

/// Lines of a block inside a tile.
pub(crate) fn lines_of_block(tile: &[Line], block: usize) -> &[Line; LINES_PER_BLOCK] {
    &tile.as_chunks().0[block]
}
