//! One-to-many tables ([`crate::trits::many`]): the 32 tokens of a table's entry fill two registers.

use std::arch::x86_64::*;

use crate::trits::many::{
    BlockTables, ByteTable, Fours, Planes, TOKENS, TileOut, Tokens16, Tokens32, lines_of_block,
};
use crate::trits::{LINES_PER_BLOCK, Line, PLANES, TILE_ROWS};

/// Tiles ahead whose lines are asked for: the blocks of neighbouring tiles are too far apart for the processor to foresee.
const TILES_AHEAD: usize = 8;

#[inline]
#[target_feature(enable = "avx2")]
fn load_bytes(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes that the load reads.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// A number for each of the 32 tokens, 16 bits.
type Sums = [__m256i; 2];

#[inline]
#[target_feature(enable = "avx2")]
fn load16(sums: &Tokens16) -> Sums {
    // SAFETY: the reference covers the 64 bytes that the two loads read, on a boundary of 64.
    unsafe { [0, 32].map(|at| _mm256_load_si256(sums.0.as_ptr().byte_add(at).cast())) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store16(sums: &mut Tokens16, v: Sums) {
    for (to, v) in sums.0.as_chunks_mut::<16>().0.iter_mut().zip(v) {
        // SAFETY: the reference covers the 32 bytes that the store writes.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) };
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add16(a: Sums, b: Sums) -> Sums {
    [_mm256_add_epi16(a[0], b[0]), _mm256_add_epi16(a[1], b[1])]
}

#[inline]
#[target_feature(enable = "avx2")]
fn load32(values: &[i32; 8]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes that the load reads.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store32(values: &mut [i32; 8], v: __m256i) {
    // SAFETY: the reference covers the 32 bytes that the store writes.
    unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), v) }
}

/// `v - x`, `v`, `v + x`: a digit of 0, 1, 2.
#[inline]
#[target_feature(enable = "avx2")]
fn digit(v: __m256i, x: __m256i) -> [__m256i; 3] {
    [_mm256_sub_epi16(v, x), v, _mm256_add_epi16(v, x)]
}

/// Four activations of eight tokens a register.
#[inline]
#[target_feature(enable = "avx2")]
fn load_fours(fours: &Fours) -> [__m256i; 4] {
    // SAFETY: the reference covers the 128 bytes that the four loads read, on a boundary of 64.
    unsafe { [0, 32, 64, 96].map(|at| _mm256_load_si256(fours.0.as_ptr().byte_add(at).cast())) }
}

#[target_feature(enable = "avx2")]
pub(super) fn interleave(x: &[i8], fours: &mut [Fours]) {
    let cols = fours.len() * 4;
    let (chunks, rest) = fours.as_chunks_mut::<8>();
    let whole = chunks.len() * 32;
    for (eight, xs) in x.chunks(8 * cols).enumerate() {
        let n = xs.len() / cols;
        for (i, fours) in chunks.iter_mut().enumerate() {
            let rows = std::array::from_fn(|t| {
                if t >= n {
                    return _mm256_setzero_si256();
                }
                let x = &xs[t * cols + i * 32..][..32];
                // SAFETY: the slice covers the 32 bytes that the load reads.
                unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
            });
            for (fours, v) in fours.iter_mut().zip(transpose(rows)) {
                let to = &mut fours.0[eight * 8..eight * 8 + 8];
                // SAFETY: the slice covers the 32 bytes that the store writes.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) };
            }
        }
        for (t, x) in xs.chunks_exact(cols).enumerate() {
            for (fours, &x) in rest.iter_mut().zip(x[whole..].as_chunks::<4>().0) {
                fours.0[eight * 8 + t] = x;
            }
        }
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn tables(planes: &Planes, tables: &mut BlockTables, reach: &mut Tokens32) {
    let planes = planes.each_ref().map(|fours| load_fours(fours));
    let (bytes, pairs) = (_mm256_set1_epi8(1), _mm256_set1_epi16(1));
    for (i, reach) in reach.0.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        // Pairs of 2 * 5 * 128 stay far inside 16 bits.
        let mut sums = _mm256_setzero_si256();
        for plane in planes {
            sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(_mm256_abs_epi8(plane[i]), bytes));
        }
        store32(reach, _mm256_add_epi32(load32(reach), _mm256_madd_epi16(sums, pairs)));
    }
    byte_table::<24>(planes, &mut tables[0]);
    byte_table::<16>(planes, &mut tables[1]);
    byte_table::<8>(planes, &mut tables[2]);
    byte_table::<0>(planes, &mut tables[3]);
}

/// The table of the activations that `UP` bits bring to the top of their 32.
#[inline]
#[target_feature(enable = "avx2")]
fn byte_table<const UP: i32>(planes: [[__m256i; 4]; PLANES], table: &mut ByteTable) {
    for half in 0..2 {
        let x = planes.map(|fours| {
            let eight = |v: __m256i| _mm256_srai_epi32::<24>(_mm256_slli_epi32::<UP>(v));
            let sixteen = _mm256_packs_epi32(eight(fours[2 * half]), eight(fours[2 * half + 1]));
            // Packing works in halves of the registers: bring the quarters back into order.
            _mm256_permute4x64_epi64::<0b11_01_10_00>(sixteen)
        });
        let zero = _mm256_setzero_si256();
        let [a, b, c] = digit(zero, x[3]).map(|v| digit(v, x[4]));
        let mut entries = table.as_chunks_mut::<9>().0.iter_mut();
        for v in digit(zero, x[0]) {
            for v in digit(v, x[1]) {
                for (v, entries) in digit(v, x[2]).into_iter().zip(&mut entries) {
                    for (entry, last) in entries.iter_mut().zip([a, b, c].as_flattened()) {
                        let to = &mut entry.0.as_chunks_mut::<16>().0[half];
                        // SAFETY: the reference covers the 32 bytes that the store writes.
                        unsafe {
                            _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm256_add_epi16(v, *last));
                        }
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn add(
    tiles: &[Line],
    lines_per_tile: usize,
    block: usize,
    tables: &BlockTables,
    sums: &mut [Tokens16],
) {
    for (tile, sums) in tiles.chunks_exact(lines_per_tile).zip(sums.as_chunks_mut::<TILE_ROWS>().0) {
        let lines = lines_of_block(tile, block);
        for line in lines {
            // A hint: no address is wrong.
            let ahead = line.0.as_ptr().wrapping_add(TILES_AHEAD * lines_per_tile * size_of::<Line>());
            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
        }
        for (sums, mut places) in sums.iter_mut().zip(places(lines)) {
            let mut v = load16(sums);
            for table in tables {
                v = add16(v, entry(table, places as u16));
                places >>= 16;
            }
            store16(sums, v);
        }
    }
}

/// For each row, where the entries of its four bytes stand in their tables: four numbers of 16 bits, 64 times the bytes.
/// What is ready in a register costs the loop over rows less than bytes that it would have to scale.
#[inline]
#[target_feature(enable = "avx2")]
fn places(lines: &[Line; LINES_PER_BLOCK]) -> [u64; TILE_ROWS] {
    let mut places = [0; TILE_ROWS];
    let zero = _mm256_setzero_si256();
    let [front, back] = [lines[0].0.as_chunks::<32>().0, lines[1].0.as_chunks::<32>().0];
    for ((places, front), back) in places.as_chunks_mut::<16>().0.iter_mut().zip(front).zip(back) {
        let (front, back) = (load_bytes(front), load_bytes(back));
        // A row's four bytes beside each other: rows 0 to 3 and 8 to 11, then 4 to 7 and 12 to 15.
        let fours = [_mm256_unpacklo_epi16(front, back), _mm256_unpackhi_epi16(front, back)];
        let scaled = fours.map(|v| {
            let pairs = [_mm256_unpacklo_epi8(v, zero), _mm256_unpackhi_epi8(v, zero)];
            pairs.map(|v| _mm256_slli_epi16::<6>(v))
        });
        let [[a, b], [c, d]] = scaled;
        let rows = [
            _mm256_permute2x128_si256::<0x20>(a, b),
            _mm256_permute2x128_si256::<0x20>(c, d),
            _mm256_permute2x128_si256::<0x31>(a, b),
            _mm256_permute2x128_si256::<0x31>(c, d),
        ];
        for (to, v) in places.as_chunks_mut::<4>().0.iter_mut().zip(rows) {
            // SAFETY: the reference covers the 32 bytes that the store writes.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) };
        }
    }
    places
}

/// The entry that begins `place` bytes behind the table's beginning.
#[inline]
#[target_feature(enable = "avx2")]
fn entry(table: &ByteTable, place: u16) -> Sums {
    const _: () = assert!(size_of::<ByteTable>() == 256 * 64 && size_of::<Tokens16>() == 64);
    debug_assert!(place.is_multiple_of(64) && usize::from(place) < size_of::<ByteTable>());
    // SAFETY: `places` makes multiples of 64 of at most 255 * 64, and the table has 256 entries of 64 bytes.
    load16(unsafe { &*table.as_ptr().byte_add(usize::from(place)) })
}

/// Tokens `8 eight ..` of a row's sums.
#[inline]
#[target_feature(enable = "avx2")]
fn eight_of(short: &Tokens16, long: Option<&Tokens32>, eight: usize) -> __m256i {
    let short = &short.0.as_chunks::<8>().0[eight];
    // SAFETY: the reference covers the 16 bytes that the load reads.
    let short = _mm256_cvtepi16_epi32(unsafe { _mm_loadu_si128(short.as_ptr().cast()) });
    match long {
        Some(long) => _mm256_add_epi32(short, load32(&long.0.as_chunks().0[eight])),
        None => short,
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn widen(short: &mut [Tokens16], long: &mut [Tokens32], first: bool) {
    for (short, long) in short.iter_mut().zip(long) {
        for eight in 0..4 {
            let sums = eight_of(short, (!first).then_some(&*long), eight);
            store32(&mut long.0.as_chunks_mut::<8>().0[eight], sums);
        }
        store16(short, [_mm256_setzero_si256(); 2]);
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn finish(
    short: &[Tokens16; TILE_ROWS],
    long: Option<&[Tokens32; TILE_ROWS]>,
    x_scale: &[f32; TOKENS],
    scale: &[f32; TILE_ROWS],
    out: &mut TileOut,
) {
    for (i, scale) in scale.as_chunks::<8>().0.iter().enumerate() {
        // SAFETY: the reference covers the 32 bytes that the load reads.
        let scale = unsafe { _mm256_loadu_ps(scale.as_ptr()) };
        for (eight, (out, x_scale)) in
            out.as_chunks_mut::<8>().0.iter_mut().zip(x_scale.as_chunks::<8>().0).enumerate()
        {
            let rows = std::array::from_fn(|r| {
                let r = 8 * i + r;
                eight_of(&short[r], long.map(|long| &long[r]), eight)
            });
            for (sums, (out, x_scale)) in transpose(rows).into_iter().zip(out.iter_mut().zip(x_scale)) {
                let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(*x_scale));
                let out = &mut out.as_chunks_mut::<8>().0[i];
                // SAFETY: the reference covers the 32 bytes that the store writes.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_mul_ps(scaled, scale)) };
            }
        }
    }
}

/// Rows become columns.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(v: [__m256i; 8]) -> [__m256i; 8] {
    // In each 128-bit lane 4 x 4, then the lanes.
    let mut fours = v;
    for i in [0, 4] {
        let low = [_mm256_unpacklo_epi32(v[i], v[i + 1]), _mm256_unpacklo_epi32(v[i + 2], v[i + 3])];
        let high = [_mm256_unpackhi_epi32(v[i], v[i + 1]), _mm256_unpackhi_epi32(v[i + 2], v[i + 3])];
        fours[i] = _mm256_unpacklo_epi64(low[0], low[1]);
        fours[i + 1] = _mm256_unpackhi_epi64(low[0], low[1]);
        fours[i + 2] = _mm256_unpacklo_epi64(high[0], high[1]);
        fours[i + 3] = _mm256_unpackhi_epi64(high[0], high[1]);
    }
    // fours[4 g + i], lane l: column 4 l + i of rows 4 g .. 4 g + 4.
    let mut out = fours;
    for i in 0..4 {
        out[i] = _mm256_permute2x128_si256::<0x20>(fours[i], fours[4 + i]);
        out[4 + i] = _mm256_permute2x128_si256::<0x31>(fours[i], fours[4 + i]);
    }
    out
}
