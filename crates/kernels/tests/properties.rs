//! What must hold of every row type on any bytes and any weights.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside #[test] functions")]

use kernels::codec::int8::Int8Groups;
use kernels::codec::{CodecError, UnpackedRow, dequantize_row, quantize_row, ternary, unpack_row};
use kernels::row::RowType;
use proptest::prelude::*;

const COLS: usize = 512;

fn quantized(ty: RowType, row: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0xa5; ty.row_bytes(row.len()).unwrap()];
    quantize_row(ty, row, &mut bytes).unwrap();
    bytes
}

fn dequantized(ty: RowType, bytes: &[u8], cols: usize) -> Vec<f32> {
    let mut row = vec![f32::from_bits(0x7fa5_a5a5); cols];
    dequantize_row(ty, bytes, &mut row).unwrap();
    row
}

fn round_trip(ty: RowType, row: &[f32]) -> Vec<f32> {
    dequantized(ty, &quantized(ty, row), row.len())
}

fn writable() -> impl Iterator<Item = RowType> {
    RowType::ALL.into_iter().filter(|ty| ty.is_writable())
}

fn is_ternary(ty: RowType) -> bool {
    matches!(ty, RowType::TQ1_0 | RowType::TQ2_0 | RowType::Ternary16 | RowType::Ternary32)
}

fn max_abs(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |max, w| w.abs().max(max))
}

/// Weights as models have them: a few orders of magnitude, a scale of its own for the row.
fn weights(cols: usize) -> impl Strategy<Value = Vec<f32>> {
    (1e-3f32..10.0, prop::collection::vec(-1.0f32..1.0, cols))
        .prop_map(|(scale, row)| row.into_iter().map(|w| w * w * w * scale).collect())
}

/// Largest error that a weight of a block may have: half a step, or a whole one where the range is not
/// symmetric (Q4_0 keeps one end exactly and cuts the other), and what rounding the scales to f16 adds.
fn error_bound(ty: RowType, block: &[f32], w: f32) -> f32 {
    let max = max_abs(block);
    let low = block.iter().copied().fold(f32::INFINITY, f32::min);
    let high = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // A scale is rounded to 11 bits, a subnormal one to a multiple of 2^-24; the error grows with the code it multiplies.
    let f16_rounding = |code: f32| max / 2048.0 + code / (1 << 25) as f32 + 1e-7;
    match ty {
        RowType::F32 => 0.0,
        RowType::F16 => w.abs() / 2048.0 + 3e-8,
        RowType::BF16 => w.abs() / 256.0,
        RowType::Q8_0 => max / 127.0 * 0.5 * 1.001 + f16_rounding(127.0),
        RowType::Int8 => max / 127.0 * 0.5 * 1.001,
        RowType::Q4_0 => max / 8.0 * 1.001 + f16_rounding(8.0),
        // Scale and minimum are both rounded: 15 scales are high - low.
        RowType::Q4_1 => (high - low) / 15.0 * 0.5 * 1.001 + (high - low) / 2048.0 + 2.0 * f16_rounding(15.0),
        RowType::Int4 => max / 7.0 * 0.5 * 1.001 + f16_rounding(7.0),
        RowType::TQ1_0 | RowType::TQ2_0 => max * 0.5 + f16_rounding(1.0),
        // Their scale is that of the least square error: a single weight may be off by as much as the largest is.
        RowType::TG1 | RowType::TG2 | RowType::BG1 => max * 1.07 + 1e-7,
        _ => panic!("{ty} has no bound per block"),
    }
}

