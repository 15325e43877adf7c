//! Ternary matrices of other programs' files, repacked into Ternary32 rows.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside #[test] functions")]

mod data;

use kernels::codec::repack::{TernaryLayout, TernaryMatrix};
use kernels::codec::{CodecError, UnpackedRow, unpack_row};
use kernels::row::RowType;
use proptest::prelude::*;
use safetensors::SafeTensors;

/// The ternary weights of row `row`, having passed through a Ternary32 row.
fn weights(matrix: &TernaryMatrix<'_>, row: usize, cols: usize) -> Vec<i8> {
    let mut bytes = vec![0xa5; RowType::Ternary32.row_bytes(cols).unwrap()];
    matrix.repack_row(row, 0.75, &mut bytes).unwrap();
    let in_last = (cols - 1) % 4 + 1;
    assert_eq!(u32::from(*bytes.last().unwrap()) >> (2 * in_last), 0, "a row is filled up with zeros");
    let mut unpacked = UnpackedRow::default();
    unpack_row(RowType::Ternary32, &bytes, cols, &mut unpacked).unwrap();
    assert_eq!(unpacked.scale, [0.75]);
    unpacked.q
}

/// One matrix of a bitllama file: its scale and codes.
struct BitllamaMatrix<'a> {
    scale: f32,
    codes: &'a [u8],
    rows: usize,
    cols: usize,
}

/// The 7 kinds (q, k, v, o, w1, w2, w3) of matrices of a bitllama file, each with all layers.
fn bitllama(file: &[u8]) -> Vec<Vec<BitllamaMatrix<'_>>> {
    let field = |i: usize| u32::from_le_bytes(file[8 + 4 * i..][..4].try_into().unwrap()) as usize;
    let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab] = [0, 1, 2, 3, 4, 5].map(field);
    let kv_dim = dim / n_heads * n_kv_heads;
    let mut at = 256 + 4 * dim + 4 * vocab * dim;
    let shapes = [
        (dim, dim),
        (kv_dim, dim),
        (kv_dim, dim),
        (dim, dim),
        (hidden_dim, dim),
        (dim, hidden_dim),
        (hidden_dim, dim),
    ];
    let kinds = shapes.map(|(rows, cols)| {
        let layer = |_| {
            let (header, rest) = file[at..].split_at(4);
            at += 4 + rows * cols / 4;
            let scale = f32::from_le_bytes(header.try_into().unwrap());
            BitllamaMatrix { scale, codes: &rest[..rows * cols / 4], rows, cols }
        };
        (0..n_layers).map(layer).collect()
    });
    assert_eq!(at, file.len());
    kinds.into()
}

#[test]
fn bitllama_codes_are_those_of_the_packed_hf_model() {
    let (Some(bin), Some(hf)) =
        (data::path("bitllama/outmini_bit_1M_bit_model.bin"), data::path("bitllama/hf-1M/model.safetensors"))
    else {
        return;
    };
    let (bin, hf) = (std::fs::read(bin).unwrap(), std::fs::read(hf).unwrap());
    let hf = SafeTensors::deserialize(&hf).unwrap();
    let names = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.down_proj",
        "mlp.up_proj",
    ];
    // RoPE's pairs: bitllama turns rows 2 i, 2 i + 1 of a head, HF rows i, i + 8. Heads have 16 rows.
    let hf_row = |name: &str, row: usize| match name {
        "self_attn.q_proj" | "self_attn.k_proj" => row / 16 * 16 + row % 2 * 8 + row % 16 / 2,
        _ => row,
    };
    for (layers, name) in bitllama(&bin).iter().zip(names) {
        assert_eq!(layers.len(), 8);
        for (l, ours) in layers.iter().enumerate() {
            let packed = hf.tensor(&format!("model.layers.{l}.{name}.weight")).unwrap();
            let scale = hf.tensor(&format!("model.layers.{l}.{name}.weight_scale")).unwrap();
            assert_eq!(scale.data(), ours.scale.to_le_bytes());
            assert_eq!(packed.shape(), [ours.rows / 4, ours.cols]);
            let layout = TernaryLayout::RunMostSignificantFirst { first: 0 };
            let bin_matrix = TernaryMatrix::new(ours.codes, layout, ours.rows, ours.cols).unwrap();
            let hf_matrix =
                TernaryMatrix::new(packed.data(), TernaryLayout::HfBitnet, ours.rows, ours.cols).unwrap();
            for row in 0..ours.rows {
                let expected = weights(&hf_matrix, hf_row(name, row), ours.cols);
                assert_eq!(weights(&bin_matrix, row, ours.cols), expected, "layer {l} {name} row {row}");
            }
        }
    }
}

