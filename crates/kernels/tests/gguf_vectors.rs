//! Every GGUF type against vectors of the reference implementation (gguf-py).
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside #[test] functions")]

mod data;
mod npz;

use kernels::codec::{UnpackedRow, dequantize_row, quantize_row, unpack_row};
use kernels::row::RowType;
use npz::Npz;

fn row_type(name: &str) -> RowType {
    RowType::ALL.into_iter().find(|t| t.name() == name).unwrap_or_else(|| panic!("no type {name}"))
}

/// Bits equal; NaNs may differ in sign and payload.
fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

#[test]
fn dequantize_is_bit_exact_for_every_vector() {
    let Some(mut npz) = Npz::open("golden/gguf_quant_vectors.npz") else { return };
    let mut seen = Vec::new();
    for (input, output) in [("q", "dq"), ("tern_q", "tern_dq"), ("deq_in", "deq_out")] {
        for name in npz.names() {
            let Some(name) = name.strip_prefix(input).and_then(|name| name.strip_prefix('/')) else {
                continue;
            };
            let ty = row_type(name);
            let bytes = npz.byte_rows(&format!("{input}/{name}"));
            let values = npz.f32_rows(&format!("{output}/{name}"));
            assert_eq!(bytes.len(), values.len());
            for (bytes, expected) in bytes.iter().zip(&values) {
                let mut out = vec![f32::NAN; expected.len()];
                dequantize_row(ty, bytes, &mut out).unwrap();
                assert!(same_bits(&out, expected), "{input}/{name}");
                if !ty.is_float() {
                    assert!(
                        same_bits(&multiplied_out(ty, bytes, expected.len()), expected),
                        "{name} unpacked"
                    );
                }
            }
            seen.push(ty);
        }
    }
    let own = [
        RowType::Int4,
        RowType::Int8,
        RowType::Ternary16,
        RowType::Ternary32,
        RowType::TG1,
        RowType::TG2,
        RowType::BG1,
    ];
    for ty in RowType::ALL.into_iter().filter(|ty| !own.contains(ty)) {
        assert!(seen.contains(&ty), "no vector for {ty}");
    }
}

fn multiplied_out(ty: RowType, bytes: &[u8], cols: usize) -> Vec<f32> {
    let mut row = UnpackedRow::default();
    unpack_row(ty, bytes, cols, &mut row).unwrap();
    assert_eq!((row.group, row.has_offset), (ty.group(cols), ty.has_offset()));
    let value = |(i, &q): (usize, &i8)| {
        let product = f32::from(q) * row.scale[i / row.group];
        if row.has_offset { product + row.offset[i / row.group] } else { product }
    };
    row.q.iter().enumerate().map(value).collect()
}

#[test]
fn quantize_gives_the_reference_bytes() {
    let Some(mut npz) = Npz::open("golden/gguf_quant_vectors.npz") else { return };
    let writable = [
        RowType::F32,
        RowType::F16,
        RowType::BF16,
        RowType::Q4_0,
        RowType::Q4_1,
        RowType::Q8_0,
        RowType::TQ1_0,
        RowType::TQ2_0,
    ];
    for (weights, prefix) in [("x", "q"), ("tern", "tern_q")] {
        let rows = npz.f32_rows(weights);
        for ty in writable {
            let name = format!("{prefix}/{ty}");
            if !npz.names().contains(&name) {
                continue;
            }
            for (i, (row, expected)) in rows.iter().zip(npz.byte_rows(&name)).enumerate() {
                let mut out = vec![0xa5; expected.len()];
                quantize_row(ty, row, &mut out).unwrap();
                assert_eq!(out, expected, "{name}, row {i}");
            }
        }
    }
}