proptest! {
    #[test]
    fn quantizing_keeps_the_error_bound(row in weights(COLS)) {
        for ty in writable().filter(|ty| ty.header_bytes() == 0) {
            let back = round_trip(ty, &row);
            let block = ty.block().0;
            for (i, (w, v)) in row.iter().zip(&back).enumerate() {
                let bound = error_bound(ty, &row[i / block * block..][..block], *w);
                prop_assert!((w - v).abs() <= bound, "{} weight {}: {} became {}, bound {}", ty, i, w, v, bound);
            }
        }
    }

    #[test]
    fn a_ternary_row_keeps_signs_and_the_mean_of_what_it_keeps(row in (1usize..70).prop_flat_map(weights)) {
        for ty in [RowType::Ternary16, RowType::Ternary32] {
            let back = round_trip(ty, &row);
            let mean = |row: &mut dyn Iterator<Item = &f32>| {
                let (sum, n) = row.fold((0.0, 0.0), |(sum, n), w| (sum + f64::from(w.abs()), n + 1.0));
                if n == 0.0 { 0.0 } else { sum / n }
            };
            let threshold = 0.4 * mean(&mut row.iter());
            let scale = mean(&mut row.iter().filter(|w| f64::from(w.abs()) > threshold));
            for (w, v) in row.iter().zip(&back) {
                if (f64::from(w.abs()) - threshold).abs() < 1e-6 * threshold {
                    continue;
                }
                let expected = if f64::from(w.abs()) > threshold { scale * f64::from(w.signum()) } else { 0.0 };
                prop_assert!((f64::from(*v) - expected).abs() <= scale / 2000.0 + 1e-7, "{} became {}", w, v);
            }
        }
    }

    #[test]
    fn ternary_weights_come_back(q in prop::collection::vec(-1i8..=1, COLS), scale in 1u16..0x7c00) {
        let mut q = q;
        (q[0], q[256]) = (1, -1); // a block of zeros alone has no scale to give back
        let scale = half::f16::from_bits(scale).to_f32();
        let row: Vec<f32> = q.iter().map(|&q| f32::from(q) * scale).collect();
        for ty in RowType::ALL.into_iter().filter(|&ty| is_ternary(ty)) {
            let bytes = quantized(ty, &row);
            prop_assert_eq!(&dequantized(ty, &bytes, COLS), &row, "{}", ty);
            if ty.header_bytes() > 0 {
                prop_assert_eq!(ternary::first_invalid_code(&bytes[ty.header_bytes()..]), None);
            }
        }
    }

    #[test]
    fn any_bytes_unpack_to_what_they_dequantize_to(bytes in prop::collection::vec(any::<u8>(), 4 * COLS), short in 1usize..40) {
        let mut unpacked = UnpackedRow::default();
        for ty in RowType::ALL.into_iter().filter(|ty| !ty.is_float()) {
            let cols = if ty.takes_any_width() { short } else { COLS };
            let row = &bytes[..ty.row_bytes(cols).unwrap()];
            unpack_row(ty, row, cols, &mut unpacked).unwrap();
            let groups = cols.div_ceil(unpacked.group);
            prop_assert_eq!(unpacked.q.len(), cols);
            prop_assert_eq!(unpacked.scale.len(), groups);
            prop_assert_eq!(unpacked.offset.len(), if unpacked.has_offset { groups } else { 0 });
            for (i, value) in dequantized(ty, row, cols).into_iter().enumerate() {
                let g = i / unpacked.group;
                let product = f32::from(unpacked.q[i]) * unpacked.scale[g];
                let expected = if unpacked.has_offset { product + unpacked.offset[g] } else { product };
                let same = value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan();
                prop_assert!(same, "{} weight {}: {} and {}", ty, i, value, expected);
            }
        }
    }

    #[test]
    fn any_floats_are_quantized_without_panic(bits in prop::collection::vec(any::<u32>(), COLS)) {
        let row: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        for ty in writable() {
            round_trip(ty, &row);
        }
        ternary::quantize_run(&row);
    }

    #[test]
    fn other_lengths_are_refused(cols in 0usize..600, len in 0usize..3000) {
        let bytes = vec![0; len];
        let mut unpacked = UnpackedRow::default();
        for ty in RowType::ALL {
            let fits = ty.row_bytes(cols);
            let mut row = vec![0.0; cols];
            let mut out = vec![0; len];
            let errors = [
                dequantize_row(ty, &bytes, &mut row).err(),
                unpack_row(ty, &bytes, cols, &mut unpacked).err(),
                quantize_row(ty, &row, &mut out).err(),
            ];
            for error in errors {
                match (fits, error) {
                    (None, error) => prop_assert_eq!(error, Some(CodecError::Cols { row_type: ty, cols, block: ty.block().0 })),
                    (Some(expected), Some(error)) if expected != len => {
                        prop_assert_eq!(error, CodecError::Length { row_type: ty, cols, expected, actual: len });
                    }
                    (Some(expected), error) => {
                        prop_assert_eq!(expected, len);
                        let allowed = error.is_none_or(|e| matches!(e, CodecError::NotQuantized(_) | CodecError::NotWritable(_)));
                        prop_assert!(allowed);
                    }
                }
            }
        }
    }

    #[test]
    fn llama2c_groups_become_rows(row in weights(384), group in prop::sample::select(vec![1usize, 3, 16, 32, 64, 96, 128, 384])) {
        let bytes = Int8Groups::quantize(&row, group).unwrap();
        prop_assert_eq!(bytes.len(), 384 + 384 / group * 4);
        let groups = Int8Groups::new(&bytes, 384, group).unwrap();
        let mut values = vec![0.0; 384];
        groups.dequantize(0, &mut values).unwrap();
        for (g, (w, v)) in row.chunks(group).zip(values.chunks(group)).enumerate() {
            let scale = f32::from_le_bytes(bytes[384 + 4 * g..][..4].try_into().unwrap());
            prop_assert_eq!(scale, max_abs(w) / 127.0);
            for (i, (w, v)) in w.iter().zip(v).enumerate() {
                prop_assert_eq!(*v, f32::from(bytes[g * group + i] as i8) * scale);
                prop_assert!((w - v).abs() <= scale * 0.5001);
            }
        }
        for cols in [128, 192, 96] {
            let mut packed = vec![0; RowType::Int8.row_bytes(cols).unwrap()];
            let repacked = groups.repack_row(cols, cols, &mut packed);
            prop_assert_eq!(repacked.is_ok(), groups.has_rows_of(cols));
            if repacked.is_ok() {
                prop_assert_eq!(&dequantized(RowType::Int8, &packed, cols), &values[cols..2 * cols]);
            }
        }
        prop_assert!(groups.dequantize(1, &mut values).is_err());
        prop_assert!(Int8Groups::new(&bytes[1..], 384, group).is_err());
        prop_assert!(Int8Groups::new(&bytes, 384, 0).is_err());
        prop_assert!(Int8Groups::new(&bytes, usize::MAX, 1).is_err());
        prop_assert!(Int8Groups::quantize(&row, 7).is_err());
    }
}

