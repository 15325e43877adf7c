//! One-to-many tables ([`crate::trits::many`]): the 32 tokens of a table's entry fill a register.

use std::arch::x86_64::*;

use crate::trits::many::{
    BlockTables, ByteTable, Planes, TOKENS, TileOut, Tokens16, Tokens32, lines_of_block,
};
use crate::trits::{Line, TILE_ROWS};

/// Tiles ahead whose lines are asked for: the blocks of neighbouring tiles are too far apart for the processor to foresee.
const TILES_AHEAD: usize = 8;

#[inline]
#[target_feature(enable = "avx512f")]
fn load16(sums: &Tokens16) -> __m512i {
    // SAFETY: the reference covers the 64 bytes that the load reads, on a boundary of 64.
    unsafe { _mm512_load_si512(sums.0.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store16(sums: &mut Tokens16, v: __m512i) {
    // SAFETY: the reference covers the 64 bytes that the store writes, on a boundary of 64.
    unsafe { _mm512_store_si512(sums.0.as_mut_ptr().cast(), v) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load32(values: &[i32; 16]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes that the load reads.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// `v - x`, `v`, `v + x`: a digit of 0, 1, 2.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn digit(v: __m512i, x: __m512i) -> [__m512i; 3] {
    [_mm512_sub_epi16(v, x), v, _mm512_add_epi16(v, x)]
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn tables(planes: &Planes, tables: &mut BlockTables) {
    byte_table::<24>(planes, &mut tables[0]);
    byte_table::<16>(planes, &mut tables[1]);
    byte_table::<8>(planes, &mut tables[2]);
    byte_table::<0>(planes, &mut tables[3]);
}

/// The table of the activations that `UP` bits bring to the top of their 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn byte_table<const UP: u32>(planes: &Planes, table: &mut ByteTable) {
    let x = planes.each_ref().map(|plane| {
        let [a, b] = [0, 16].map(|at| {
            let four = load32(&std::array::from_fn(|i| plane[at + i] as i32));
            _mm512_cvtepi32_epi16(_mm512_srai_epi32::<24>(_mm512_slli_epi32::<UP>(four)))
        });
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b)
    });
    let zero = _mm512_setzero_si512();
    let [a, b, c] = digit(zero, x[3]).map(|v| digit(v, x[4]));
    let mut entries = table.as_chunks_mut::<9>().0.iter_mut();
    for v in digit(zero, x[0]) {
        for v in digit(v, x[1]) {
            for (v, entries) in digit(v, x[2]).into_iter().zip(&mut entries) {
                let [ea, eb, ec] = entries.as_chunks_mut::<3>().0 else { continue };
                for (entries, last) in [(ea, a), (eb, b), (ec, c)] {
                    for (entry, last) in entries.iter_mut().zip(last) {
                        store16(entry, _mm512_add_epi16(v, last));
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn add(
    tiles: &[Line],
    lines_per_tile: usize,
    block: usize,
    tables: &BlockTables,
    sums: &mut [Tokens16],
) {
    let [t0, t1, t2, t3] = tables;
    for (tile, sums) in tiles.chunks_exact(lines_per_tile).zip(sums.as_chunks_mut::<TILE_ROWS>().0) {
        let [front, back] = lines_of_block(tile, block);
        for line in [front, back] {
            // A hint: no address is wrong.
            let ahead = line.0.as_ptr().wrapping_add(TILES_AHEAD * lines_per_tile * size_of::<Line>());
            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
        }
        let rows = front.0.as_chunks::<2>().0.iter().zip(back.0.as_chunks::<2>().0);
        for (sums, (&[b0, b1], &[b2, b3])) in sums.iter_mut().zip(rows) {
            let mut v = _mm512_add_epi16(load16(sums), load16(&t0[usize::from(b0)]));
            v = _mm512_add_epi16(v, load16(&t1[usize::from(b1)]));
            v = _mm512_add_epi16(v, load16(&t2[usize::from(b2)]));
            v = _mm512_add_epi16(v, load16(&t3[usize::from(b3)]));
            store16(sums, v);
        }
    }
}

#[target_feature(enable = "avx512f")]
pub(super) fn widen(short: &mut [Tokens16], long: &mut [Tokens32]) {
    for (short, long) in short.iter_mut().zip(long) {
        let v = load16(short);
        store16(short, _mm512_setzero_si512());
        let halves = [_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v)];
        for (long, half) in long.0.as_chunks_mut::<16>().0.iter_mut().zip(halves) {
            let sum = _mm512_add_epi32(load32(long), _mm512_cvtepi16_epi32(half));
            // SAFETY: the reference covers the 64 bytes that the store writes.
            unsafe { _mm512_storeu_si512(long.as_mut_ptr().cast(), sum) };
        }
    }
}

#[target_feature(enable = "avx512f")]
pub(super) fn finish(
    sums: &[Tokens32; TILE_ROWS],
    x_scale: &[f32; TOKENS],
    scale: &[f32; TILE_ROWS],
    out: &mut TileOut,
) {
    for (row, scale) in [0, 16].into_iter().zip(scale.as_chunks::<16>().0) {
        // SAFETY: the reference covers the 64 bytes that the load reads.
        let scale = unsafe { _mm512_loadu_ps(scale.as_ptr()) };
        for token in [0, 16] {
            let rows = std::array::from_fn(|r| load32(&std::array::from_fn(|t| sums[row + r].0[token + t])));
            for (i, sums) in transpose(rows).into_iter().enumerate() {
                let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(x_scale[token + i]));
                let out = &mut out[token + i][row..row + 16];
                // SAFETY: the slice covers the 64 bytes that the store writes.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(scaled, scale)) };
            }
        }
    }
}

/// Rows become columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(v: [__m512i; 16]) -> [__m512i; 16] {
    // In each 128-bit lane 4 x 4, then the lanes.
    let mut pairs = v;
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    let mut fours = pairs;
    for i in (0..16).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    // fours[4 g + i], lane l: column 4 l + i of rows 4 g .. 4 g + 4.
    let mut out = fours;
    for i in 0..4 {
        let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(fours[i], fours[4 + i]);
        let odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(fours[i], fours[4 + i]);
        let even_up = _mm512_shuffle_i32x4::<0b10_00_10_00>(fours[8 + i], fours[12 + i]);
        let odd_up = _mm512_shuffle_i32x4::<0b11_01_11_01>(fours[8 + i], fours[12 + i]);
        out[i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even, even_up);
        out[4 + i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd, odd_up);
        out[8 + i] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even, even_up);
        out[12 + i] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd, odd_up);
    }
    out
}
