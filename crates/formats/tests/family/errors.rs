//! Each kind of damage gives exactly the error that says what and where.

use formats::FormatError;
use formats::bitllama;
use formats::checkpoint::Checkpoint;
use formats::detect::{FileKind, detect};
use formats::llama2c::{self, Header, Version};
use formats::tmac_v2::{self, Variant};
use formats::{TensorInfo, tokenizer_file, trailer};

use crate::sample::{self, tiny};

fn file(kind: FileKind, bitnet: bool) -> Vec<u8> {
    sample::file((kind, bitnet), &tiny(!bitnet), &|_| false, false, 5)
}

fn error(bytes: &[u8]) -> FormatError {
    match Checkpoint::parse(bytes) {
        Err(error) => error,
        Ok(checkpoint) => panic!("accepted as {}", checkpoint.kind),
    }
}

/// The file with an i32 replaced.
fn with_i32(mut bytes: Vec<u8>, at: usize, value: i32) -> Vec<u8> {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

fn with_byte(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    bytes[at] = value;
    bytes
}

#[track_caller]
fn assert_field(error: FormatError, name: &str, at: u64) {
    match error {
        FormatError::Field { field, offset, .. } => assert_eq!((field.as_str(), offset), (name, at)),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_tensor(error: FormatError, name: &str, at: u64) {
    match error {
        FormatError::Tensor { tensor, offset, .. } => assert_eq!((tensor.as_str(), offset), (name, at)),
        other => panic!("{other:?}"),
    }
}

fn tensor(bytes: &[u8], name: &str) -> TensorInfo {
    Checkpoint::parse(bytes).unwrap().tensor(name).unwrap().clone()
}

const FIELDS: [&str; 7] = ["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"];

#[test]
fn header_fields() {
    for (kind, at) in [
        (FileKind::TmacV1, 4),
        (FileKind::TmacV2, 4),
        (FileKind::Int4, 4),
        (FileKind::Llama2cV1, 8),
        (FileKind::Llama2cV2, 8),
    ] {
        let whole = file(kind, false);
        for (i, name) in FIELDS.into_iter().enumerate() {
            let at = at + 4 * i;
            assert_field(error(&with_i32(whole.clone(), at, 0)), name, at as u64);
            if name != "vocab_size" || at > 24 {
                assert_field(error(&with_i32(whole.clone(), at, -5)), name, at as u64);
            }
            match error(&with_i32(whole.clone(), at, i32::MAX)) {
                FormatError::Limit { field, value, .. } => {
                    assert_eq!((field.as_str(), value), (name, i32::MAX as u64))
                }
                other => panic!("{other:?}"),
            }
        }
        let dim = at as u64;
        assert_field(error(&with_i32(whole.clone(), at, 9)), "dim", dim);
        assert_field(error(&with_i32(whole.clone(), at + 12, 8)), "dim", dim); // heads of odd width 1
        let four = with_i32(whole.clone(), at + 12, 4);
        assert_field(error(&with_i32(four, at + 16, 3)), "n_kv_heads", dim + 16);
    }
    // The sign of vocab_size is no part of its size, not even where an i32 has no absolute value.
    match error(&with_i32(file(FileKind::TmacV1, false), 24, i32::MIN)) {
        FormatError::Limit { field, value, .. } => {
            assert_eq!((field.as_str(), value), ("vocab_size", 1 << 31))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn versions_and_flags() {
    let v1 = file(FileKind::Llama2cV1, false);
    assert_field(error(&with_i32(v1.clone(), 4, 3)), "version", 4);
    assert_field(error(&with_byte(v1.clone(), 36, 2)), "shared_classifier", 36);
    assert_field(error(&with_byte(v1.clone(), 100, 1)), "header padding", 100);
    let v2 = file(FileKind::Llama2cV2, false);
    assert_field(error(&with_i32(v2.clone(), 37, 0)), "group_size", 37);
    assert_field(error(&with_i32(v2.clone(), 37, -2)), "group_size", 37);
    let embedding = tensor(&v2, "token_embedding").offset;
    assert_tensor(error(&with_i32(v2, 37, 7)), "token_embedding", embedding);
    assert_field(error(&with_i32(file(FileKind::Int4, false), 32, 64)), "block size", 32);
    for (kind, at) in [(FileKind::Int4, 36), (FileKind::TmacV2, 32)] {
        let bytes = with_byte(file(kind, false), at, 2);
        assert_field(error(&bytes), "flag of tensor token_embedding", at as u64);
        let norm = tensor(&file(kind, false), "layers.0.rms_att").offset as usize - 1;
        assert_field(error(&with_byte(file(kind, false), norm, 1)), "flag of tensor rms_att", norm as u64);
    }
    let bitllama = sample::file((FileKind::Bitllama, false), &tiny(true), &|_| false, false, 1);
    match bitllama::parse(&with_byte(bitllama, 36, 0), None) {
        Err(error) => assert_field(error, "shared_classifier", 36),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn lengths() {
    for (kind, bitnet) in sample::KINDS.into_iter().filter(|(kind, _)| *kind != FileKind::Bitllama) {
        let bytes = file(kind, bitnet);
        let last = Checkpoint::parse(&bytes).unwrap().tensors.pop().unwrap();
        let len = bytes.len() as u64;
        assert_eq!(last.offset + last.bytes, len);
        match error(&bytes[..bytes.len() - 1]) {
            FormatError::Truncated { what, offset, end, len: got } => {
                assert_eq!(
                    (what, offset, end, got),
                    (format!("tensor {}", last.name), last.offset, len, len - 1)
                );
            }
            other => panic!("{kind}: {other:?}"),
        }
        let longer: Vec<u8> = bytes.iter().copied().chain([1, 2, 3]).collect();
        assert_eq!(error(&longer), FormatError::TrailingBytes { offset: len, extra: 3 }, "{kind}");
    }
}

#[test]
fn ternary_codes() {
    for (kind, bitnet) in [(FileKind::TmacV1, false), (FileKind::TmacV2, false), (FileKind::TmacV2, true)] {
        let bytes = file(kind, bitnet);
        let info = tensor(&bytes, "layers.1.w1");
        let last = (info.offset + info.bytes - 1) as usize;
        let name = if kind == FileKind::TmacV1 { "w1" } else { "layers.1.w1" };
        for place in 0..4 {
            let damaged = with_byte(bytes.clone(), last, 0b10 << (2 * place));
            assert_tensor(error(&damaged), name, last as u64);
        }
    }
}

#[test]
fn ternary_padding() {
    // dim 6: a row of T-MAC v2 ends in a byte with two weights; a 5 x 6 embedding of v1 likewise.
    let header = Header { dim: 6, n_heads: 1, vocab_size: 5, ..tiny(true) };
    for kind in [FileKind::TmacV1, FileKind::TmacV2] {
        let bytes = sample::file((kind, false), &header, &|_| false, false, 5);
        let info = tensor(&bytes, "token_embedding");
        let last = (info.offset + info.bytes - 1) as usize;
        assert_tensor(error(&with_byte(bytes.clone(), last, 0b01_0000)), "token_embedding", last as u64);
        assert!(Checkpoint::parse(&with_byte(bytes, last, 0b1101)).is_ok());
    }
}

#[test]
fn tmac_v2_dimensions_and_variants() {
    let llama = file(FileKind::TmacV2, false);
    assert_field(error(&with_i32(llama.clone(), 33, 11)), "rows of tensor token_embedding", 33);
    assert_field(error(&with_i32(llama, 37, 9)), "columns of tensor token_embedding", 37);
    // A BitNet file with damage far behind is still reported as one.
    let bitnet = file(FileKind::TmacV2, true);
    let sub_norm = tensor(&bitnet, "layers.1.ffn_sub_norm").offset;
    let damaged = with_byte(bitnet, sub_norm as usize - 1, 1);
    assert_field(error(&damaged), "flag of tensor ffn_sub_norm", sub_norm - 1);
    // BitNet stores a head of its own: a plan without is wrong.
    let error = tmac_v2::tensors(&tiny(true), Variant::BitNet, &|_| false).unwrap_err();
    assert_field(error, "vocab_size", 24);
}

#[test]
fn trailers() {
    let whole = file(FileKind::TmacV2, false);
    let len = whole.len() as u64;
    let mut with = whole.clone();
    trailer::write(&mut with, &serde_json::json!({"architecture": "llama"})).unwrap();
    let json = u64::from_le_bytes(with[whole.len() + 8..whole.len() + 16].try_into().unwrap());
    assert_eq!(Checkpoint::parse(&with).unwrap().trailer.unwrap()["architecture"], "llama");
    let damage = |at: u64, value: u8| error(&with_byte(with.clone(), (len + at) as usize, value));
    assert_eq!(damage(0, b'X'), FormatError::TrailingBytes { offset: len, extra: json + 28 });
    assert_field(damage(4, 2), "trailer version", len + 4);
    assert_field(damage(16 + json, 0), "second trailer length", len + 16 + json);
    assert_field(damage(24 + json, 0), "end mark of the trailer", len + 24 + json);
    assert!(matches!(damage(15, 0xff), FormatError::Limit { .. }));
    assert!(matches!(damage(16, b'['), FormatError::Json { .. }));
    let mut list = Vec::new();
    assert!(trailer::write(&mut list, &serde_json::json!([1])).is_err());
    let mut more = with.clone();
    more.push(0);
    assert_eq!(error(&more), FormatError::TrailingBytes { offset: len + json + 28, extra: 1 });
    for cut in 1..json + 28 {
        let cut = &with[..(len + cut) as usize];
        assert!(matches!(error(cut), FormatError::Truncated { .. } | FormatError::TrailingBytes { .. }));
    }
}

#[test]
fn unknown_files() {
    for bytes in [
        &b""[..],
        b"GGU",
        b"PK\x03\x04 a zip file",
        &[0; 4096],
        &[0xff; 4096],
        b"{\"model_type\": \"llama\"}",
    ] {
        assert!(matches!(detect(bytes), Err(FormatError::Unknown { .. })), "{bytes:?}");
    }
    assert_eq!(detect(b"GGUF\x03\0\0\0").unwrap(), FileKind::Gguf);
    assert_eq!(detect(b"\x02\0\0\0\0\0\0\0{}").unwrap(), FileKind::Safetensors);
    assert!(matches!(Checkpoint::parse(b"GGUF\x03\0\0\0"), Err(FormatError::Unknown { .. })));
    assert!(matches!(Checkpoint::parse(&sample::tokenizer()), Err(FormatError::Unknown { .. })));
    match detect(b"24ka\x01") {
        Err(FormatError::Truncated { what, .. }) => assert_eq!(what, "version"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn headers_to_write() {
    let odd = Header { n_heads: 8, ..tiny(true) };
    assert_field(llama2c::tensors(&odd, Version::V0).unwrap_err(), "dim", 0);
    let huge = Header { vocab_size: usize::MAX, ..tiny(true) };
    assert!(matches!(llama2c::tensors(&huge, Version::V1), Err(FormatError::Limit { .. })));
    // At every limit no size overflows.
    let widest =
        Header { dim: 1 << 20, hidden_dim: 1 << 20, vocab_size: 1 << 24, seq_len: 1 << 28, ..tiny(false) };
    assert_eq!(llama2c::tensors(&widest, Version::V0).unwrap().len(), 2 * 9 + 5);
    assert_eq!(tmac_v2::tensors(&widest, Variant::BitNet, &|_| false).unwrap().len(), 2 * 11 + 3);
    assert_field(llama2c::tensors(&tiny(true), Version::V2 { group: 0 }).unwrap_err(), "group_size", 37);
    let uneven = llama2c::tensors(&tiny(true), Version::V2 { group: 7 }).unwrap_err();
    assert!(matches!(uneven, FormatError::Tensor { tensor, .. } if tensor == "token_embedding"));
}

#[test]
fn vocabularies() {
    let whole = sample::tokenizer();
    let parse = |bytes: &[u8]| tokenizer_file::parse(bytes).unwrap_err();
    assert!(matches!(parse(b"\x01\0"), FormatError::Truncated { .. }));
    assert_field(parse(b"\x01\0\0\0"), "vocabulary", 4);
    assert_field(parse(&with_i32(whole.clone(), 0, 0)), "max_token_length", 0);
    assert_field(parse(&with_i32(whole.clone(), 0, -1)), "max_token_length", 0);
    assert_field(parse(&with_i32(whole.clone(), 0, 5)), "length of token 2", 34);
    assert_field(parse(&with_i32(whole.clone(), 8, -1)), "length of token 0", 8);
    assert_field(parse(&with_i32(whole.clone(), 4, f32::NAN.to_bits() as i32)), "score of token 0", 4);
    assert_field(parse(&with_i32(whole.clone(), 4, f32::INFINITY.to_bits() as i32)), "score of token 0", 4);
    match parse(&whole[..whole.len() - 1]) {
        FormatError::Truncated { what, end, .. } => {
            assert_eq!((what.as_str(), end), ("bytes of token 262", whole.len() as u64))
        }
        other => panic!("{other:?}"),
    }
}
