//! Every real file of the family is read as what it is, and written again byte for byte.

use std::path::{Path, PathBuf};

use formats::bitllama::{self, BitOrder};
use formats::checkpoint::Checkpoint;
use formats::detect::{FileKind, detect};
use formats::llama2c::Header;
use formats::{Layout, TensorType, tokenizer_file};

use crate::rewrite::rewrite;

/// The shared test data; `None`, said on stderr, where it is absent.
pub(crate) fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("EDGELLM_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no test data at {} (set EDGELLM_TEST_DATA)", folder.display());
    None
}

const STORIES: Header = Header {
    dim: 64,
    hidden_dim: 172,
    n_layers: 5,
    n_heads: 8,
    n_kv_heads: 4,
    vocab_size: 512,
    seq_len: 512,
    shared_classifier: true,
};

#[test]
fn stories_in_five_formats() {
    let Some(data) = data() else { return };
    for (file, kind) in [
        ("llama2c/stories260K.bin", FileKind::Llama2cV0),
        ("llama2c/stories260K.v1.bin", FileKind::Llama2cV1),
        ("golden/stories260K-quantized/stories260K.tmac.bin", FileKind::TmacV1),
        ("golden/stories260K-quantized/stories260K.tmac2.bin", FileKind::TmacV2),
        ("golden/stories260K-quantized/stories260K.q4.bin", FileKind::Int4),
    ] {
        let bytes = std::fs::read(data.join(file)).unwrap();
        assert_eq!(detect(&bytes).unwrap(), kind, "{file}");
        let checkpoint = Checkpoint::parse(&bytes).unwrap();
        assert_eq!(checkpoint.header, STORIES, "{file}");
        assert!(!checkpoint.bitnet && checkpoint.trailer.is_none(), "{file}");
        let wq = checkpoint.tensor("layers.4.wq").unwrap();
        assert_eq!(wq.shape, [64, 64], "{file}");
        let down = checkpoint.tensor("layers.0.w2").unwrap();
        assert_eq!(down.shape, [64, 172], "{file}");
        let norm = checkpoint.tensor("layers.2.rms_ffn").unwrap();
        assert_eq!((norm.shape.as_slice(), norm.bytes), ([64].as_slice(), 256), "{file}");
        assert_eq!(rewrite(&checkpoint, &bytes), bytes, "{file} is not written as it was read");
    }
}

/// v0 and v1 hold the same floats in another order.
#[test]
fn v0_and_v1_agree() {
    let Some(data) = data() else { return };
    let legacy = std::fs::read(data.join("llama2c/stories260K.bin")).unwrap();
    let versioned = std::fs::read(data.join("llama2c/stories260K.v1.bin")).unwrap();
    let (v0, v1) = (Checkpoint::parse(&legacy).unwrap(), Checkpoint::parse(&versioned).unwrap());
    assert_eq!(v0.tensors.len(), v1.tensors.len() + 2, "v0 has the two RoPE tables besides");
    for tensor in &v1.tensors {
        let old = v0.tensor(&tensor.name).unwrap();
        assert_eq!(old.shape, tensor.shape);
        let old = &legacy[old.range(legacy.len() as u64).unwrap()];
        assert_eq!(old, &versioned[tensor.range(versioned.len() as u64).unwrap()], "{}", tensor.name);
    }
}

/// The two orders of bitllama are told from the weights, and the two 3M files are one model.
#[test]
fn bitllama_in_both_orders() {
    let Some(data) = data() else { return };
    let read = |file: &str, order: BitOrder| {
        let bytes = std::fs::read(data.join("bitllama").join(file)).unwrap();
        assert_eq!(detect(&bytes).unwrap(), FileKind::Bitllama, "{file}");
        let checkpoint = Checkpoint::parse(&bytes).unwrap();
        let most_significant_first = order == BitOrder::MostSignificantFirst;
        let layout = checkpoint.tensor("layers.0.wq").unwrap().layout;
        assert_eq!(layout, Layout::TernaryScaled { most_significant_first }, "{file}");
        assert_eq!(checkpoint, bitllama::parse(&bytes, Some(order)).unwrap(), "{file}");
        (bytes, checkpoint)
    };
    let (_, small) = read("outmini_bit_1M_bit_model.bin", BitOrder::MostSignificantFirst);
    assert_eq!((small.header.dim, small.header.hidden_dim), (128, 256));
    let (most, model) = read("outmini_bit_3M_bit_model.bin", BitOrder::MostSignificantFirst);
    let (least, twin) = read("riscv_bin_model.bin", BitOrder::LeastSignificantFirst);
    assert_eq!((model.header.dim, model.header.hidden_dim), (256, 256));
    assert_eq!(model.header, twin.header);
    let reversed = |byte: u8| byte << 6 | (byte & 0x0c) << 2 | (byte & 0x30) >> 2 | byte >> 6;
    for (a, b) in model.tensors.iter().zip(&twin.tensors) {
        let (range, same) = (a.range(most.len() as u64).unwrap(), b.range(least.len() as u64).unwrap());
        assert_eq!(range, same);
        if a.layout == Layout::Rows(TensorType::F32) {
            assert_eq!(most[range.clone()], least[range], "{}", a.name);
            continue;
        }
        let (scale, codes) = most[range.clone()].split_at(4);
        let turned: Vec<u8> = scale.iter().copied().chain(codes.iter().map(|&byte| reversed(byte))).collect();
        assert_eq!(turned, least[range], "{}", a.name);
    }
}

#[test]
fn vocabularies() {
    let Some(data) = data() else { return };
    for (file, tokens, longest) in [("tok512.bin", 512, 7), ("tokenizer.bin", 32000, 27)] {
        let bytes = std::fs::read(data.join("llama2c").join(file)).unwrap();
        assert_eq!(detect(&bytes).unwrap(), FileKind::Tokenizer, "{file}");
        let vocab = tokenizer_file::parse(&bytes).unwrap();
        assert_eq!((vocab.tokens.len(), vocab.max_token_length), (tokens, longest), "{file}");
        assert_eq!(vocab.tokens[3], (b"<0x00>".as_slice(), 0.0), "{file}");
        let mut out = Vec::new();
        tokenizer_file::write(&mut out, &vocab).unwrap();
        assert!(out == bytes, "{file} is not written as it was read");
    }
}
