//! One-to-many tables ([`crate::trits::many`]): the 32 tokens of a table's entry fill a register.

use std::arch::x86_64::*;

use super::load;
use crate::trits::many::{
    BlockTables, ByteTable, Fours, Planes, TOKENS, TileOut, Tokens16, Tokens32, lines_of_block,
};
use crate::trits::{LINE, Line, PLANES, TILE_ROWS};

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

#[inline]
#[target_feature(enable = "avx512f")]
fn load_fours(fours: &Fours) -> [__m512i; 2] {
    // SAFETY: the reference covers the 128 bytes that the two loads read.
    unsafe { [0, 64].map(|at| _mm512_load_si512(fours.0.as_ptr().byte_add(at).cast())) }
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn interleave(x: &[i8], fours: &mut [Fours]) {
    let cols = fours.len() * 4;
    let (chunks, rest) = fours.as_chunks_mut::<16>();
    let whole = chunks.len() * 64;
    for (half, xs) in x.chunks(16 * cols).enumerate() {
        let n = xs.len() / cols;
        for (i, fours) in chunks.iter_mut().enumerate() {
            let rows = std::array::from_fn(|t| {
                if t >= n {
                    return _mm512_setzero_si512();
                }
                let x = &xs[t * cols + i * 64..][..64];
                // SAFETY: the slice covers the 64 bytes that the load reads.
                unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
            });
            for (fours, v) in fours.iter_mut().zip(transpose(rows)) {
                let to = &mut fours.0[half * 16..half * 16 + 16];
                // SAFETY: the slice covers the 64 bytes that the store writes.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) };
            }
        }
        for (t, x) in xs.chunks_exact(cols).enumerate() {
            for (fours, &x) in rest.iter_mut().zip(x[whole..].as_chunks::<4>().0) {
                fours.0[half * 16 + t] = x;
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn tables(planes: &Planes, tables: &mut BlockTables, reach: &mut Tokens32) {
    let planes = planes.each_ref().map(|fours| load_fours(fours));
    let ones = _mm512_set1_epi8(1);
    for (i, reach) in reach.0.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let mut sum = load32(reach);
        for plane in planes {
            sum = _mm512_dpbusd_epi32(sum, _mm512_abs_epi8(plane[i]), ones);
        }
        // SAFETY: the reference covers the 64 bytes that the store writes.
        unsafe { _mm512_storeu_si512(reach.as_mut_ptr().cast(), sum) };
    }
    byte_table::<24>(planes, &mut tables[0]);
    byte_table::<16>(planes, &mut tables[1]);
    byte_table::<8>(planes, &mut tables[2]);
    byte_table::<0>(planes, &mut tables[3]);
}

/// The table of the activations that `UP` bits bring to the top of their 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn byte_table<const UP: u32>(planes: [[__m512i; 2]; PLANES], table: &mut ByteTable) {
    let x = planes.map(|fours| {
        let [a, b] =
            fours.map(|v| _mm512_cvtepi32_epi16(_mm512_srai_epi32::<24>(_mm512_slli_epi32::<UP>(v))));
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
        // A row's four bytes beside each other, so that one load brings them.
        let (front, back) = (load(front), load(back));
        let mut bytes = [Line([0; LINE]); 2];
        for (line, v) in
            bytes.iter_mut().zip([_mm512_unpacklo_epi16(front, back), _mm512_unpackhi_epi16(front, back)])
        {
            // SAFETY: the reference covers the 64 bytes that the store writes.
            unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), v) };
        }
        for (sums, line) in sums.as_chunks_mut::<8>().0.iter_mut().zip(FOURS_OF_EIGHT) {
            let (first, second) = sums.split_at_mut(4);
            for (half, sums) in [first, second].into_iter().enumerate() {
                for (sums, &four) in sums.iter_mut().zip(&bytes[half].0.as_chunks::<4>().0[line..line + 4]) {
                    let four = u32::from_le_bytes(four);
                    let entry = |table: &ByteTable, byte: u32| load16(&table[usize::from(byte as u8)]);
                    let mut v = _mm512_add_epi16(load16(sums), entry(t0, four));
                    v = _mm512_add_epi16(v, entry(t1, four >> 8));
                    v = _mm512_add_epi16(v, entry(t2, four >> 16));
                    v = _mm512_add_epi16(v, entry(t3, four >> 24));
                    store16(sums, v);
                }
            }
        }
    }
}

/// Where the unpacked bytes of rows `8 i ..` begin.
const FOURS_OF_EIGHT: [usize; 4] = [0, 4, 8, 12];

/// Tokens `16 half ..` of a row's sums.
#[inline]
#[target_feature(enable = "avx512f")]
fn half_of(short: &Tokens16, long: Option<&Tokens32>, half: usize) -> __m512i {
    let short = &short.0.as_chunks::<16>().0[half];
    // SAFETY: the reference covers the 32 bytes that the load reads.
    let short = _mm512_cvtepi16_epi32(unsafe { _mm256_loadu_si256(short.as_ptr().cast()) });
    match long {
        Some(long) => _mm512_add_epi32(short, load32(&long.0.as_chunks().0[half])),
        None => short,
    }
}

#[target_feature(enable = "avx512f")]
pub(super) fn widen(short: &mut [Tokens16], long: &mut [Tokens32], first: bool) {
    for (short, long) in short.iter_mut().zip(long) {
        let sums = [0, 1].map(|half| half_of(short, (!first).then_some(long), half));
        for (long, sums) in long.0.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
            // SAFETY: the reference covers the 64 bytes that the store writes.
            unsafe { _mm512_storeu_si512(long.as_mut_ptr().cast(), sums) };
        }
        store16(short, _mm512_setzero_si512());
    }
}

#[target_feature(enable = "avx512f")]
pub(super) fn finish(
    short: &[Tokens16; TILE_ROWS],
    long: Option<&[Tokens32; TILE_ROWS]>,
    x_scale: &[f32; TOKENS],
    scale: &[f32; TILE_ROWS],
    out: &mut TileOut,
) {
    for (i, scale) in scale.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: the reference covers the 64 bytes that the load reads.
        let scale = unsafe { _mm512_loadu_ps(scale.as_ptr()) };
        for half in [0, 1] {
            let mut rows = [_mm512_setzero_si512(); 16];
            for (r, row) in rows.iter_mut().enumerate() {
                let r = 16 * i + r;
                *row = half_of(&short[r], long.map(|long| &long[r]), half);
            }
            let tokens = out.as_chunks_mut::<16>().0[half].iter_mut().zip(&x_scale.as_chunks::<16>().0[half]);
            for (sums, (out, x_scale)) in transpose(rows).into_iter().zip(tokens) {
                let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(*x_scale));
                let out = &mut out.as_chunks_mut::<16>().0[i];
                // SAFETY: the reference covers the 64 bytes that the store writes.
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
