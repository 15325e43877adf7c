//! Our quantizers against whole files of the seed formats' own: stories260K in T-MAC v1, v2 and Q4V1.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside #[test] functions")]

mod data;

use kernels::codec::repack::{TernaryLayout, TernaryMatrix};
use kernels::codec::{dequantize_row, quantize_row, ternary};
use kernels::row::RowType;

/// A tensor of the llama2.c v0 checkpoint, layers stacked into the rows.
struct Tensor {
    is_matrix: bool,
    cols: usize,
    weights: Vec<f32>,
}

/// The checkpoint's header (28 bytes) and its tensors in the order that all these formats share.
fn stories() -> Option<(Vec<u8>, Vec<Tensor>)> {
    let file = std::fs::read(data::path("llama2c/stories260K.bin")?).unwrap();
    let field = |i: usize| i32::from_le_bytes(file[4 * i..][..4].try_into().unwrap()) as usize;
    let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab, seq_len] = [0, 1, 2, 3, 4, 5, 6].map(field);
    let head = dim / n_heads;
    let kv_dim = n_kv_heads * head;
    let shapes = [
        (true, vocab, dim),                 // token_embedding
        (false, n_layers, dim),             // rms_att
        (true, n_layers * dim, dim),        // wq
        (true, n_layers * kv_dim, dim),     // wk
        (true, n_layers * kv_dim, dim),     // wv
        (true, n_layers * dim, dim),        // wo
        (false, n_layers, dim),             // rms_ffn
        (true, n_layers * hidden_dim, dim), // w1
        (true, n_layers * dim, hidden_dim), // w2
        (true, n_layers * hidden_dim, dim), // w3
        (false, 1, dim),                    // rms_final
        (false, seq_len, head / 2),         // freq_cis_real
        (false, seq_len, head / 2),         // freq_cis_imag
    ];
    let mut floats = file[28..].as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
    let tensors = shapes.map(|(is_matrix, rows, cols)| {
        let weights: Vec<f32> = floats.by_ref().take(rows * cols).collect();
        assert_eq!(weights.len(), rows * cols);
        Tensor { is_matrix, cols, weights }
    });
    Some((file[..28].to_vec(), tensors.into()))
}

fn seed_file(name: &str) -> Option<Vec<u8>> {
    Some(std::fs::read(data::path(&format!("golden/stories260K-quantized/{name}"))?).unwrap())
}

fn quantized(ty: RowType, row: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0xa5; ty.row_bytes(row.len()).unwrap()];
    quantize_row(ty, row, &mut bytes).unwrap();
    bytes
}

/// Equal, or the place of the first difference.
fn assert_same(ours: &[u8], theirs: &[u8]) {
    let different = ours.iter().zip(theirs).filter(|(a, b)| a != b).count();
    let first = ours.iter().zip(theirs).position(|(a, b)| a != b);
    assert_eq!((ours.len(), first, different), (theirs.len(), None, 0));
}

#[test]
fn ternary16_rows_are_those_of_the_tmac_v2_file() {
    let (Some((header, tensors)), Some(theirs)) = (stories(), seed_file("stories260K.tmac2.bin")) else {
        return;
    };
    let mut ours = [b"TM2\0", &header[..]].concat();
    for tensor in &tensors {
        ours.push(u8::from(tensor.is_matrix));
        if tensor.is_matrix {
            let rows = tensor.weights.len() / tensor.cols;
            ours.extend([rows, tensor.cols].map(|n| (n as i32).to_le_bytes()).concat());
            for row in tensor.weights.chunks(tensor.cols) {
                ours.extend(quantized(RowType::Ternary16, row));
            }
        } else {
            ours.extend(quantized(RowType::F32, &tensor.weights));
        }
    }
    assert_same(&ours, &theirs);
}

#[test]
fn int4_blocks_are_those_of_the_q4v1_file() {
    let (Some((header, tensors)), Some(theirs)) = (stories(), seed_file("stories260K.q4.bin")) else {
        return;
    };
    let mut ours = [b"Q4V1", &header[..], &32i32.to_le_bytes()].concat();
    for tensor in &tensors {
        ours.push(u8::from(tensor.is_matrix));
        let ty = if tensor.is_matrix { RowType::Int4 } else { RowType::F32 };
        ours.extend(quantized(ty, &tensor.weights));
    }
    assert_same(&ours, &theirs);
}

#[test]
fn runs_are_those_of_the_tmac_v1_file_and_repack_into_rows() {
    let (Some((header, tensors)), Some(theirs)) = (stories(), seed_file("stories260K.tmac.bin")) else {
        return;
    };
    let mut ours = [b"TMAC", &header[..]].concat();
    for tensor in &tensors {
        if !tensor.is_matrix {
            ours.extend(quantized(RowType::F32, &tensor.weights));
            continue;
        }
        let run = ternary::quantize_run(&tensor.weights);
        // The second layer of the stack (of five), or the second fifth of the embedding's weights.
        let rows = tensor.weights.len() / tensor.cols / 5;
        let first = rows * tensor.cols;
        let matrix = TernaryMatrix::new(&run, TernaryLayout::Run { first }, rows, tensor.cols).unwrap();
        let mean =
            tensor.weights.iter().map(|w| f64::from(w.abs())).sum::<f64>() / tensor.weights.len() as f64;
        for (i, row) in tensor.weights[first..].chunks(tensor.cols).take(rows).enumerate() {
            let mut packed = vec![0xa5; RowType::Ternary32.row_bytes(tensor.cols).unwrap()];
            matrix.repack_row(i, 1.0, &mut packed).unwrap();
            let mut values = vec![f32::NAN; tensor.cols];
            dequantize_row(RowType::Ternary32, &packed, &mut values).unwrap();
            for (value, weight) in values.iter().zip(row) {
                let kept = f64::from(weight.abs()) > 0.7 * mean;
                assert_eq!(*value, if kept { weight.signum() } else { 0.0 }, "{weight} of mean {mean}");
            }
        }
        ours.extend(run);
    }
    assert_same(&ours, &theirs);
}
