//! The kernels of ternary tiles ([`crate::trits`]) twice: by lookup (`vpermi2b` splits a byte of five trits into two
//! indices, `vpermw` turns each index into a partial sum that stands in a table: nothing is multiplied), and by multiply-add
//! (`vpdpbusd`), which pays when several tokens share the decoded trits.

use std::arch::x86_64::*;

use super::{PREFETCH, load};
use crate::trits::{BYTES_PER_BLOCK, COLS_PER_BLOCK, LINE, Line, TILE_ROWS, Table, digits_of_byte};

/// Blocks whose partial sums fit into 16 bits: 12 * 20 columns * 127 = 30480.
const BLOCKS_IN_16_BITS: usize = i16::MAX as usize / (COLS_PER_BLOCK * 127);

/// What a byte of five trits becomes: index of its first three digits, index of its last two, and for the
/// multiply-add family the same digits as 2-bit fields.
struct Split {
    first: [u8; 256],
    last: [u8; 256],
    first_fields: [u8; 256],
    last_fields: [u8; 256],
}

const fn split_tables() -> Split {
    let mut split = Split { first: [0; 256], last: [0; 256], first_fields: [0; 256], last_fields: [0; 256] };
    let mut byte = 0;
    while byte < 256 {
        let d = digits_of_byte(byte as u8);
        split.first[byte] = d[0] * 9 + d[1] * 3 + d[2];
        split.last[byte] = d[3] * 3 + d[4];
        split.first_fields[byte] = d[0] | d[1] << 2 | d[2] << 4;
        split.last_fields[byte] = d[3] | d[4] << 2;
        byte += 1;
    }
    split
}

static SPLIT: Split = split_tables();

#[inline]
#[target_feature(enable = "avx512f")]
fn load_table(table: &Table) -> __m512i {
    // SAFETY: the reference covers the 64 bytes that the load reads.
    unsafe { _mm512_loadu_si512(table.0.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_i32(out: &mut [i32; 16], v: __m512i) {
    // SAFETY: the reference covers the 64 bytes that the store writes.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
}

/// A table of 256 bytes in four registers.
#[derive(Clone, Copy)]
struct Bytes256([__m512i; 4]);

impl Bytes256 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(table: &[u8; 256]) -> Self {
        let quarters = table.as_chunks::<LINE>().0;
        // SAFETY: each quarter is 64 bytes, which is what a load reads.
        let quarter = |i: usize| unsafe { _mm512_loadu_si512(quarters[i].as_ptr().cast()) };
        Self([quarter(0), quarter(1), quarter(2), quarter(3)])
    }

    /// `table[byte]` for the 64 bytes of `v`; `upper`: the bytes with the highest bit set.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn look_up(self, v: __m512i, upper: __mmask64) -> __m512i {
        let Self([a, b, c, d]) = self;
        let low = _mm512_permutex2var_epi8(a, v, b);
        let high = _mm512_permutex2var_epi8(c, v, d);
        _mm512_mask_blend_epi8(upper, low, high)
    }
}

/// Lanes of a table of three digits (27 entries, then of no meaning) where digit `i` is 0, and where it is 2.
const fn lanes_of(digits: u32, i: u32, value: u32) -> u32 {
    let (mut mask, mut lane) = (0, 0);
    while lane < 3u32.pow(digits) {
        if lane / 3u32.pow(digits - 1 - i) % 3 == value {
            mask |= 1 << lane;
        }
        lane += 1;
    }
    mask
}

/// Sums of all patterns of `DIGITS` trits with the activations `x`, by adding and subtracting.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pattern_sums<const DIGITS: usize>(x: [i8; DIGITS], minus: [u32; DIGITS], plus: [u32; DIGITS]) -> __m512i {
    let mut sums = _mm512_setzero_si512();
    for i in 0..DIGITS {
        let x = _mm512_set1_epi16(i16::from(x[i]));
        sums = _mm512_mask_sub_epi16(sums, minus[i], sums, x);
        sums = _mm512_mask_add_epi16(sums, plus[i], sums, x);
    }
    sums
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn tables(x: &[i8], tables: &mut [Table]) {
    const MINUS3: [u32; 3] = [lanes_of(3, 0, 0), lanes_of(3, 1, 0), lanes_of(3, 2, 0)];
    const PLUS3: [u32; 3] = [lanes_of(3, 0, 2), lanes_of(3, 1, 2), lanes_of(3, 2, 2)];
    const MINUS2: [u32; 2] = [lanes_of(2, 0, 0), lanes_of(2, 1, 0)];
    const PLUS2: [u32; 2] = [lanes_of(2, 0, 2), lanes_of(2, 1, 2)];
    let blocks = x.as_chunks::<COLS_PER_BLOCK>().0;
    for (x, tables) in blocks.iter().zip(tables.as_chunks_mut::<{ 2 * BYTES_PER_BLOCK }>().0) {
        for (j, tables) in tables.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let first = pattern_sums([x[j], x[4 + j], x[8 + j]], MINUS3, PLUS3);
            let last = pattern_sums([x[12 + j], x[16 + j]], MINUS2, PLUS2);
            for (table, sums) in tables.iter_mut().zip([first, last]) {
                // SAFETY: the reference covers the 64 bytes that the store writes.
                unsafe { _mm512_storeu_si512(table.0.as_mut_ptr().cast(), sums) };
            }
        }
    }
}

