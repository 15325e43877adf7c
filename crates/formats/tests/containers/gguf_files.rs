//! Real GGUF files: llama.cpp's vocabularies, SmolLM2 and Gemma 3.

use crate::data;

use formats::gguf::{Gguf, ValueType};
use formats::{Layout, TensorType};

#[test]
fn reads_every_vocabulary_of_llama_cpp() {
    let expected = [
        ("falcon", "falcon", "gpt2", 65024, 64784),
        ("gpt-2", "gpt2", "gpt2", 50257, 50000),
        ("llama-spm", "llama", "llama", 32000, 0),
        ("phi-3", "phi3", "llama", 32064, 0),
    ];
    for (file, architecture, kind, n_tokens, n_merges) in expected {
        let Some(path) = data::path(&format!("vocab/ggml-vocab-{file}.gguf")) else { return };
        let bytes = std::fs::read(path).unwrap();
        let gguf = Gguf::parse(&bytes).unwrap();
        assert_eq!(gguf.str("general.architecture").unwrap(), Some(architecture), "{file}");
        assert_eq!(gguf.str("tokenizer.ggml.model").unwrap(), Some(kind), "{file}");
        assert!(gguf.tensors.is_empty());
        let tokens = gguf.array("tokenizer.ggml.tokens").unwrap().unwrap();
        assert_eq!(tokens.strings().unwrap().len(), n_tokens, "{file}");
        assert_eq!(tokens.strings().unwrap().count(), n_tokens, "{file}");
        assert_eq!(
            gguf.array("tokenizer.ggml.token_type").unwrap().unwrap().i32s().unwrap().count(),
            n_tokens
        );
        let merges = gguf.array("tokenizer.ggml.merges").unwrap().map_or(0, |a| a.len());
        assert_eq!(merges, n_merges, "{file}");
    }
}

#[test]
fn reads_smollm2() {
    let Some(path) = data::model("smollm2.gguf") else { return };
    let bytes = std::fs::read(path).unwrap();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.version, 3);
    assert_eq!(gguf.str("general.architecture").unwrap(), Some("llama"));
    assert_eq!(gguf.u64("llama.block_count").unwrap(), Some(30));
    assert_eq!(gguf.f32("llama.rope.freq_base").unwrap(), Some(100_000.0));
    assert_eq!(gguf.tensors.len(), 272);
    let q = gguf.tensor("blk.0.attn_q.weight").unwrap();
    assert_eq!((q.shape.as_slice(), q.layout), ([576, 576].as_slice(), Layout::Rows(TensorType::Q4_1)));
    let end = gguf.tensors.iter().map(|t| t.offset + t.bytes).max();
    assert_eq!(end, Some(bytes.len() as u64));
}

#[test]
fn reads_gemma3() {
    let Some(path) = data::model("gemma3.gguf") else { return };
    let bytes = std::fs::read(path).unwrap();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.str("general.architecture").unwrap(), Some("gemma3"));
    let scores = gguf.array("tokenizer.ggml.scores").unwrap().unwrap();
    assert_eq!((scores.element_type(), scores.len()), (ValueType::F32, 262_144));
    assert_eq!(scores.f32s().unwrap().count(), 262_144);
    let end = gguf.tensors.iter().map(|t| t.offset + t.bytes).max();
    assert_eq!(end, Some(bytes.len() as u64));
}
