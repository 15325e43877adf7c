//! Rows from codes and scales that somebody else has chosen.

use super::float::f16_to_le_bytes;
use super::ternary::{pack_base_3, pack_signs, pack_two_bits};
use super::{CodecError, check_len, grouped};
use crate::row::RowType;

/// Writes the row whose unpacked form ([`super::unpack_row`]) has the codes `q` and `scales`, one for each
/// [`RowType::group`] of them (one a block of 256 of the TQ types). Scales are rounded to what the type stores, codes
/// beyond its range cut off. For types without offsets; the others give [`CodecError::NotWritable`].
pub fn encode_row(row_type: RowType, q: &[i8], scales: &[f32], out: &mut [u8]) -> Result<(), CodecError> {
    check_len(row_type, q.len(), out.len())?;
    let scale = |group: usize| scales.get(group).copied().unwrap_or(0.0);
    let (weights, bytes) = row_type.block();
    match row_type {
        RowType::TG1 | RowType::TG2 | RowType::BG1 => {
            let scales: Vec<u8> = scales.iter().map(|&scale| grouped::scale_code(scale)).collect();
            grouped::encode(row_type, q, &scales, out);
        }
        RowType::Ternary16 | RowType::Ternary32 => {
            let (header, codes) = out.split_at_mut(row_type.header_bytes());
            match header {
                [_, _] => header.copy_from_slice(&f16_to_le_bytes(scale(0))),
                _ => header.copy_from_slice(&scale(0).to_le_bytes()),
            }
            let row: Vec<f32> = q.iter().map(|&q| f32::from(q)).collect();
            pack_signs(&row, 0.5, codes);
        }
        RowType::Q4_0 | RowType::Int4 | RowType::Q8_0 => {
            for (g, (q, out)) in q.chunks_exact(weights).zip(out.chunks_exact_mut(bytes)).enumerate() {
                let (header, codes) = out.split_at_mut(2);
                header.copy_from_slice(&f16_to_le_bytes(scale(g)));
                let nibble = |i: usize| (q[i].clamp(-8, 7) + 8) as u8;
                for (i, code) in codes.iter_mut().enumerate() {
                    *code = match row_type {
                        RowType::Q4_0 => nibble(i) | nibble(i + 16) << 4,
                        RowType::Int4 => nibble(2 * i) | nibble(2 * i + 1) << 4,
                        _ => q[i] as u8,
                    };
                }
            }
        }
        RowType::TQ1_0 | RowType::TQ2_0 => {
            for (g, (q, out)) in q.chunks_exact(weights).zip(out.chunks_exact_mut(bytes)).enumerate() {
                let digits: Vec<u8> = q.iter().map(|&q| (q.clamp(-1, 1) + 1) as u8).collect();
                let (codes, header) = out.split_at_mut(bytes - 2);
                header.copy_from_slice(&f16_to_le_bytes(scale(g)));
                if row_type == RowType::TQ1_0 {
                    pack_base_3(&digits, codes);
                } else {
                    pack_two_bits(&digits, codes);
                }
            }
        }
        _ => return Err(CodecError::NotWritable(row_type)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{UnpackedRow, unpack_row};

    #[test]
    fn codes_and_scales_come_back() {
        for (row_type, min, max) in [
            (RowType::TG1, -1, 1),
            (RowType::TG2, -4, 4),
            (RowType::BG1, -1, 1),
            (RowType::Q4_0, -8, 7),
            (RowType::Int4, -8, 7),
            (RowType::Q8_0, -127, 127),
            (RowType::TQ1_0, -1, 1),
            (RowType::TQ2_0, -1, 1),
            (RowType::Ternary16, -1, 1),
            (RowType::Ternary32, -1, 1),
        ] {
            let cols = 512;
            let span = max - min + 1;
            let mut q: Vec<i8> = (0..cols).map(|i| ((i * 37 + i / 7) as i32 % span + min) as i8).collect();
            if row_type == RowType::BG1 {
                q.iter_mut().for_each(|q| *q |= 1);
            }
            let group = match row_type {
                RowType::TQ1_0 | RowType::TQ2_0 => 256,
                _ => row_type.group(cols),
            };
            let scales: Vec<f32> = (0..cols / group).map(|g| 0.5 + g as f32 / 16.0).collect();
            let mut bytes = vec![0; row_type.row_bytes(cols).unwrap()];
            encode_row(row_type, &q, &scales, &mut bytes).unwrap();
            let mut row = UnpackedRow::default();
            unpack_row(row_type, &bytes, cols, &mut row).unwrap();
            assert_eq!(row.q, q, "{row_type}");
            let stored = |scale: f32| match row_type {
                RowType::TG1 | RowType::TG2 | RowType::BG1 => {
                    grouped::scale_value(grouped::scale_code(scale))
                }
                _ => scale,
            };
            let expected: Vec<f32> =
                (0..row.scale.len()).map(|g| stored(scales[g * row.group / group])).collect();
            assert_eq!(row.scale, expected, "{row_type}");
        }
        assert!(encode_row(RowType::Q4_K, &[0; 256], &[1.0], &mut [0; 144]).is_err());
        assert!(encode_row(RowType::Q4_0, &[0; 32], &[1.0], &mut [0; 17]).is_err());
    }
}