#[test]
fn packed_bitnet_is_the_master_weights_rounded() {
    let path = |kind: &str| data::path(&format!("golden/bitnet-tiny64/{kind}/model.safetensors"));
    let (Some(master), Some(auto), Some(plain)) =
        (path("master-f32"), path("packed-autobitlinear"), path("packed-bitlinear"))
    else {
        return;
    };
    let [master, auto, plain] = [master, auto, plain].map(|path| std::fs::read(path).unwrap());
    let master = SafeTensors::deserialize(&master).unwrap();
    let mut compared = 0;
    for packed in [auto, plain] {
        let packed = SafeTensors::deserialize(&packed).unwrap();
        for (name, tensor) in packed.tensors().into_iter().filter(|(name, _)| name.ends_with("proj.weight")) {
            let w = master.tensor(&name).unwrap();
            let [rows, cols] = w.shape()[..] else { panic!("{name}") };
            let w: Vec<f32> = w.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            let mean = w.iter().map(|w| f64::from(w.abs())).sum::<f64>() / w.len() as f64;
            let matrix = TernaryMatrix::new(tensor.data(), TernaryLayout::HfBitnet, rows, cols).unwrap();
            for (i, w) in w.chunks(cols).enumerate() {
                let rounded =
                    w.iter().map(|&w| (f64::from(w) / mean).round_ties_even().clamp(-1.0, 1.0) as i8);
                assert_eq!(weights(&matrix, i, cols), rounded.collect::<Vec<_>>(), "{name} row {i}");
                compared += cols;
            }
        }
    }
    assert!(compared > 100_000, "{compared}");
}

/// Writes `w` (-1..=1, row-major) as the layout's own documents say, weight by weight.
fn written(layout: TernaryLayout, w: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    let (first, offset_code) = match layout {
        TernaryLayout::Run { first } | TernaryLayout::RunMostSignificantFirst { first } => (first, false),
        _ => (0, true),
    };
    let mut bytes = vec![0u8; (first + w.len()).div_ceil(4)];
    for (i, &w) in w.iter().enumerate() {
        let code = if offset_code { (w + 1) as u8 } else { [3, 0, 1][(w + 1) as usize] };
        let at = first + i;
        let (byte, shift) = match layout {
            TernaryLayout::Run { .. } => (at / 4, 2 * (at % 4)),
            TernaryLayout::RunMostSignificantFirst { .. } => (at / 4, 6 - 2 * (at % 4)),
            TernaryLayout::HfBitnet => {
                let (row, packed_rows) = (i / cols, rows / 4);
                (row % packed_rows * cols + i % cols, 2 * (row / packed_rows))
            }
            TernaryLayout::I2sX86 => (i / 128 * 32 + i % 128 % 32, 6 - 2 * (i % 128 / 32)),
            TernaryLayout::I2sArm => (i / 64 * 16 + i % 64 % 16, 6 - 2 * (i % 64 / 16)),
        };
        bytes[byte] |= code << shift;
    }
    bytes
}

fn layouts(first: usize) -> [TernaryLayout; 5] {
    [
        TernaryLayout::Run { first },
        TernaryLayout::RunMostSignificantFirst { first },
        TernaryLayout::HfBitnet,
        TernaryLayout::I2sX86,
        TernaryLayout::I2sArm,
    ]
}

