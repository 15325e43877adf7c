//! The tiles of [`crate::trits`] and [`crate::int_tiles`] on NEON: what all instruction sets of ARM share, and, as macros,
//! what differs between them in one instruction.

use std::arch::aarch64::*;

use crate::trits::{BYTES_PER_BLOCK, COLS_PER_BLOCK, Line, PLANES, TILE_ROWS, Table};

/// Lines whose partial sums fit: in 16 bits as a whole, 20 * 10 columns * 128; in 8 bits their upper bytes, of which a line
/// adds two of at least -2 (sums of three activations) and two of at least -1 (sums of two).
const LINES_IN_16_BITS: usize = 20;
const _: () = assert!(LINES_IN_16_BITS * 10 * 128 <= i16::MAX as usize && LINES_IN_16_BITS * 6 <= 128);

/// For each digit of a pattern and each pattern of `DIGITS` trits, the digit minus 1; 0 for what is no pattern.
const fn trits_of_patterns<const DIGITS: usize, const LANES: usize>() -> [[i8; LANES]; DIGITS] {
    let mut trits = [[0; LANES]; DIGITS];
    let mut digit = 0;
    while digit < DIGITS {
        let weight = 3usize.pow((DIGITS - 1 - digit) as u32);
        let mut pattern = 0;
        while pattern < 3usize.pow(DIGITS as u32) {
            trits[digit][pattern] = (pattern / weight % 3) as i8 - 1;
            pattern += 1;
        }
        digit += 1;
    }
    trits
}

/// Of the first three digits of a byte.
static FIRST: [[i8; 32]; 3] = trits_of_patterns();
/// Of its last two.
static LAST: [[i8; 16]; 2] = trits_of_patterns();

