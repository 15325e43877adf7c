//! The kernels of ternary tiles ([`crate::trits`]) twice: by lookup (`pshufb` turns the first three and the last two trits
//! of a byte into the bytes of a partial sum that stands in a table: nothing is multiplied), and by multiply-add
//! (`pmaddubsw`), which pays when several tokens share the decoded trits.
//!
//! A byte of five trits is parted by dividing by nine, which is a multiplication by a reciprocal.

use std::arch::x86_64::*;

use crate::trits::{BYTES_PER_BLOCK, COLS_PER_BLOCK, Line, PLANES, TILE_ROWS, Table};

/// A partial sum is kept as a byte of 64s and a byte of the rest, so that a few rests can be added before they are widened:
/// a rest is at least -32 and less than 32, in the tables of two trits 64 more. A line adds two of each kind, of which the
/// first may have changed their sign: at least 0 and at most 254, an unsigned byte. This is what it adds beside the rests.
const BIAS_OF_LINE: i32 = 2 * 64;
/// Lines whose 64s fit into signed bytes: a line adds two of at most 6 (three activations) and two of at most 4.
const LINES_IN_8_BITS: usize = 6;
/// Lines whose rests fit into 16 bits.
const LINES_IN_16_BITS: usize = 42 * LINES_IN_8_BITS;
const _: () =
    assert!(LINES_IN_8_BITS * 20 <= i8::MAX as usize && LINES_IN_16_BITS * 254 <= u16::MAX as usize);

/// Fours of columns whose products of digits (at most 2) and activations fit into 16 bits.
const FOURS_IN_16_BITS: usize = i16::MAX as usize / (4 * 2 * 127);

/// Bytes ahead of the line in work that are asked for.
const PREFETCH: usize = 2048;

/// For each digit of a pattern, and each of 16 patterns of `DIGITS` trits from the one with the number `first` on, the digit
/// minus 1; 0 for what is no pattern.
const fn trits_of_patterns<const DIGITS: usize>(first: usize) -> [[i16; 16]; DIGITS] {
    let mut trits = [[0; 16]; DIGITS];
    let mut digit = 0;
    while digit < DIGITS {
        let weight = 3usize.pow((DIGITS - 1 - digit) as u32);
        let mut lane = 0;
        while lane < 16 && first + lane < 3usize.pow(DIGITS as u32) {
            trits[digit][lane] = ((first + lane) / weight % 3) as i16 - 1;
            lane += 1;
        }
        digit += 1;
    }
    trits
}

/// The pattern of three zeros. As many patterns behind it stand those whose trits have the other sign of those before it.
const ZEROS: usize = 13;
/// Of the first three digits of a byte, from the zeros on.
static FIRST: [[i16; 16]; 3] = trits_of_patterns(ZEROS);
/// Of its last two.
static LAST: [[i16; 16]; 2] = trits_of_patterns(0);

