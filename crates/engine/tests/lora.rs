//! Low-rank adapters beside the weights: PEFT's numbers, the merged model's, and those of neighbours without them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests stand outside #[test] functions"
)]

mod adapters;
mod data;
#[path = "../../kernels/tests/npz/mod.rs"]
mod npz;

use std::path::{Path, PathBuf};

use adapters::{ALL, adapter};
use engine::scheduler::{Event, Job, Limits, Scheduler};
use engine::{ActivationMode, KernelFamily, KvType, LoadOptions, Model, Sequence};
use kernels::row::RowType;
use npz::Npz;

fn exact(adapter: Option<PathBuf>) -> LoadOptions {
    LoadOptions {
        adapter,
        activations: ActivationMode::F32,
        kernel: KernelFamily::Reference,
        kv_type: KvType::F32,
        threads: Some(2),
        ..LoadOptions::default()
    }
}

/// Logits of each token, one behind the other.
fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut sequence = Sequence::new(model, ids.len()).unwrap();
    let mut all = Vec::new();
    let mut each = |_: usize, logits: &[f32]| {
        all.extend_from_slice(logits);
        Ok(())
    };
    sequence.forward_all(ids, &mut each).unwrap();
    all
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_are_those_of_peft_whatever_the_order_of_rows() {
    let Some(folder) = data::path("golden/stories260K-lora") else { return };
    let mut golden = Npz::open_path(&folder.join("golden.npz"));
    let ids = golden.u32s("train_ids");
    for base in ["golden/stories260K-hf", "llama2c/stories260K.bin"] {
        let Some(path) = data::path(base) else { return };
        for (adapter, expected) in [("adapter_init", "logits_init"), ("adapter_trained", "logits_trained")] {
            let model = Model::load(&path, &exact(Some(folder.join(adapter)))).unwrap();
            let away = furthest(&logits(&model, &ids), &golden.f32s(expected));
            println!("{base}, {adapter}: {away:e}");
            assert!(away < 1e-4, "{base}, {adapter}: {away:e}");
        }
    }
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name)
}

#[test]
fn unmerged_is_merged() {
    let ids: Vec<u32> = (0..60).map(|i| i * 7 % 50).collect();
    let folder = tempfile::tempdir().unwrap();
    // Elements half a head apart, and neighbours.
    for name in ["qwen2-tiny", "tiny-gguf/llama3-scaled-tiny.gguf"] {
        let path = testdata(name);
        let plain = Model::load(&path, &exact(None)).unwrap();
        for (i, targets) in [&ALL[..], &ALL[1..2]].into_iter().enumerate() {
            let folder = folder.path().join(format!("{}-{i}", name.len()));
            adapter(&folder, &plain, targets, 1.0);
            let beside = Model::load(&path, &exact(Some(folder.clone()))).unwrap();
            let mut merged = Model::load(&path, &exact(None)).unwrap();
            merged.merge_adapter(&folder, RowType::F32).unwrap();
            let beside = logits(&beside, &ids);
            let (from_merged, from_plain) =
                (furthest(&beside, &logits(&merged, &ids)), furthest(&beside, &logits(&plain, &ids)));
            println!("{name}: {from_merged:e} from the merged model, {from_plain} from that without");
            assert!(from_merged < 1e-4 && from_plain > 0.01, "{name}: {from_merged:e}, {from_plain}");
        }
    }
}