#[test]
fn extremes_are_quantized_and_read_back() {
    let rows = [0.0, -0.0, f32::MIN_POSITIVE, 1e-45, 65504.0, 1e30, f32::MAX, f32::INFINITY, f32::NAN];
    for value in rows {
        for ty in writable() {
            let back = round_trip(ty, &[value; COLS]);
            if value == 0.0 {
                assert_eq!(back, [0.0; COLS], "{ty}");
            }
            let mut mixed = [0.5; COLS];
            (mixed[3], mixed[300]) = (value, -value);
            round_trip(ty, &mixed);
        }
    }
}

#[test]
fn hostile_scales_decode_without_panic() {
    for ty in RowType::ALL {
        for fill in [0x00, 0x7f, 0x80, 0xff, 0x7c, 0xfc] {
            let bytes = vec![fill; ty.row_bytes(COLS).unwrap()];
            assert_eq!(dequantized(ty, &bytes, COLS).len(), COLS, "{ty}");
        }
    }
}

#[test]
fn an_unpacked_row_is_reused_without_allocation() {
    let mut unpacked = UnpackedRow::default();
    for _ in 0..3 {
        for ty in [RowType::Q4_1, RowType::Q2_K, RowType::Ternary16, RowType::Q8_0] {
            let bytes = vec![0; ty.row_bytes(COLS).unwrap()];
            unpack_row(ty, &bytes, COLS, &mut unpacked).unwrap();
        }
    }
    let places = |row: &UnpackedRow| (row.q.as_ptr(), row.scale.as_ptr(), row.offset.as_ptr());
    let before = places(&unpacked);
    let bytes = vec![0; RowType::Q2_K.row_bytes(COLS).unwrap()];
    unpack_row(RowType::Q2_K, &bytes, COLS, &mut unpacked).unwrap();
    assert_eq!(places(&unpacked), before);
}

#[test]
fn the_invalid_code_is_found_and_reads_as_minus_two() {
    let mut bytes = vec![0; RowType::Ternary32.row_bytes(9).unwrap()];
    bytes[..4].copy_from_slice(&1.0f32.to_le_bytes());
    bytes[5] = 0b11_10_01_00;
    assert_eq!(ternary::first_invalid_code(&bytes[4..]), Some(6));
    assert_eq!(dequantized(RowType::Ternary32, &bytes, 9), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, -2.0, -1.0, 0.0]);
}