#[inline]
#[target_feature(enable = "avx2")]
fn load16(x: &[i16; 16]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes that the load reads.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

/// Half of a line: 16 rows.
#[inline]
#[target_feature(enable = "avx2")]
fn load_half(line: &Line, i: usize) -> __m256i {
    // SAFETY: the reference covers the 32 bytes that the load reads.
    unsafe { _mm256_loadu_si256(line.0.as_chunks::<32>().0[i].as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_i32(out: &mut [i32; 8], v: __m256i) {
    // SAFETY: the reference covers the 32 bytes that the store writes.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) }
}

/// Adds eight numbers to `out`.
#[inline]
#[target_feature(enable = "avx2")]
fn add_i32(out: &mut [i32; 8], v: __m256i) {
    // SAFETY: the reference covers the 32 bytes that the load reads.
    let sums = unsafe { _mm256_loadu_si256(out.as_ptr().cast()) };
    store_i32(out, _mm256_add_epi32(sums, v));
}

/// Adds eight numbers of 16 bits to `out`.
#[inline]
#[target_feature(enable = "avx2")]
fn add_to(out: &mut [i32; 8], v: __m128i) {
    add_i32(out, _mm256_cvtepi16_epi32(v));
}

/// Stores the rests of 16 sums plus `bias`, then their 64s, which is how `pshufb` looks them up.
#[inline]
#[target_feature(enable = "avx2")]
fn store_table(table: &mut Table, sums: __m256i, bias: i16) {
    let upper = _mm256_srai_epi16::<6>(_mm256_add_epi16(sums, _mm256_set1_epi16(32)));
    let rest = _mm256_sub_epi16(sums, _mm256_slli_epi16::<6>(upper));
    let rest = _mm256_add_epi16(rest, _mm256_set1_epi16(bias));
    // Packing works in halves of the registers: bring the quarters back into order.
    let v = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(rest, upper));
    // SAFETY: the reference covers the 32 bytes that the store writes.
    unsafe { _mm256_storeu_si256(table.0.as_chunks_mut::<16>().0[0].as_mut_ptr().cast(), v) };
}

#[target_feature(enable = "avx2")]
pub(super) fn tables(x: &[i8], tables: &mut [Table]) {
    let blocks = x.as_chunks::<COLS_PER_BLOCK>().0;
    for (x, tables) in blocks.iter().zip(tables.as_chunks_mut::<{ 2 * BYTES_PER_BLOCK }>().0) {
        for (j, [first, last]) in tables.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            store_table(first, sums_of_patterns(&FIRST, [x[j], x[4 + j], x[8 + j]]), 0);
            store_table(last, sums_of_patterns(&LAST, [x[12 + j], x[16 + j]]), 64);
        }
    }
}

/// The sums of activations under 16 patterns.
#[inline]
#[target_feature(enable = "avx2")]
fn sums_of_patterns<const DIGITS: usize>(trits: &[[i16; 16]; DIGITS], x: [i8; DIGITS]) -> __m256i {
    trits.iter().zip(x).fold(_mm256_setzero_si256(), |sums, (trits, x)| {
        _mm256_add_epi16(sums, _mm256_sign_epi16(_mm256_set1_epi16(x.into()), load16(trits)))
    })
}

/// 16 bytes of a table, twice: the rests, or the 64s.
#[inline]
#[target_feature(enable = "avx2")]
fn load_bytes(table: &Table, i: usize) -> __m256i {
    // SAFETY: eight numbers of 16 bits are the 16 bytes that are read.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.0.as_chunks::<8>().0[i].as_ptr().cast()) })
}

/// Numbers of 16 bits, at most 255, divided by nine.
#[inline]
#[target_feature(enable = "avx2")]
fn ninth(v: __m256i) -> __m256i {
    // 65536 / 9, rounded up.
    _mm256_mulhi_epu16(v, _mm256_set1_epi16(7282))
}

/// Bytes of at most 28, times nine.
#[inline]
#[target_feature(enable = "avx2")]
fn times_nine(v: __m256i) -> __m256i {
    // No byte reaches into its neighbour: 28 * 8 = 224.
    _mm256_add_epi8(v, _mm256_slli_epi16::<3>(v))
}

/// One token against tiles of 32 rows that lie one behind the other.
#[target_feature(enable = "avx2")]
pub(super) fn lookup(tiles: &[Line], tables: &[Table], sums: &mut [[i32; TILE_ROWS]]) {
    let tables = tables.as_chunks::<4>().0;
    for (tile, sums) in tiles.chunks_exact(tables.len()).zip(sums) {
        lookup_tile(tile, tables, sums);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn lookup_tile(tile: &[Line], tables: &[[Table; 4]], out: &mut [i32; TILE_ROWS]) {
    *out = [0; TILE_ROWS];
    let zero = _mm256_setzero_si256();
    for (lines, tables) in tile.chunks(LINES_IN_16_BITS).zip(tables.chunks(LINES_IN_16_BITS)) {
        // The sums of the rests, unsigned, and of the 64s, in 16 bits; rows in the order of packing, even ones and odd ones.
        let (mut rests, mut uppers) = ([zero; 2], [zero; 2]);
        for (lines, tables) in lines.chunks(LINES_IN_8_BITS).zip(tables.chunks(LINES_IN_8_BITS)) {
            let mut upper = zero;
            for (line, tables) in lines.iter().zip(tables) {
                _mm_prefetch::<_MM_HINT_T1>(line.0.as_ptr().wrapping_add(PREFETCH).cast());
                let [rest, of_line] = lookup_line(line, tables);
                upper = _mm256_add_epi8(upper, of_line);
                rests[0] = _mm256_add_epi16(rests[0], _mm256_and_si256(rest, _mm256_set1_epi16(255)));
                rests[1] = _mm256_add_epi16(rests[1], _mm256_srli_epi16::<8>(rest));
            }
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(upper));
            uppers[0] = _mm256_add_epi16(uppers[0], even);
            uppers[1] = _mm256_add_epi16(uppers[1], _mm256_srai_epi16::<8>(upper));
        }
        let bias = _mm256_set1_epi32(-BIAS_OF_LINE * lines.len() as i32);
        // Packing has put the rows 0, 16, 8 and 24 to the quarters' beginnings; even and odd ones come together again.
        let rests = [_mm256_unpacklo_epi16(rests[0], rests[1]), _mm256_unpackhi_epi16(rests[0], rests[1])];
        let uppers =
            [_mm256_unpacklo_epi16(uppers[0], uppers[1]), _mm256_unpackhi_epi16(uppers[0], uppers[1])];
        for (i, (rest, upper)) in rests.into_iter().zip(uppers).enumerate() {
            let rest = [_mm256_castsi256_si128(rest), _mm256_extracti128_si256::<1>(rest)];
            let upper = [_mm256_castsi256_si128(upper), _mm256_extracti128_si256::<1>(upper)];
            for (half, (rest, upper)) in rest.into_iter().zip(upper).enumerate() {
                let upper = _mm256_slli_epi32::<6>(_mm256_cvtepi16_epi32(upper));
                let sums = _mm256_add_epi32(_mm256_cvtepu16_epi32(rest), upper);
                add_i32(&mut out.as_chunks_mut::<8>().0[2 * i + half], _mm256_add_epi32(sums, bias));
            }
        }
    }
}

/// What a line adds to each row: rests and 64s.
#[inline]
#[target_feature(enable = "avx2")]
fn lookup_line(line: &Line, tables: &[Table; 4]) -> [__m256i; 2] {
    let byte = _mm256_set1_epi16(255);
    let (a, b) = (load_half(line, 0), load_half(line, 1));
    let even = [_mm256_and_si256(a, byte), _mm256_and_si256(b, byte)];
    let odd = [_mm256_srli_epi16::<8>(a), _mm256_srli_epi16::<8>(b)];
    let mut sums = [_mm256_setzero_si256(); 2];
    for ([a, b], [first, last]) in [even, odd].into_iter().zip(tables.as_chunks::<2>().0) {
        let three = _mm256_packus_epi16(ninth(a), ninth(b));
        let two = _mm256_sub_epi8(_mm256_packus_epi16(a, b), times_nine(three));
        // Patterns of three trits from the zeros on have a table, and those before them the same sums with the other sign.
        let from_zeros = _mm256_sub_epi8(three, _mm256_set1_epi8(ZEROS as i8));
        let pattern = _mm256_abs_epi8(from_zeros);
        for (i, sums) in sums.iter_mut().enumerate() {
            let of_three = _mm256_shuffle_epi8(load_bytes(first, i), pattern);
            let of_two = _mm256_shuffle_epi8(load_bytes(last, i), two);
            let both = _mm256_add_epi8(_mm256_sign_epi8(of_three, from_zeros), of_two);
            *sums = _mm256_add_epi8(*sums, both);
        }
    }
    sums
}

/// Several tokens against one tile.
#[target_feature(enable = "avx2")]
pub(super) fn multiply(
    tile: &[Line],
    xs: &[i8],
    minus_sums: &[i32],
    digits: &mut [[Line; 2]],
    sums: &mut [[i32; TILE_ROWS]],
) {
    decode(tile, digits);
    let digits = &*digits;
    let cols = digits.len() * 4;
    let x = |t: usize| &xs[t * cols..][..cols];
    let (fours, rest) = sums.as_chunks_mut::<4>();
    let first_rest = fours.len() * 4;
    for (i, sums) in fours.iter_mut().enumerate() {
        let t = i * 4;
        let start = [minus_sums[t], minus_sums[t + 1], minus_sums[t + 2], minus_sums[t + 3]];
        *sums = multiply_tokens(digits, [x(t), x(t + 1), x(t + 2), x(t + 3)], start);
    }
    for (i, sums) in rest.iter_mut().enumerate() {
        let t = first_rest + i;
        [*sums] = multiply_tokens(digits, [x(t)], [minus_sums[t]]);
    }
}

/// Of patterns of two digits, the first and the second.
static UPPER: [u8; 16] = [0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0];
static LOWER: [u8; 16] = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0];

#[inline]
#[target_feature(enable = "avx2")]
fn load_digits(digits: &[u8; 16]) -> __m256i {
    // SAFETY: the reference covers the 16 bytes that the load reads.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(digits.as_ptr().cast()) })
}

/// Decodes a tile into digits: per four columns two lines as those of the tile, each byte of which is now one digit.
#[inline]
#[target_feature(enable = "avx2")]
fn decode(tile: &[Line], digits: &mut [[Line; 2]]) {
    let (upper, lower) = (load_digits(&UPPER), load_digits(&LOWER));
    for (lines, digits) in tile.as_chunks::<2>().0.iter().zip(digits.as_chunks_mut::<PLANES>().0) {
        for (l, line) in lines.iter().enumerate() {
            for half in 0..2 {
                let v = load_half(line, half);
                let even = ninth(_mm256_and_si256(v, _mm256_set1_epi16(255)));
                let odd = ninth(_mm256_srli_epi16::<8>(v));
                let three = _mm256_or_si256(even, _mm256_slli_epi16::<8>(odd));
                let two = _mm256_sub_epi8(v, times_nine(three));
                // The first digit: how many of 9 and 18 the pattern reaches.
                let reaches = |least: i8| _mm256_cmpgt_epi8(three, _mm256_set1_epi8(least - 1));
                let minus = _mm256_add_epi8(reaches(9), reaches(18));
                let first = _mm256_sub_epi8(_mm256_setzero_si256(), minus);
                let three = _mm256_sub_epi8(three, times_nine(first));
                let planes = [
                    first,
                    _mm256_shuffle_epi8(upper, three),
                    _mm256_shuffle_epi8(lower, three),
                    _mm256_shuffle_epi8(upper, two),
                    _mm256_shuffle_epi8(lower, two),
                ];
                for (digits, plane) in digits.iter_mut().zip(planes) {
                    let to = &mut digits[l].0.as_chunks_mut::<32>().0[half];
                    // SAFETY: the reference covers the 32 bytes that the store writes.
                    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), plane) };
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn multiply_tokens<const T: usize>(
    digits: &[[Line; 2]],
    xs: [&[i8]; T],
    start: [i32; T],
) -> [[i32; TILE_ROWS]; T] {
    let mut out = start.map(|start| [start; TILE_ROWS]);
    let xs = xs.map(|x| &x.as_chunks::<4>().0[..digits.len()]);
    for (c, digits) in digits.chunks(FOURS_IN_16_BITS).enumerate() {
        let first = c * FOURS_IN_16_BITS;
        let mut sums = [[_mm256_setzero_si256(); 2]; T];
        for (k, lines) in digits.iter().enumerate() {
            for (pair, line) in lines.iter().enumerate() {
                let w = [load_half(line, 0), load_half(line, 1)];
                for t in 0..T {
                    let x = xs[t][first + k].as_chunks::<2>().0[pair];
                    let x = _mm256_set1_epi16(i16::from_le_bytes(x.map(|x| x as u8)));
                    for half in 0..2 {
                        let products = _mm256_maddubs_epi16(w[half], x);
                        sums[t][half] = _mm256_add_epi16(sums[t][half], products);
                    }
                }
            }
        }
        for t in 0..T {
            let eights = out[t].as_chunks_mut::<8>().0;
            for half in 0..2 {
                add_to(&mut eights[2 * half], _mm256_castsi256_si128(sums[t][half]));
                add_to(&mut eights[2 * half + 1], _mm256_extracti128_si256::<1>(sums[t][half]));
            }
        }
    }
    out
}