#[inline]
#[target_feature(enable = "neon")]
fn load_u8(x: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the reference covers the 16 bytes that are read.
    unsafe { vld1q_u8(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_s8(x: &[i8; 16]) -> int8x16_t {
    // SAFETY: the reference covers the 16 bytes that are read.
    unsafe { vld1q_s8(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_s32(out: &mut [i32; 4], v: int32x4_t) {
    // SAFETY: the reference covers the 16 bytes that are written.
    unsafe { vst1q_s32(out.as_mut_ptr(), v) }
}

/// The 16 bytes `i` of a line.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_part(line: &Line, i: usize) -> uint8x16_t {
    load_u8(&line.0.as_chunks::<16>().0[i])
}

/// Four activations, four times.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn four(x: &[i8; 4]) -> int8x16_t {
    vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(x.map(|x| x as u8))))
}

/// Bytes of five trits into the patterns of their first three and of their last two: quotient and rest of a division
/// by nine. The product with 57 / 512 rounds down to the quotient for every byte.
#[inline]
#[target_feature(enable = "neon")]
fn split(bytes: uint8x16_t) -> (uint8x16_t, uint8x16_t) {
    let factor = vdupq_n_u8(57);
    let low = vreinterpretq_u8_u16(vmull_u8(vget_low_u8(bytes), vget_low_u8(factor)));
    let high = vreinterpretq_u8_u16(vmull_high_u8(bytes, factor));
    let first = vshrq_n_u8::<1>(vuzp2q_u8(low, high));
    (first, vmlsq_u8(bytes, first, vdupq_n_u8(9)))
}

/// Partial sums of all patterns, 32 at most: their lower bytes, then their upper ones, which is how TBL looks them up.
#[inline]
#[target_feature(enable = "neon")]
fn pattern_sums<const DIGITS: usize, const LANES: usize>(
    trits: &[[i8; LANES]; DIGITS],
    x: [i8; DIGITS],
    table: &mut Table,
) {
    let (low, high) = table.0.split_at_mut(16);
    for i in 0..LANES / 16 {
        let mut sums = [vdupq_n_s16(0); 2];
        for (trits, x) in trits.iter().zip(x) {
            let (trits, x) = (load_s8(&trits.as_chunks::<16>().0[i]), vdupq_n_s8(x));
            sums[0] = vmlal_s8(sums[0], vget_low_s8(trits), vget_low_s8(x));
            sums[1] = vmlal_high_s8(sums[1], trits, x);
        }
        let [a, b] = sums.map(|sums| vreinterpretq_u8_s16(sums));
        let parts = [vuzp1q_u8(a, b), vuzp2q_u8(a, b)];
        for (half, part) in [&mut *low, &mut *high].into_iter().zip(parts) {
            let half: &mut [i16] = &mut half[i * 8..i * 8 + 8];
            // SAFETY: eight numbers of 16 bits are the 16 bytes that are written.
            unsafe { vst1q_u8(half.as_mut_ptr().cast(), part) };
        }
    }
}

#[target_feature(enable = "neon")]
pub(super) fn tables(x: &[i8], tables: &mut [Table]) {
    let blocks = x.as_chunks::<COLS_PER_BLOCK>().0;
    for (x, tables) in blocks.iter().zip(tables.as_chunks_mut::<{ 2 * BYTES_PER_BLOCK }>().0) {
        for (j, [first, last]) in tables.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            pattern_sums(&FIRST, [x[j], x[4 + j], x[8 + j]], first);
            pattern_sums(&LAST, [x[12 + j], x[16 + j]], last);
        }
    }
}

/// 16 bytes of a table: of its lower bytes 0 and 1, of its upper ones 2 and 3.
#[inline]
#[target_feature(enable = "neon")]
fn load_quarter(table: &Table, i: usize) -> uint8x16_t {
    // SAFETY: eight numbers of 16 bits are the 16 bytes that are read.
    unsafe { vld1q_u8(table.0.as_chunks::<8>().0[i].as_ptr().cast()) }
}

/// One token against tiles of 32 rows that lie one behind the other: no activation is multiplied.
#[target_feature(enable = "neon")]
pub(super) fn lookup(tiles: &[Line], tables: &[Table], sums: &mut [[i32; TILE_ROWS]]) {
    let tables = tables.as_chunks::<4>().0;
    for (tile, sums) in tiles.chunks_exact(tables.len()).zip(sums) {
        lookup_tile(tile, tables, sums);
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn lookup_tile(tile: &[Line], tables: &[[Table; 4]], out: &mut [i32; TILE_ROWS]) {
    let mut sums = [vdupq_n_s32(0); TILE_ROWS / 4];
    for (lines, tables) in tile.chunks(LINES_IN_16_BITS).zip(tables.chunks(LINES_IN_16_BITS)) {
        // Of 16 rows each: the sums of the lower bytes, unsigned, and those of the upper ones.
        let mut low = [[vdupq_n_u16(0); 2]; 2];
        let mut high = [vdupq_n_s8(0); 2];
        for (line, tables) in lines.iter().zip(tables) {
            let part = |i| load_part(line, i);
            let (rows0, rows16) = ((part(0), part(1)), (part(2), part(3)));
            let even = [vuzp1q_u8(rows0.0, rows0.1), vuzp1q_u8(rows16.0, rows16.1)];
            let odd = [vuzp2q_u8(rows0.0, rows0.1), vuzp2q_u8(rows16.0, rows16.1)];
            for (bytes, [first, last]) in [even, odd].into_iter().zip(tables.as_chunks::<2>().0) {
                let first_low = uint8x16x2_t(load_quarter(first, 0), load_quarter(first, 1));
                let first_high = uint8x16x2_t(load_quarter(first, 2), load_quarter(first, 3));
                let (last_low, last_high) = (load_quarter(last, 0), load_quarter(last, 2));
                for half in 0..2 {
                    let (three, two) = split(bytes[half]);
                    let (a, b) = (vqtbl2q_u8(first_low, three), vqtbl1q_u8(last_low, two));
                    low[half][0] = vaddw_u8(vaddw_u8(low[half][0], vget_low_u8(a)), vget_low_u8(b));
                    low[half][1] = vaddw_high_u8(vaddw_high_u8(low[half][1], a), b);
                    let (a, b) = (vqtbl2q_u8(first_high, three), vqtbl1q_u8(last_high, two));
                    high[half] = vaddq_s8(high[half], vreinterpretq_s8_u8(vaddq_u8(a, b)));
                }
            }
        }
        for half in 0..2 {
            let upper = [vmovl_s8(vget_low_s8(high[half])), vmovl_high_s8(high[half])];
            for i in 0..2 {
                // Exact modulo 2^16, and so exact.
                let sums16 = vaddq_s16(vreinterpretq_s16_u16(low[half][i]), vshlq_n_s16::<8>(upper[i]));
                let at = half * 4 + i * 2;
                sums[at] = vaddw_s16(sums[at], vget_low_s16(sums16));
                sums[at + 1] = vaddw_high_s16(sums[at + 1], sums16);
            }
        }
    }
    for (out, sums) in out.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
        store_s32(out, sums);
    }
}

/// Decodes a tile into trits: per four columns two lines, the rows in their order, a row's four trits beside each other.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn decode(tile: &[Line], trits: &mut [[Line; 2]]) {
    let [first0, first1, first2] = [0, 1, 2].map(|digit: usize| {
        let [low, high] = [0, 1].map(|i: usize| load_s8(&FIRST[digit].as_chunks::<16>().0[i]));
        int8x16x2_t(low, high)
    });
    let [last0, last1] = [0, 1].map(|digit: usize| load_s8(&LAST[digit]));
    for (lines, trits) in tile.as_chunks::<2>().0.iter().zip(trits.as_chunks_mut::<PLANES>().0) {
        for quarter in 0..4 {
            let [a, b] = [0, 1].map(|i: usize| vreinterpretq_u16_u8(load_part(&lines[i], quarter)));
            // Four rows each, four bytes a row.
            for (i, bytes) in [vzip1q_u16(a, b), vzip2q_u16(a, b)].into_iter().enumerate() {
                let (three, two) = split(vreinterpretq_u8_u16(bytes));
                let planes = [
                    vqtbl2q_s8(first0, three),
                    vqtbl2q_s8(first1, three),
                    vqtbl2q_s8(first2, three),
                    vqtbl1q_s8(last0, two),
                    vqtbl1q_s8(last1, two),
                ];
                for (trits, plane) in trits.iter_mut().zip(planes) {
                    let part = &mut trits[quarter / 2].0.as_chunks_mut::<16>().0[quarter % 2 * 2 + i];
                    // SAFETY: the reference covers the 16 bytes that are written.
                    unsafe { vst1q_u8(part.as_mut_ptr(), vreinterpretq_u8_s8(plane)) };
                }
            }
        }
    }
}

/// Defines `TRITS` and `int_tile` of one instruction set. `$dots(sums, w, x)` adds the products of neighbouring bytes, four
/// by four, to the lanes of `sums` in their order; it is inlined where its features are among `$features`.
macro_rules! tile_kernels {
    ($features:literal, $dots:path) => {
        pub(super) static TRITS: TritKernels = TritKernels {
            tables: neon_tiles::tables,
            lookup: neon_tiles::lookup,
            multiply,
            lookup_up_to: 1,
            many: None,
        };

        /// Several tokens against one tile. The trits are signed, so no sums of activations are needed.
        #[target_feature(enable = $features)]
        fn multiply(
            tile: &[Line],
            xs: &[i8],
            _minus_sums: &[i32],
            trits: &mut [[Line; 2]],
            sums: &mut [[i32; trits::TILE_ROWS]],
        ) {
            neon_tiles::decode(tile, trits);
            let trits = &*trits;
            let cols = trits.len() * 4;
            let x = |t: usize| &xs[t * cols..][..cols];
            let (fours, rest) = sums.as_chunks_mut::<4>();
            let first_rest = fours.len() * 4;
            for (i, sums) in fours.iter_mut().enumerate() {
                *sums = multiply_tokens(trits, [i * 4, i * 4 + 1, i * 4 + 2, i * 4 + 3].map(x));
            }
            for (i, sums) in rest.iter_mut().enumerate() {
                [*sums] = multiply_tokens(trits, [x(first_rest + i)]);
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn multiply_tokens<const T: usize>(
            trits: &[[Line; 2]],
            xs: [&[i8]; T],
        ) -> [[i32; trits::TILE_ROWS]; T] {
            let xs = xs.map(|x| &x.as_chunks::<4>().0[..trits.len()]);
            let mut out = [[0; trits::TILE_ROWS]; T];
            // Half of the rows at a time: their sums stay in registers.
            for half in 0..2 {
                let mut sums = [[vdupq_n_s32(0); 4]; T];
                for (k, trits) in trits.iter().enumerate() {
                    let w = [0, 1, 2, 3].map(|i: usize| load_part(&trits[half], i));
                    for t in 0..T {
                        let x = four(&xs[t][k]);
                        for i in 0..4 {
                            sums[t][i] = $dots(sums[t][i], vreinterpretq_s8_u8(w[i]), x);
                        }
                    }
                }
                for t in 0..T {
                    for i in 0..4 {
                        store_s32(&mut out[t].as_chunks_mut::<4>().0[half * 4 + i], sums[t][i]);
                    }
                }
            }
            out
        }

        /// One tile of codes against all tokens: see [`int_tiles::body::int_tile`].
        #[target_feature(enable = $features)]
        pub(super) fn int_tile(
            tile: &IntTile<'_>,
            input: IntInput<'_>,
            codes: &mut Vec<[Line; 8]>,
            out: &mut [[f32; int_tiles::TILE_ROWS]],
        ) {
            int_tiles::body::int_tile::<NeonCodes<Dots>, 2>(tile, input, codes, out)
        }

        /// The instruction that this file is named after.
        #[derive(Clone, Copy)]
        struct Dots;

        impl AddDots for Dots {
            #[inline(always)]
            fn add_dots(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
                // SAFETY: this type is used only inside `int_tile`, which carries these features.
                unsafe { $dots(sums, w, x) }
            }
        }
    };
}
pub(super) use tile_kernels;
