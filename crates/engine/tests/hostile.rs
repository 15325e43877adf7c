//! Damaged models: every one loads and runs, or is refused with an error; none panics, hangs or eats memory.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests stand outside #[test] functions"
)]

use std::path::{Path, PathBuf};

use engine::{EngineError, LoadOptions, Model, Sequence};

/// Bits flipped and places cut in all, over the files below.
const FLIPS: usize = 10_000;
const CUTS: usize = 2_000;

/// Folders of one model each, and the file of it that is damaged.
const FILES: [(&str, &str); 8] = [
    ("qwen2-tiny", "model.safetensors"),
    ("qwen2-tiny", "config.json"),
    ("qwen2-tiny", "tokenizer.json"),
    ("gemma3-tiny", "config.json"),
    ("llama3-scaled-tiny-sharded", "model.safetensors.index.json"),
    ("tiny-gguf", "llama3-scaled-tiny.gguf"),
    ("tiny-gguf", "qwen2-tiny.gguf"),
    ("tiny-gguf", "gemma3-tiny.gguf"),
];

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models")
}

/// A copy of a model's folder without its golden outputs.
fn copy(folder: &str) -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(models().join(folder)).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_none_or(|e| e != "npz") {
            std::fs::copy(entry.path(), target.path().join(entry.file_name())).unwrap();
        }
    }
    target
}

fn load_and_run(path: &Path) -> Result<(), EngineError> {
    let options = LoadOptions { threads: Some(1), ..LoadOptions::default() };
    let model = Model::load(path, &options)?;
    let mut sequence = Sequence::new(&model, 4.min(model.config.seq_len))?;
    sequence.forward(&[0, 1])?;
    Ok(())
}

fn noise() -> impl FnMut(usize) -> usize {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    }
}

#[test]
fn flipped_bits_and_cut_files_are_errors_or_models() {
    let mut random = noise();
    let (mut errors, mut loaded) = (0, 0);
    for (folder, name) in FILES {
        let copy = copy(folder);
        let file = copy.path().join(name);
        let path = if folder == "tiny-gguf" { file.clone() } else { copy.path().to_owned() };
        load_and_run(&path).unwrap();
        let original = std::fs::read(&file).unwrap();
        for i in 0..(FLIPS + CUTS) / FILES.len() {
            let mut bytes = original.clone();
            if i < FLIPS / FILES.len() {
                // Half of the flips in the first part, where the structure is.
                let end = if i % 2 == 0 { bytes.len() } else { bytes.len().min(4096) };
                bytes[random(end)] ^= 1 << random(8);
            } else {
                bytes.truncate(random(bytes.len()));
            }
            std::fs::write(&file, &bytes).unwrap();
            match load_and_run(&path) {
                Ok(()) => loaded += 1,
                Err(error) => {
                    errors += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    println!("{errors} refused, {loaded} loaded and ran");
    assert!(errors > CUTS && loaded > 0);
}

/// Replaces a tensor's first number in a safetensors file.
fn poison(folder: &Path, tensor: &str, value: f32) {
    let path = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let infos = formats::safetensors_file::parse(&bytes).unwrap();
    let at = infos.iter().find(|info| info.name == tensor).unwrap().offset as usize;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn nan_weights_are_named() {
    for (tensor, value) in [
        ("model.layers.1.mlp.down_proj.weight", f32::NAN),
        ("model.layers.0.self_attn.q_proj.weight", f32::INFINITY),
        ("model.norm.weight", f32::NAN),
    ] {
        let copy = copy("qwen2-tiny");
        poison(copy.path(), tensor, value);
        let error = load_and_run(copy.path()).unwrap_err().to_string();
        assert!(error.contains(tensor), "{error}");
    }
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let model = Model::load(&models().join("qwen2-tiny"), &LoadOptions::default()).unwrap();
    assert!(matches!(Sequence::new(&model, 0), Err(EngineError::Request(_))));
    assert!(matches!(Sequence::new(&model, usize::MAX), Err(EngineError::Request(_))));
    let mut sequence = Sequence::new(&model, 4).unwrap();
    assert!(matches!(sequence.forward(&[]), Err(EngineError::Request(_))));
    assert!(matches!(sequence.forward(&[u32::MAX]), Err(EngineError::TokenId { .. })));
    let error = sequence.forward(&[1; 5]).unwrap_err();
    assert!(matches!(error, EngineError::ContextFull { tokens: 5, context: 4 }), "{error}");
    assert!(sequence.forward(&[1; 4]).is_ok());
    assert!(matches!(sequence.forward(&[1]), Err(EngineError::ContextFull { .. })));
}

#[test]
fn an_unknown_architecture_is_refused_by_name_with_the_known_ones() {
    let copy = copy("qwen2-tiny");
    let path = copy.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap().replace("\"qwen2\"", "\"mamba\"");
    std::fs::write(&path, config).unwrap();
    let error = load_and_run(copy.path()).unwrap_err().to_string();
    for name in ["mamba", "llama", "qwen2", "qwen3", "bitnet", "bitllama", "gemma3"] {
        assert!(error.contains(name), "{error}");
    }
}
