//! Our own types for rows of any width, with a scale per 32 weights: TG1, one plane of ternary digits, TG2, two
//! planes whose scales stand in the ratio 3 to 1, nine levels in all, and BG1, signs.
//!
//! A plane of 64 weights is 13 bytes, digits plus 1 in base 3 as in TQ1_0: digit `n` of byte `m` is weight `13 n + m`
//! (the 65th is 0). A scale is 8 bits without a sign, five of exponent and three of fraction:
//! `(8 + f) 2^(e - 27)`, from 2^-24 to 240; code 0 is the scale 0. Ternary codes forgive a coarse scale: within 1/16
//! of the best one a block of 32 loses less than a hundredth of what rounding to three levels costs it, and whoever
//! fits codes to scales ([`encode`]) gets that back too.

use super::blocks::{Block, Groups, part};
use crate::row::RowType;

/// Weights of a plane's block.
const WEIGHTS: usize = 64;
/// Bytes of a plane's block.
const PLANE: usize = 13;
/// Weights that share a scale.
pub const GROUP: usize = 32;

/// `digits: [u8; 13], scales: [u8; 2]`.
pub(super) struct TG1;

impl Block<15, 64, 2> for TG1 {
    const ROW_TYPE: RowType = RowType::TG1;

    #[inline(always)]
    fn unpack(block: &[u8; 15], q: &mut [i8; WEIGHTS]) -> Groups<2> {
        *q = digits(part::<0, PLANE, 15>(block));
        Groups::scaled(part::<13, 2, 15>(block).map(scale_value))
    }
}

/// `coarse: [u8; 13], fine: [u8; 13], scales: [u8; 2]`: 3 coarse + fine.
pub(super) struct TG2;

impl Block<28, 64, 2> for TG2 {
    const ROW_TYPE: RowType = RowType::TG2;

    #[inline(always)]
    fn unpack(block: &[u8; 28], q: &mut [i8; WEIGHTS]) -> Groups<2> {
        *q = digits(part::<0, PLANE, 28>(block));
        let fine = digits(part::<13, PLANE, 28>(block));
        for (q, fine) in q.iter_mut().zip(fine) {
            *q = 3 * *q + fine;
        }
        Groups::scaled(part::<26, 2, 28>(block).map(scale_value))
    }
}

/// `signs: [u8; 8], scales: [u8; 2]`: bit `i % 8` of byte `i / 8` is set where weight `i` is +1.
pub(super) struct BG1;

impl Block<10, 64, 2> for BG1 {
    const ROW_TYPE: RowType = RowType::BG1;

    #[inline(always)]
    fn unpack(block: &[u8; 10], q: &mut [i8; WEIGHTS]) -> Groups<2> {
        for (q, signs) in q.as_chunks_mut::<8>().0.iter_mut().zip(part::<0, 8, 10>(block)) {
            for (i, q) in q.iter_mut().enumerate() {
                *q = 2 * (signs >> i & 1) as i8 - 1;
            }
        }
        Groups::scaled(part::<8, 2, 10>(block).map(scale_value))
    }
}

/// The digits of a plane: the top digit of a byte is that of its product with 3^n in u8.
#[inline(always)]
fn digits(bytes: &[u8; PLANE]) -> [i8; WEIGHTS] {
    let (mut bytes, mut all) = (*bytes, [0i8; 5 * PLANE]);
    for q in all.as_chunks_mut::<PLANE>().0 {
        for (q, byte) in q.iter_mut().zip(&mut bytes) {
            *q = ((u16::from(*byte) * 3) >> 8) as i8 - 1;
            *byte = byte.wrapping_mul(3);
        }
    }
    let mut q = [0; WEIGHTS];
    q.copy_from_slice(&all[..WEIGHTS]);
    q
}

/// The scale that a code stands for.
#[inline(always)]
pub fn scale_value(code: u8) -> f32 {
    if code == 0 {
        return 0.0;
    }
    // The same exponent and fraction in f32: 2^(e - 24) has a biased exponent of e + 103.
    f32::from_bits(((u32::from(code >> 3) + 103) << 23) | u32::from(code & 7) << 20)
}

/// The code of the scale nearest to `scale`; 0 for what is too small, negative or no number.
pub fn scale_code(scale: f32) -> u8 {
    if scale.is_nan() || scale < scale_value(1) / 2.0 {
        return 0;
    }
    // Half of the last bit that stays is added, ties upwards.
    let bits = (scale.to_bits() + (1 << 19)) >> 20;
    bits.saturating_sub(103 << 3).clamp(1, 255) as u8
}

