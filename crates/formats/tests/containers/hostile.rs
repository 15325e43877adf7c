//! Damaged files: every answer lies inside the file and can be walked to the end, or is a typed error.

use formats::gguf::{Array, Gguf, Value};
use formats::hf::HfConfig;
use formats::{TensorInfo, safetensors_file};

use crate::raw::{self, Random};
use crate::{data, round_trip};

const FLIPS: usize = 10_000;
const TRUNCATIONS: usize = 2_000;

fn walk(array: &Array<'_>) {
    assert_eq!(array.values().count(), array.len());
    for value in array.values() {
        assert_eq!(value.value_type(), array.element_type());
        if let Value::Array(inner) = value {
            walk(&inner);
        }
    }
}

fn inside(tensors: &[TensorInfo], bytes: &[u8]) {
    let mut ranges: Vec<_> = tensors.iter().map(|t| t.range(bytes.len() as u64).unwrap()).collect();
    ranges.sort_by_key(|r| r.start);
    assert!(ranges.iter().all(|r| !r.is_empty()));
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "tensors overlap");
}

fn judge_gguf(bytes: &[u8]) -> bool {
    let Ok(gguf) = Gguf::parse(bytes) else { return false };
    inside(&gguf.tensors, bytes);
    for entry in &gguf.metadata {
        if let Value::Array(array) = entry.value {
            walk(&array);
        }
    }
    true
}

fn judge_safetensors(bytes: &[u8]) -> bool {
    let Ok(tensors) = safetensors_file::parse(bytes) else { return false };
    inside(&tensors, bytes);
    true
}

/// Flips one to four bits at a time in the first `reach` bytes; says how many files were still accepted.
fn flip(mut bytes: Vec<u8>, reach: usize, judge: fn(&[u8]) -> bool) -> usize {
    let mut random = Random(1);
    let mut accepted = 0;
    for _ in 0..FLIPS {
        let flips: Vec<_> = (0..=random.below(4)).map(|_| (random.below(reach), random.below(8))).collect();
        flips.iter().for_each(|&(at, bit)| bytes[at] ^= 1 << bit);
        accepted += usize::from(judge(&bytes));
        flips.iter().for_each(|&(at, bit)| bytes[at] ^= 1 << bit);
    }
    accepted
}

#[test]
fn flipped_bits() {
    let gguf = raw::gguf();
    let header = gguf.len() - 258;
    let accepted = flip(gguf, header, judge_gguf);
    assert!((100..FLIPS / 2).contains(&accepted), "{accepted} of {FLIPS} damaged GGUF files accepted");
    let safetensors = raw::small_safetensors();
    let header = safetensors.len() - 32;
    let accepted = flip(safetensors, header, judge_safetensors);
    assert!((10..FLIPS / 2).contains(&accepted), "{accepted} of {FLIPS} damaged safetensors accepted");
}

#[test]
fn flipped_values() {
    // Whatever is still accepted means what its bytes say: its metadata are written again as they were.
    let mut bytes = raw::gguf();
    let mut random = Random(5);
    for _ in 0..FLIPS {
        let (at, bit) = (random.below(bytes.len()), random.below(8));
        bytes[at] ^= 1 << bit;
        if let Ok(gguf) = Gguf::parse(&bytes) {
            let again = round_trip::rewrite(&gguf, &bytes);
            let end = gguf.metadata.last().unwrap().offset as usize;
            assert_eq!(again[24..end], bytes[24..end], "bit {bit} of byte {at}");
        }
        bytes[at] ^= 1 << bit;
    }
}

#[test]
fn truncations() {
    for (bytes, judge) in
        [(raw::gguf(), judge_gguf as fn(&[u8]) -> bool), (raw::small_safetensors(), judge_safetensors)]
    {
        assert!(judge(&bytes));
        for len in 0..bytes.len() {
            assert!(!judge(&bytes[..len]), "cut to {len} of {} bytes", bytes.len());
        }
    }
}

/// The first 16 kB hold every field but the vocabulary's later entries, which cost most of the time.
#[test]
fn real_gguf_cut_short() {
    let real = [data::model("smollm2.gguf"), data::path("vocab/ggml-vocab-llama-spm.gguf")];
    for path in real.into_iter().flatten() {
        let bytes = std::fs::read(path).unwrap();
        let mut random = Random(2);
        for i in 0..TRUNCATIONS {
            let len = random.below(if i % 20 == 0 { bytes.len() - 64 } else { 1 << 14 });
            assert!(!judge_gguf(&bytes[..len]), "cut to {len}");
        }
    }
}

/// Most flips leave the vocabulary of a real file a vocabulary, which is then walked to its end.
#[test]
fn real_gguf_with_flipped_bits() {
    let Some(path) = data::path("vocab/ggml-vocab-llama-spm.gguf") else { return };
    let mut bytes = std::fs::read(path).unwrap();
    let mut random = Random(3);
    let mut accepted = 0;
    for i in 0..200 {
        let reach = if i % 2 == 0 { 1024 } else { bytes.len() };
        let (at, bit) = (random.below(reach), random.below(8));
        bytes[at] ^= 1 << bit;
        accepted += usize::from(judge_gguf(&bytes));
        bytes[at] ^= 1 << bit;
    }
    assert!((20..200).contains(&accepted), "{accepted}");
}

#[test]
fn configs_with_flipped_bits() {
    let mut json = br#"{"model_type": "llama", "hidden_size": 64, "rope_parameters": {"rope_theta": 1e4},
        "eos_token_id": [1, 2], "layer_types": ["full_attention"], "rms_norm_eps": 1e-5}"#
        .to_vec();
    let mut random = Random(4);
    for _ in 0..FLIPS {
        let (at, bit) = (random.below(json.len()), random.below(8));
        json[at] ^= 1 << bit;
        if let Ok(config) = HfConfig::parse(&json) {
            assert!(config.rms_norm_eps.is_none_or(f64::is_finite));
        }
        json[at] ^= 1 << bit;
    }
    // Depth is the JSON parser's to bound: a stack must not run over.
    let deep = [b"[".repeat(1 << 20), b"]".repeat(1 << 20)].concat();
    assert!(HfConfig::parse(&deep).is_err());
}