/// One token against tiles of 32 rows that lie one behind the other.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn lookup(tiles: &[Line], tables: &[Table], sums: &mut [[i32; TILE_ROWS]]) {
    let lines = tables.len() / 4;
    let tile = |n: usize| &tiles[n * lines..][..lines];
    let (fours, rest) = sums.as_chunks_mut::<4>();
    let first_rest = fours.len() * 4;
    for (i, sums) in fours.iter_mut().enumerate() {
        let n = i * 4;
        *sums = lookup_tiles([tile(n), tile(n + 1), tile(n + 2), tile(n + 3)], tables);
    }
    for (i, sums) in rest.iter_mut().enumerate() {
        [*sums] = lookup_tiles([tile(first_rest + i)], tables);
    }
}

/// `N` tiles share the loads of the tables, and are `N` streams for the memory.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn lookup_tiles<const N: usize>(tiles: [&[Line]; N], tables: &[Table]) -> [[i32; TILE_ROWS]; N] {
    let (first, last) = (Bytes256::load(&SPLIT.first), Bytes256::load(&SPLIT.last));
    let mut low = [_mm512_setzero_si512(); N];
    let mut high = [_mm512_setzero_si512(); N];
    let tables = tables.as_chunks::<4>().0;
    // The length that the compiler can see: no check inside the loop.
    let tiles = tiles.map(|tile| &tile[..tables.len()]);
    let step = 2 * BLOCKS_IN_16_BITS;
    let mut start = 0;
    while start < tables.len() {
        let end = (start + step).min(tables.len());
        let mut sums16 = [_mm512_setzero_si512(); N];
        for line in start..end {
            let table = [0, 1, 2, 3].map(|i: usize| load_table(&tables[line][i]));
            for n in 0..N {
                let weights = &tiles[n][line];
                // A hint: no address is wrong.
                _mm_prefetch::<_MM_HINT_T1>(weights.0.as_ptr().wrapping_add(PREFETCH).cast());
                let v = load(weights);
                let upper = _mm512_movepi8_mask(v);
                // vpermw takes the low five bits of each 16-bit lane: the even bytes as they are, the odd ones shifted.
                let (a, b) = (first.look_up(v, upper), last.look_up(v, upper));
                let even = _mm512_add_epi16(
                    _mm512_permutexvar_epi16(a, table[0]),
                    _mm512_permutexvar_epi16(b, table[1]),
                );
                let odd = _mm512_add_epi16(
                    _mm512_permutexvar_epi16(_mm512_srli_epi16::<8>(a), table[2]),
                    _mm512_permutexvar_epi16(_mm512_srli_epi16::<8>(b), table[3]),
                );
                sums16[n] = _mm512_add_epi16(sums16[n], _mm512_add_epi16(even, odd));
            }
        }
        for n in 0..N {
            let lower = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(sums16[n]));
            let upper = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64::<1>(sums16[n]));
            low[n] = _mm512_add_epi32(low[n], lower);
            high[n] = _mm512_add_epi32(high[n], upper);
        }
        start = end;
    }
    let mut out = [[0; TILE_ROWS]; N];
    for n in 0..N {
        let [rows0, rows16] = out[n].as_chunks_mut::<16>().0 else { continue };
        store_i32(rows0, low[n]);
        store_i32(rows16, high[n]);
    }
    out
}