/// The largest magnitude of a code of this type: 1 of TG1 and BG1, 4 of TG2; `None` of other types.
pub fn max_code(row_type: RowType) -> Option<i8> {
    match row_type {
        RowType::TG1 | RowType::BG1 => Some(1),
        RowType::TG2 => Some(4),
        _ => None,
    }
}

/// Writes a row of codes `q`, beyond the largest magnitude cut off, with the code of a scale for each 32 of them, to
/// `out` ([`RowType::row_bytes`] of it; what does not fit is left out).
pub fn encode(row_type: RowType, q: &[i8], scales: &[u8], out: &mut [u8]) {
    let max = max_code(row_type).unwrap_or(0);
    let blocks = out.chunks_mut(row_type.block().1);
    for ((q, scales), out) in q.chunks(WEIGHTS).zip(scales.chunks(WEIGHTS / GROUP)).zip(blocks) {
        let (planes, codes) = out.split_at_mut(out.len() - WEIGHTS / GROUP);
        codes.fill(0);
        codes[..scales.len()].copy_from_slice(scales);
        let code = |i: usize| q.get(i).map_or(0, |q| (*q).clamp(-max, max));
        // 3 t + u with both in -1..=1: t is the nearest third.
        let coarse = |i: usize| (code(i) + 4) / 3 - 1;
        match row_type {
            RowType::TG2 => {
                let (first, second) = planes.split_at_mut(PLANE);
                pack(first, coarse);
                pack(second, |i| code(i) - 3 * coarse(i));
            }
            RowType::BG1 => {
                for (b, byte) in planes.iter_mut().enumerate() {
                    *byte = (0..8).fold(0, |byte, i| byte | u8::from(code(8 * b + i) > 0) << i);
                }
            }
            _ => pack(planes, code),
        }
    }
}

/// Five digits a byte, the first most significant, `byte = ceil(number * 256 / 243)`.
fn pack(out: &mut [u8], digit: impl Fn(usize) -> i8) {
    for (m, byte) in out.iter_mut().enumerate() {
        let number = (0..5).fold(0, |number, n| number * 3 + (digit(m + n * PLANE) + 1) as u16);
        *byte = (number * 256).div_ceil(243) as u8;
    }
}

/// Rounds each 32 weights to the scale and the codes of least square error that a search finds: of TG1 all thresholds
/// are tried, of TG2 scales from the one that the largest weight needs downwards.
pub(super) fn quantize(row_type: RowType, row: &[f32], out: &mut [u8]) {
    let mut q = vec![0; row.len()];
    let mut scales = Vec::with_capacity(row.len().div_ceil(GROUP));
    for (row, q) in row.chunks(GROUP).zip(q.chunks_mut(GROUP)) {
        let code = best_scale(row_type, row, &[1.0; GROUP][..row.len()]);
        round_group(row_type, row, code, q);
        scales.push(code);
    }
    encode(row_type, &q, &scales, out);
}

/// The code of the scale with the least square error, each weight's counted `importance` times.
pub fn best_scale(row_type: RowType, row: &[f32], importance: &[f32]) -> u8 {
    let max = row.iter().fold(0.0f32, |max, w| max.max(w.abs()));
    let levels = f32::from(max_code(row_type).unwrap_or(1));
    if !(max > 0.0 && max.is_finite()) {
        return 0;
    }
    let error = |code: u8| -> f32 {
        let scale = scale_value(code);
        let each = row.iter().zip(importance).map(|(&w, &importance)| {
            let error = w - round_to(row_type, w, scale, levels) * scale;
            error * error * importance
        });
        each.sum()
    };
    // Below a third of what the largest weight needs every weight is at the last level.
    let top = scale_code(max / levels);
    // Nor is the mean magnitude, the best scale of signs, far below.
    let codes = top.saturating_sub(28).max(1)..=top.saturating_add(1).max(1);
    codes.map(|code| (error(code), code)).min_by(|a, b| a.0.total_cmp(&b.0)).map_or(0, |(_, code)| code)
}

/// The codes of a group at a scale.
pub fn round_group(row_type: RowType, row: &[f32], scale: u8, q: &mut [i8]) {
    let (scale, levels) = (scale_value(scale), f32::from(max_code(row_type).unwrap_or(1)));
    for (q, &w) in q.iter_mut().zip(row) {
        *q = round_to(row_type, w, scale, levels) as i8;
    }
}