/// Tokens that each job gets.
fn answers(model: &Model, adapters: &[Option<usize>], prompt: &[u32]) -> Vec<Vec<u32>> {
    let limits = Limits { context: 200, running: 8, waiting: 8, kv_bytes: 1 << 24 };
    let mut scheduler = Scheduler::new(model, limits).unwrap();
    let mut answers = vec![Vec::new(); adapters.len()];
    // One after the other, and then together: pages of the same beginning are there to be taken.
    for round in 0..2 {
        answers.iter_mut().for_each(Vec::clear);
        for (id, &adapter) in (0..).zip(adapters) {
            let sampling = engine::sampler::Sampling::greedy();
            let prompt = prompt.to_vec();
            let job = Job {
                id,
                prompt,
                adapter,
                sampling,
                max_tokens: Some(20),
                ignore_eos: true,
                ..Job::default()
            };
            scheduler.submit(job).unwrap();
            let mut run = |scheduler: &mut Scheduler<'_>| {
                while scheduler
                    .step(&mut |id, event| {
                        if let Event::Token { id: token, .. } = event {
                            answers[id as usize].push(token);
                        }
                    })
                    .is_some()
                {}
            };
            if round == 0 || id as usize + 1 == adapters.len() {
                run(&mut scheduler);
            }
        }
    }
    answers
}

#[test]
fn sequences_with_different_adapters_run_side_by_side_as_if_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = testdata("qwen2-tiny");
    let options = LoadOptions { threads: Some(2), kv_type: KvType::F32, ..LoadOptions::default() };
    let plain = Model::load(&path, &options).unwrap();
    let [one, two] = [1.0, 2.0].map(|seed| {
        let folder = folder.path().join(seed.to_string());
        adapter(&folder, &plain, &ALL, seed);
        folder
    });
    // Longer than two pages of the cache.
    let prompt: Vec<u32> = (0..150).map(|i| i * 7 % 50).collect();
    let mut model = Model::load(&path, &options).unwrap();
    assert_eq!((model.add_adapter(&one).unwrap(), model.add_adapter(&two).unwrap()), (0, 1));
    let together = answers(&model, &[None, Some(0), Some(1), Some(0), None], &prompt);
    let alone = [None, Some(one), Some(two)].map(|adapter| {
        let model = Model::load(&path, &LoadOptions { adapter, ..options.clone() }).unwrap();
        answers(&model, &[None], &prompt).remove(0)
    });
    assert_eq!(together, [0, 1, 2, 1, 0].map(|i: usize| alone[i].clone()));
    assert!(alone[0] != alone[1] && alone[1] != alone[2], "{alone:?}");
    let limits = Limits { context: 100, running: 1, waiting: 1, kv_bytes: 1 << 20 };
    let job = Job { prompt: vec![1], adapter: Some(2), ..Job::default() };
    let refused = Scheduler::new(&model, limits).unwrap().submit(job).unwrap_err();
    assert!(format!("{refused:?}").contains("the model has no adapter 2"), "{refused:?}");
}

#[test]
fn adapters_that_do_not_fit_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = testdata("qwen2-tiny");
    let plain = Model::load(&path, &exact(None)).unwrap();
    let says = || Model::load(&path, &exact(Some(folder.to_owned()))).unwrap_err().to_string();
    assert!(says().contains("adapter_config.json"));
    adapter(folder, &plain, &["q_proj"], 1.0);
    Model::load(&path, &exact(Some(folder.to_owned()))).unwrap();
    let config = folder.join("adapter_config.json");
    let good = std::fs::read_to_string(&config).unwrap();
    let with = |from: &str, to: &str| {
        std::fs::write(&config, good.replace(from, to)).unwrap();
        says()
    };
    assert!(with("\"q_proj\"", "\"q_proj\",\"k_proj\"").contains("k_proj.lora_A.weight is missing"));
    assert!(with("\"q_proj\"", "\"k_proj\"").contains("missing"));
    assert!(with("\"q_proj\"", "").contains("belongs to none of the model's linear layers"));
    assert!(with("LORA", "IA3").contains("peft_type \"IA3\" is not LORA"));
    assert!(with("\"r\":3", "\"r\":4").contains("shape"));
    std::fs::write(&config, &good).unwrap();
    let other = Model::load(&testdata("qwen3-tiny"), &exact(Some(folder.to_owned())));
    assert!(other.is_err(), "an adapter of another model");
}