/// Several tokens against one tile. The trits are decoded in registers, next to the products: writing them down for all
/// tokens would cost more than decoding them again for every eighth one.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
pub(super) fn multiply(
    tile: &[Line],
    xs: &[i8],
    minus_sums: &[i32],
    _digits: &mut [[Line; 2]],
    sums: &mut [[i32; TILE_ROWS]],
) {
    let cols = tile.len() / 2 * COLS_PER_BLOCK;
    let x = |t: usize| &xs[t * cols..][..cols];
    let mut t = 0;
    while t < sums.len() {
        let n = sums.len() - t;
        macro_rules! tokens {
            ($($i:literal)+) => {{
                let xs = [$(x(t + $i)),+];
                let start = [$(minus_sums[t + $i]),+];
                let out = multiply_tokens(tile, xs, start);
                sums[t..t + out.len()].copy_from_slice(&out);
                t += out.len();
            }};
        }
        match n {
            8.. => tokens!(0 1 2 3 4 5 6 7),
            4.. => tokens!(0 1 2 3),
            2.. => tokens!(0 1),
            _ => tokens!(0),
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn multiply_tokens<const T: usize>(tile: &[Line], xs: [&[i8]; T], start: [i32; T]) -> [[i32; TILE_ROWS]; T] {
    let (first, last) = (Bytes256::load(&SPLIT.first_fields), Bytes256::load(&SPLIT.last_fields));
    let field = _mm512_set1_epi8(3);
    // The rows 0-3, 8-11, 16-19, 24-27, and the others.
    let mut sums = [start.map(|sum| _mm512_set1_epi32(sum)); 2];
    let tile = tile.as_chunks::<2>().0;
    let xs = xs.map(|x| &x.as_chunks::<COLS_PER_BLOCK>().0[..tile.len()]);
    for (b, lines) in tile.iter().enumerate() {
        // A hint: no address is wrong.
        let ahead = lines.as_ptr().wrapping_byte_add(PREFETCH);
        _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
        _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_byte_add(LINE).cast());
        let (v0, v1) = (load(&lines[0]), load(&lines[1]));
        // Four bytes of a row beside each other.
        let halves = [_mm512_unpacklo_epi16(v0, v1), _mm512_unpackhi_epi16(v0, v1)];
        for (sums, v) in sums.iter_mut().zip(halves) {
            let upper = _mm512_movepi8_mask(v);
            let (a, b3) = (first.look_up(v, upper), last.look_up(v, upper));
            let planes =
                [a, _mm512_srli_epi16::<2>(a), _mm512_srli_epi16::<4>(a), b3, _mm512_srli_epi16::<2>(b3)];
            for (k, plane) in planes.into_iter().enumerate() {
                let digits = _mm512_and_si512(plane, field);
                for t in 0..T {
                    let four = xs[t][b].as_chunks::<4>().0[k].map(|x| x as u8);
                    sums[t] =
                        _mm512_dpbusd_epi32(sums[t], digits, _mm512_set1_epi32(i32::from_le_bytes(four)));
                }
            }
        }
    }
    let (first, second) =
        (_mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15));
    let mut out = [[0; TILE_ROWS]; T];
    for t in 0..T {
        let [rows0, rows16] = out[t].as_chunks_mut::<16>().0 else { continue };
        store_i32(rows0, _mm512_permutex2var_epi64(sums[0][t], first, sums[1][t]));
        store_i32(rows16, _mm512_permutex2var_epi64(sums[0][t], second, sums[1][t]));
    }
    out
}
