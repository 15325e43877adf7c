//! Models that cannot be compared.

use std::fs;

use super::{compare, exact};
use crate::helpers::{Folder, ours, shared, with_tokenizer};

#[test]
fn other_models_are_named_with_what_differs() {
    for (a, b, want) in [
        ("qwen2-tiny", "qwen3-tiny", "architecture is qwen3, the original's is qwen2"),
        ("tiny-gguf/qwen3-tiny.gguf", "llama3-scaled-tiny", "architecture is llama"),
    ] {
        let refused = compare(&ours(a), &[&ours(b)], exact(None), None).unwrap_err().to_string();
        assert!(refused.contains(want) && refused.contains(b), "{refused}");
    }
    let (Some(a), Some(b)) = (shared("llama2c/stories260K.bin"), shared("golden/llama-tiny64")) else {
        return;
    };
    let refused = compare(&a, &[&b], exact(None), None).unwrap_err().to_string();
    assert!(refused.contains("llama-tiny64: hidden_dim is 176, the original's is 172"), "{refused}");
    let refused = compare(&ours("llama3-scaled-tiny"), &[&a], exact(None), None).unwrap_err().to_string();
    assert!(refused.contains("vocab_size is 512, the original's is 128"), "{refused}");
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let Some(original) = shared("llama2c/stories260K.bin") else { return };
    let folder = Folder::new();
    let broken = folder.path("broken.bin");
    let mut bytes = fs::read(&original).unwrap();
    // Row 3 of the embedding, and row 2 of wq in layer 0, which lies behind the embedding and the first norms.
    for (float, want) in
        [(3 * 64 + 5, "token_embedding: row 3"), (512 * 64 + 5 * 64 + 2 * 64, "layers.0.wq: row 2")]
    {
        let at = 28 + 4 * float;
        let kept: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        for value in [f32::NAN, f32::NEG_INFINITY] {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            fs::write(&broken, &bytes).unwrap();
            for (a, b) in [(&original, &broken), (&broken, &original)] {
                let refused = compare(a, &[b], exact(None), None).unwrap_err().to_string();
                let want = format!("broken.bin: tensor {want} holds NaN or infinity");
                assert!(refused.contains(&want), "{refused}");
            }
        }
        bytes[at..at + 4].copy_from_slice(&kept);
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let Some(original) = shared("llama2c/stories260K.bin") else { return };
    let folder = Folder::new();
    let options = with_tokenizer(shared("llama2c/tok512.bin").unwrap());
    let (gguf, _) = folder.convert(&original, "stories.gguf", &options);
    let mut bytes = fs::read(&gguf).unwrap();
    // The directory has each name once.
    let name = b"blk.2.ffn_down.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at + 4] = b'9';
    fs::write(&gguf, bytes).unwrap();
    let refused = compare(&original, &[&gguf], exact(None), None).unwrap_err().to_string();
    assert!(refused.contains("stories.gguf") && refused.contains("blk.2.ffn_down.weight"), "{refused}");
}

/// Files of one name would be one line of the curve.
#[test]
fn models_of_one_name_are_called_by_their_paths() {
    let (a, b) = (ours("llama3-scaled-tiny"), ours("tiny-gguf/llama3-scaled-tiny.gguf"));
    let names = |found: crate::Analysis| -> Vec<String> {
        let quantized = found.quantized.into_iter().map(|report| report.size.name);
        std::iter::once(found.original.name).chain(quantized).collect()
    };
    let found = names(compare(&a, &[&b], exact(None), None).unwrap());
    assert_eq!(found, ["llama3-scaled-tiny", "llama3-scaled-tiny.gguf"]);
    let found = names(compare(&a, &[&b, &b], exact(None), None).unwrap());
    assert_eq!(found, ["llama3-scaled-tiny", b.to_str().unwrap(), b.to_str().unwrap()]);
}

#[test]
fn texts_that_cannot_be_run_are_refused() {
    let Some(original) = shared("llama2c/stories260K.bin") else { return };
    let tokenizer = shared("llama2c/tok512.bin");
    let text =
        |text: &str, load| compare(&original, &[&original], load, Some((text, 64))).unwrap_err().to_string();
    assert!(text("Once", exact(tokenizer)).contains("tokens: at least 128 are needed"));
    assert!(text("Once", exact(None)).contains("no tokenizer"));
}
