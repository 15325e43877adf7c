//! The kernel of tiles of 4- and 8-bit codes ([`crate::int_tiles`]): `vpdpbusd` on sixteen rows at once.

use std::arch::x86_64::*;

use super::{PREFETCH, load};
use crate::int_tiles::{Halves, IntInput, IntTile, Width};
use crate::trits::{LINE, Line};

/// One tile of 4- or 8-bit codes against all tokens. A single token meets the codes as they are stored; for several the
/// tile is decoded once.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn int_tile(
    tile: &IntTile<'_>,
    input: IntInput<'_>,
    codes: &mut Vec<[Line; 8]>,
    out: &mut [[f32; 16]],
) {
    let blocks = tile.scales.len();
    if let ([out], Width::Four) = (&mut *out, tile.width) {
        return *out = int_token_4(tile, input);
    }
    let codes = match tile.width {
        Width::Eight => tile.lines.as_chunks::<8>().0,
        Width::Four => {
            codes.resize(blocks.max(codes.len()), [Line([0; LINE]); 8]);
            decode_4(tile.lines, &mut codes[..blocks]);
            &codes[..blocks]
        }
    };
    let mut t = 0;
    while t < out.len() {
        macro_rules! tokens {
            ($n:literal) => {{
                let sums = int_tokens::<$n>(tile, codes, input, t);
                out[t..t + $n].copy_from_slice(&sums);
                t += $n;
            }};
        }
        match out.len() - t {
            8.. => tokens!(8),
            4.. => tokens!(4),
            2.. => tokens!(2),
            _ => tokens!(1),
        }
    }
}

/// Halves of bytes into bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn decode_4(lines: &[Line], codes: &mut [[Line; 8]]) {
    let low_half = _mm512_set1_epi8(15);
    for (lines, codes) in lines.as_chunks::<4>().0.iter().zip(codes) {
        for (i, line) in lines.iter().enumerate() {
            let v = load(line);
            let low = _mm512_and_si512(v, low_half);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(v), low_half);
            // SAFETY: each reference covers the 64 bytes that a store writes.
            unsafe {
                _mm512_storeu_si512(codes[i].0.as_mut_ptr().cast(), low);
                _mm512_storeu_si512(codes[4 + i].0.as_mut_ptr().cast(), high);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_halves(halves: &Halves) -> __m512 {
    // SAFETY: the reference covers the 32 bytes that the load reads.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.0.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn four(x: &[i8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_le_bytes(x.map(|x| x as u8)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn to_array(v: __m512) -> [f32; 16] {
    let mut out = [0.0; 16];
    // SAFETY: the array is the 64 bytes that the store writes.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) };
    out
}

/// A block's part of the sums of 16 rows: `dots * (w_scale * x_scale)`, and the offsets times the sum of the activations.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_block(
    sums: __m512,
    dots: __m512i,
    w_scale: __m512,
    offset: Option<__m512>,
    x_scale: f32,
    x_sum: f32,
) -> __m512 {
    let scale = _mm512_mul_ps(w_scale, _mm512_set1_ps(x_scale));
    let sums = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scale, sums);
    match offset {
        Some(offset) => _mm512_fmadd_ps(offset, _mm512_set1_ps(x_sum), sums),
        None => sums,
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn int_token_4(tile: &IntTile<'_>, input: IntInput<'_>) -> [f32; 16] {
    let blocks = tile.scales.len();
    let low_half = _mm512_set1_epi8(15);
    let lines = &tile.lines.as_chunks::<4>().0[..blocks];
    let x = &input.q.as_chunks::<32>().0[..blocks];
    let (x_scale, x_sum) = (&input.scale[..blocks], &input.sum[..blocks]);
    let mut sums = _mm512_setzero_ps();
    for b in 0..blocks {
        let x4 = x[b].as_chunks::<4>().0;
        let mut dots = [_mm512_set1_epi32(-tile.zero * x_sum[b]), _mm512_setzero_si512()];
        for i in 0..4 {
            _mm_prefetch::<_MM_HINT_T1>(lines[b][i].0.as_ptr().wrapping_add(PREFETCH).cast());
            let v = load(&lines[b][i]);
            let low = _mm512_and_si512(v, low_half);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(v), low_half);
            dots[0] = _mm512_dpbusd_epi32(dots[0], low, four(&x4[i]));
            dots[1] = _mm512_dpbusd_epi32(dots[1], high, four(&x4[4 + i]));
        }
        let dots = _mm512_add_epi32(dots[0], dots[1]);
        let offset = tile.offsets.get(b).map(|halves| load_halves(halves));
        sums = add_block(sums, dots, load_halves(&tile.scales[b]), offset, x_scale[b], input.scaled_sum[b]);
    }
    to_array(sums)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn int_tokens<const T: usize>(
    tile: &IntTile<'_>,
    codes: &[[Line; 8]],
    input: IntInput<'_>,
    first: usize,
) -> [[f32; 16]; T] {
    let blocks = codes.len();
    let x: [&[[i8; 32]]; T] =
        std::array::from_fn(|t| &input.q.as_chunks::<32>().0[(first + t) * blocks..][..blocks]);
    let x_scale: [&[f32]; T] = std::array::from_fn(|t| &input.scale[(first + t) * blocks..][..blocks]);
    let x_sum: [&[i32]; T] = std::array::from_fn(|t| &input.sum[(first + t) * blocks..][..blocks]);
    let scaled: [&[f32]; T] = std::array::from_fn(|t| &input.scaled_sum[(first + t) * blocks..][..blocks]);
    let mut sums = [_mm512_setzero_ps(); T];
    for b in 0..blocks {
        let mut dots = [_mm512_setzero_si512(); T];
        for t in 0..T {
            dots[t] = _mm512_set1_epi32(-tile.zero * x_sum[t][b]);
        }
        for (i, line) in codes[b].iter().enumerate() {
            let w = load(line);
            for t in 0..T {
                dots[t] = _mm512_dpbusd_epi32(dots[t], w, four(&x[t][b].as_chunks::<4>().0[i]));
            }
        }
        let w_scale = load_halves(&tile.scales[b]);
        let offset = tile.offsets.get(b).map(|halves| load_halves(halves));
        for t in 0..T {
            sums[t] = add_block(sums[t], dots[t], w_scale, offset, x_scale[t][b], scaled[t][b]);
        }
    }
    let mut out = [[0.0; 16]; T];
    for t in 0..T {
        out[t] = to_array(sums[t]);
    }
    out
}
