//! Small models of every architecture against the logits and greedy ids of transformers.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod data;
#[path = "../../kernels/tests/npz/mod.rs"]
mod npz;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use engine::generate::{GenerateOptions, generate};
use engine::sampler::Sampling;
use engine::{ActivationMode, KvType, LoadOptions, Model, Sequence};
use npz::Npz;

/// Exact arithmetic: f32 activations, f32 cache.
fn exact() -> LoadOptions {
    LoadOptions { activations: ActivationMode::F32, kv_type: KvType::F32, ..LoadOptions::default() }
}

fn ours(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name)
}

fn logits(model: &Model, ids: &[u32]) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    let mut sequence = Sequence::new(model, 64).unwrap();
    let mut keep = |_: usize, logits: &[f32]| {
        rows.push(logits.to_vec());
        Ok(())
    };
    sequence.forward_all(ids, &mut keep).unwrap();
    rows
}

fn greedy(model: &Model, prompt: &[u32], n: usize) -> Vec<u32> {
    let options = GenerateOptions {
        max_tokens: Some(n),
        sampling: Sampling::greedy(),
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let mut sequence = Sequence::new(model, 64).unwrap();
    generate(model, &mut sequence, prompt, &options, &mut |_| ControlFlow::Continue(())).unwrap().ids
}

/// Largest difference of each position.
fn differences(got: &[Vec<f32>], expected: &[Vec<f32>]) -> Vec<f32> {
    assert_eq!(got.len(), expected.len());
    let worst = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    got.iter().zip(expected).map(worst).collect()
}

#[test]
fn tiny_models_of_each_architecture_give_the_logits_of_transformers() {
    let golden_of = |name: &str| Npz::open_path(&ours(name).join("golden.npz"));
    for (model, golden) in [
        ("qwen2-tiny", "qwen2-tiny"),
        ("qwen3-tiny", "qwen3-tiny"),
        ("qwen3-tiny-bf16", "qwen3-tiny-bf16"),
        ("llama3-scaled-tiny", "llama3-scaled-tiny"),
        ("llama3-scaled-tiny-sharded", "llama3-scaled-tiny"),
        ("gemma3-tiny", "gemma3-tiny"),
        ("tiny-gguf/qwen2-tiny.gguf", "qwen2-tiny"),
        ("tiny-gguf/qwen3-tiny.gguf", "qwen3-tiny"),
        ("tiny-gguf/llama3-scaled-tiny.gguf", "llama3-scaled-tiny"),
        ("tiny-gguf/gemma3-tiny.gguf", "gemma3-tiny"),
    ] {
        let mut golden = golden_of(golden);
        let ids = golden.u32s("ids");
        let loaded = Model::load(&ours(model), &exact()).unwrap();
        let worst = differences(&logits(&loaded, &ids), &golden.f32_rows("logits"));
        let worst = worst.iter().fold(0.0f32, |m, &d| m.max(d));
        assert!(worst < 1e-3, "{model}: logits differ by {worst}");
        let expected = golden.u32s("greedy");
        let expected = expected.strip_prefix(&ids[..]).unwrap_or(&expected);
        assert_eq!(greedy(&loaded, &ids, expected.len()), expected, "{model}");
    }
}

#[test]
fn config_json_of_transformers_5_says_the_same() {
    for name in ["qwen2-tiny", "qwen3-tiny", "llama3-scaled-tiny", "gemma3-tiny"] {
        let folder = tempfile::tempdir().unwrap();
        for (from, to) in [("config-v5.json", "config.json"), ("model.safetensors", "model.safetensors")] {
            std::fs::copy(ours(name).join(from), folder.path().join(to)).unwrap();
        }
        let a = Model::load(&ours(name), &exact()).unwrap();
        let b = Model::load(folder.path(), &exact()).unwrap();
        assert_eq!(a.config, b.config, "{name}");
    }
}

/// BitNet rounds its activations: where one lies on a rounding edge, the last bits of the computation decide
/// which way it goes, and the logits after it move. Such positions are counted and named.
#[test]
fn bitnet_gives_the_logits_of_transformers_save_rounding_edges() {
    for kind in ["packed-autobitlinear", "packed-bitlinear", "online-f32", "master-f32"] {
        let folder = format!("golden/bitnet-tiny64/{kind}");
        let Some(path) = data::path(&folder) else { return };
        let file = if kind == "master-f32" { "golden_noquant.npz" } else { "golden.npz" };
        let mut golden = Npz::open_path(&path.join(file));
        for (activations, kv_type) in
            [(ActivationMode::F32, KvType::F32), (ActivationMode::Int8, KvType::F32)]
        {
            let options = LoadOptions { activations, kv_type, ..LoadOptions::default() };
            let model = Model::load(&path, &options).unwrap();
            let mut edges = Vec::new();
            for text in 0..2 {
                let ids = golden.u32s(&format!("ids{text}"));
                let worst = differences(&logits(&model, &ids), &golden.f32_rows(&format!("logits{text}")));
                edges.extend((0..worst.len()).filter(|&p| worst[p] > 1e-3).map(|p| (text, p, worst[p])));
            }
            println!("{kind} {activations:?}: {} of 30 positions on a rounding edge: {edges:?}", edges.len());
            assert!(edges.len() <= 3, "{kind} {activations:?}: {edges:?}");
            let prompt = golden.u32s("ids0");
            let expected = golden.u32s("greedy0");
            let expected = expected.strip_prefix(&prompt[..]).unwrap();
            assert_eq!(greedy(&model, &prompt, expected.len()), expected, "{kind} {activations:?}");
        }
    }
}

#[test]
fn tiny_llamas_give_the_logits_of_transformers() {
    for name in ["golden/llama-tiny64", "golden/llama-tiny64-tied"] {
        let Some(path) = data::path(name) else { return };
        let mut golden = Npz::open_path(&path.join("golden.npz"));
        let model = Model::load(&path, &exact()).unwrap();
        for text in 0..2 {
            let ids = golden.u32s(&format!("ids{text}"));
            let worst = differences(&logits(&model, &ids), &golden.f32_rows(&format!("logits{text}")));
            assert!(worst.iter().all(|&d| d < 1e-3), "{name}: {worst:?}");
        }
    }
}
