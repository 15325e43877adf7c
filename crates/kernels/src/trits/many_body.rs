//! The loops of one-to-many tables ([`super::many`]) in plain Rust, compiled for each instruction set whose compiler's
//! vectors they fill: 32 numbers at a time, nothing but additions.

use super::many::{
    BlockTables, ByteTable, Fours, Planes, TOKENS, TileOut, Tokens16, Tokens32, lines_of_block,
};
use super::{BYTES_PER_BLOCK, Line, PLANES, TILE_ROWS};

#[inline(always)]
pub(crate) fn interleave(x: &[i8], fours: &mut [Fours]) {
    let cols = fours.len() * 4;
    for (t, x) in x.chunks_exact(cols).enumerate() {
        for (fours, &x) in fours.iter_mut().zip(x.as_chunks::<4>().0) {
            fours.0[t] = x;
        }
    }
}

#[inline(always)]
pub(crate) fn tables(planes: &Planes, tables: &mut BlockTables, reach: &mut Tokens32) {
    for fours in planes {
        for (reach, four) in reach.0.iter_mut().zip(&fours.0) {
            *reach += four.map(|x| i32::from(x).abs()).iter().sum::<i32>();
        }
    }
    for (j, table) in tables.iter_mut().enumerate().take(BYTES_PER_BLOCK) {
        let mut x = [[0; TOKENS]; PLANES];
        for (x, fours) in x.iter_mut().zip(planes) {
            for (x, four) in x.iter_mut().zip(&fours.0) {
                *x = i16::from(four[j]);
            }
        }
        byte_table(&x, table);
    }
}

/// `v + trit * x`
#[inline(always)]
fn digit(v: &[i16; TOKENS], x: &[i16; TOKENS], trit: usize) -> [i16; TOKENS] {
    let mut out = *v;
    for i in 0..TOKENS {
        out[i] += [-x[i], 0, x[i]][trit];
    }
    out
}

#[inline(always)]
fn byte_table(x: &[[i16; TOKENS]; PLANES], table: &mut ByteTable) {
    let zero = [0; TOKENS];
    let mut last = [zero; 9];
    for (i, last) in last.iter_mut().enumerate() {
        *last = digit(&digit(&zero, &x[3], i / 3), &x[4], i % 3);
    }
    for (i, entries) in table.as_chunks_mut::<9>().0.iter_mut().enumerate().take(27) {
        let first = digit(&digit(&digit(&zero, &x[0], i / 9), &x[1], i / 3 % 3), &x[2], i % 3);
        for (entry, last) in entries.iter_mut().zip(&last) {
            for t in 0..TOKENS {
                entry.0[t] = first[t] + last[t];
            }
        }
    }
}

#[inline(always)]
pub(crate) fn add(
    tiles: &[Line],
    lines_per_tile: usize,
    block: usize,
    tables: &BlockTables,
    sums: &mut [Tokens16],
) {
    let [t0, t1, t2, t3] = tables;
    for (tile, sums) in tiles.chunks_exact(lines_per_tile).zip(sums.as_chunks_mut::<TILE_ROWS>().0) {
        let [front, back] = lines_of_block(tile, block);
        let bytes = front.0.as_chunks::<2>().0.iter().zip(back.0.as_chunks::<2>().0);
        for (sums, (front, back)) in sums.iter_mut().zip(bytes) {
            let entry = |table: &'_ ByteTable, byte: u8| table[usize::from(byte)].0;
            let (a, b) = (entry(t0, front[0]), entry(t1, front[1]));
            let (c, d) = (entry(t2, back[0]), entry(t3, back[1]));
            for t in 0..TOKENS {
                // Entries that stand for nothing, for rows behind the last one, may overflow.
                let pairs = a[t].wrapping_add(b[t]).wrapping_add(c[t].wrapping_add(d[t]));
                sums.0[t] = sums.0[t].wrapping_add(pairs);
            }
        }
    }
}

#[inline(always)]
pub(crate) fn widen(short: &mut [Tokens16], long: &mut [Tokens32], first: bool) {
    for (short, long) in short.iter_mut().zip(long) {
        for t in 0..TOKENS {
            long.0[t] = i32::from(short.0[t]) + if first { 0 } else { long.0[t] };
        }
        short.0 = [0; TOKENS];
    }
}

#[inline(always)]
pub(crate) fn finish(
    short: &[Tokens16; TILE_ROWS],
    long: Option<&[Tokens32; TILE_ROWS]>,
    x_scale: &[f32; TOKENS],
    scale: &[f32; TILE_ROWS],
    out: &mut TileOut,
) {
    for (t, (out, x_scale)) in out.iter_mut().zip(x_scale).enumerate() {
        for r in 0..TILE_ROWS {
            let sum = i32::from(short[r].0[t]) + long.map_or(0, |long| long[r].0[t]);
            out[r] = sum as f32 * x_scale * scale[r];
        }
    }
}

/// Makes the table `MANY` of the functions above, compiled for these features.
macro_rules! many_kernels {
    ($features:literal) => {
        use crate::trits::many::{
            BlockTables, Fours, ManyKernels, Planes, TOKENS, TileOut, Tokens16, Tokens32,
        };
        use crate::trits::{Line, TILE_ROWS, many_body};

        pub(super) static MANY: ManyKernels = ManyKernels { interleave, tables, add, widen, finish };

        #[target_feature(enable = $features)]
        fn interleave(x: &[i8], fours: &mut [Fours]) {
            many_body::interleave(x, fours)
        }

        #[target_feature(enable = $features)]
        fn tables(planes: &Planes, tables: &mut BlockTables, reach: &mut Tokens32) {
            many_body::tables(planes, tables, reach)
        }

        #[target_feature(enable = $features)]
        fn add(tiles: &[Line], lines: usize, block: usize, tables: &BlockTables, sums: &mut [Tokens16]) {
            many_body::add(tiles, lines, block, tables, sums)
        }

        #[target_feature(enable = $features)]
        fn widen(short: &mut [Tokens16], long: &mut [Tokens32], first: bool) {
            many_body::widen(short, long, first)
        }

        #[target_feature(enable = $features)]
        fn finish(
            short: &[Tokens16; TILE_ROWS],
            long: Option<&[Tokens32; TILE_ROWS]>,
            x_scale: &[f32; TOKENS],
            scale: &[f32; TILE_ROWS],
            out: &mut TileOut,
        ) {
            many_body::finish(short, long, x_scale, scale, out)
        }
    };
}
pub(crate) use many_kernels;