/// The level nearest to `w / scale`; where there is no scale, one as good as another.
fn round_to(row_type: RowType, w: f32, scale: f32, levels: f32) -> f32 {
    if row_type == RowType::BG1 {
        return 1f32.copysign(w);
    }
    if scale > 0.0 { (w / scale).round().clamp(-levels, levels) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{UnpackedRow, dequantize_row, quantize_row, unpack_row};

    #[test]
    fn scales_are_numbers_with_three_bits_of_fraction() {
        assert_eq!(scale_value(0), 0.0);
        assert_eq!(scale_value(255), 240.0);
        assert_eq!(scale_value(24 << 3), 1.0);
        for code in 0..=255u8 {
            let value = scale_value(code);
            assert_eq!(scale_code(value), code);
            if code > 0 {
                assert_eq!(value, (8.0 + f32::from(code & 7)) * 2f32.powi(i32::from(code >> 3) - 27));
                assert_eq!(scale_code(value * 1.02), code, "{code}");
                assert_eq!(scale_code(value * 0.98), code, "{code}");
            }
        }
        assert_eq!([f32::NAN, -1.0, 0.0, 1e-30].map(scale_code), [0; 4]);
        assert_eq!([1e30, f32::INFINITY].map(scale_code), [255; 2]);
    }

    #[test]
    fn codes_come_back_at_every_width() {
        for (row_type, max) in [(RowType::TG1, 1i8), (RowType::TG2, 4), (RowType::BG1, 1)] {
            for cols in [1, 13, 31, 32, 33, 63, 64, 65, 96, 100, 172, 576] {
                let mut q: Vec<i8> =
                    (0..cols).map(|i| ((i * 7 + i / 5) % (2 * max as usize + 1)) as i8 - max).collect();
                if row_type == RowType::BG1 {
                    q.iter_mut().for_each(|q| *q |= 1);
                }
                let scales: Vec<u8> = (0..cols.div_ceil(GROUP)).map(|g| 150 + g as u8).collect();
                let mut bytes = vec![0xff; row_type.row_bytes(cols).unwrap()];
                encode(row_type, &q, &scales, &mut bytes);
                let mut row = UnpackedRow::default();
                unpack_row(row_type, &bytes, cols, &mut row).unwrap();
                assert_eq!(row.q, q, "{row_type} {cols}");
                assert_eq!(row.scale, scales.iter().map(|&code| scale_value(code)).collect::<Vec<_>>());
                let mut values = vec![0.0; cols];
                dequantize_row(row_type, &bytes, &mut values).unwrap();
                let expected = (0..cols).map(|i| scale_value(scales[i / GROUP]) * f32::from(q[i]));
                assert!(values.iter().copied().eq(expected));
            }
        }
    }

    /// Of a normal distribution three levels lose 0.436 of the root of the mean square at best, nine 0.17, two 0.603
    /// (Max, 1960).
    #[test]
    fn rounding_is_near_the_best_that_there_is() {
        // Sums of twelve uniform numbers are nearly normal.
        let mut state = 1u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let row: Vec<f32> = (0..6400).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
        for (row_type, bound) in [(RowType::TG1, 0.45), (RowType::TG2, 0.18), (RowType::BG1, 0.61)] {
            let mut bytes = vec![0; row_type.row_bytes(row.len()).unwrap()];
            quantize_row(row_type, &row, &mut bytes).unwrap();
            let mut back = vec![0.0; row.len()];
            dequantize_row(row_type, &bytes, &mut back).unwrap();
            let error: f32 = row.iter().zip(&back).map(|(a, b)| (a - b) * (a - b)).sum();
            let energy: f32 = row.iter().map(|w| w * w).sum();
            assert!((error / energy).sqrt() < bound, "{row_type}: {}", (error / energy).sqrt());
        }
    }

    #[test]
    fn zeros_and_what_is_no_number_do_not_panic() {
        for row_type in [RowType::TG1, RowType::TG2, RowType::BG1] {
            let mut bytes = vec![0; row_type.row_bytes(40).unwrap()];
            for value in [0.0, f32::NAN, f32::INFINITY, 1e-40, f32::MAX] {
                quantize_row(row_type, &[value; 40], &mut bytes).unwrap();
            }
            quantize_row(row_type, &[0.0; 40], &mut bytes).unwrap();
            let mut values = [1.0; 40];
            dequantize_row(row_type, &bytes, &mut values).unwrap();
            assert_eq!(values, [0.0; 40]);
        }
    }
}