proptest! {
    #[test]
    fn every_layout_gives_back_what_was_written(
        (rows, cols, w) in (1usize..10, 1usize..150).prop_flat_map(|(rows, cols)| {
            (Just(rows), Just(cols), prop::collection::vec(-1i8..=1, rows * cols))
        }),
        first in 0usize..9,
    ) {
        for layout in layouts(first) {
            let fits = match layout {
                TernaryLayout::HfBitnet => rows % 4 == 0,
                TernaryLayout::I2sX86 => cols % 128 == 0,
                TernaryLayout::I2sArm => cols % 64 == 0,
                _ => true,
            };
            let bytes = if fits { written(layout, &w, rows, cols) } else { vec![0; (rows * cols).div_ceil(4)] };
            let matrix = TernaryMatrix::new(&bytes, layout, rows, cols);
            prop_assert_eq!(matrix.is_ok(), fits, "{:?} {} x {}", layout, rows, cols);
            let Ok(matrix) = matrix else { continue };
            for (row, expected) in w.chunks(cols).enumerate() {
                prop_assert_eq!(weights(&matrix, row, cols), expected, "{:?} row {}", layout, row);
            }
        }
    }

    #[test]
    fn whole_blocks_in_every_layout(w in prop::collection::vec(-1i8..=1, 8 * 128)) {
        for layout in layouts(0) {
            let bytes = written(layout, &w, 8, 128);
            let matrix = TernaryMatrix::new(&bytes, layout, 8, 128).unwrap();
            for (row, expected) in w.chunks(128).enumerate() {
                prop_assert_eq!(weights(&matrix, row, 128), expected, "{:?} row {}", layout, row);
            }
        }
    }

    #[test]
    fn an_invalid_code_is_refused_where_it_stands(w in prop::collection::vec(-1i8..=1, 8 * 128), at in 0usize..8 * 128) {
        for layout in layouts(0) {
            // The place of weight `at`: where the bytes change when it does.
            let [mut one, mut other] = [w.clone(), w.clone()];
            (one[at], other[at]) = (0, 1);
            let [mut bytes, other] = [one, other].map(|w| written(layout, &w, 8, 128));
            let byte = (0..bytes.len()).find(|&i| bytes[i] != other[i]).unwrap();
            let shift = (bytes[byte] ^ other[byte]).trailing_zeros() & !1;
            let invalid = if matches!(layout, TernaryLayout::Run { .. } | TernaryLayout::RunMostSignificantFirst { .. }) { 2 } else { 3 };
            bytes[byte] = bytes[byte] & !(3 << shift) | invalid << shift;
            let matrix = TernaryMatrix::new(&bytes, layout, 8, 128).unwrap();
            let mut out = vec![0; RowType::Ternary32.row_bytes(128).unwrap()];
            for row in 0..8 {
                let expected = if row == at / 128 { Err(CodecError::InvalidCode { index: at }) } else { Ok(()) };
                prop_assert_eq!(matrix.repack_row(row, 1.0, &mut out), expected, "{:?}", layout);
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused(len in 0usize..200, rows in 0usize..40, cols in 0usize..40, first in any::<usize>()) {
        let bytes = vec![0; len];
        for layout in layouts(first % 100).into_iter().chain(layouts(first)) {
            if let Ok(matrix) = TernaryMatrix::new(&bytes, layout, rows, cols) {
                prop_assert!(rows * cols <= 4 * len);
                let mut out = vec![0; RowType::Ternary32.row_bytes(cols).unwrap()];
                for row in 0..rows {
                    prop_assert_eq!(matrix.repack_row(row, 1.0, &mut out), Ok(()));
                }
                let beyond = matrix.repack_row(rows, 1.0, &mut out);
                prop_assert!(matches!(beyond, Err(CodecError::Layout { .. })), "accepted");
                out.push(0);
                let long = matrix.repack_row(0, 1.0, &mut out);
                prop_assert!(matches!(long, Err(CodecError::Length { .. })), "accepted");
            }
            let huge = TernaryMatrix::new(&bytes, layout, usize::MAX, 2);
            prop_assert!(matches!(huge, Err(CodecError::Layout { .. })), "accepted");
        }
    }
}

#[test]
fn the_two_bit_orders_hold_the_same_model() {
    let (Some(msb), Some(lsb)) =
        (data::path("bitllama/outmini_bit_3M_bit_model.bin"), data::path("bitllama/riscv_bin_model.bin"))
    else {
        return;
    };
    let [msb, lsb] = [msb, lsb].map(|path| std::fs::read(path).unwrap());
    for (msb, lsb) in bitllama(&msb).into_iter().flatten().zip(bitllama(&lsb).into_iter().flatten()) {
        let (rows, cols) = (msb.rows, msb.cols);
        let ours =
            TernaryMatrix::new(msb.codes, TernaryLayout::RunMostSignificantFirst { first: 0 }, rows, cols);
        let theirs = TernaryMatrix::new(lsb.codes, TernaryLayout::Run { first: 0 }, rows, cols);
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!(msb.scale, lsb.scale);
        for row in 0..rows {
            assert_eq!(weights(&ours, row, cols), weights(&theirs, row, cols));
        }
    }
}
