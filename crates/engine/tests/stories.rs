//! Real trained models against the texts and logits that other programs give.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

#[path = "../../kernels/tests/data/mod.rs"]
mod data;
#[path = "../../kernels/tests/npz/mod.rs"]
mod npz;

use std::ops::ControlFlow;

use engine::generate::{GenerateOptions, generate};
use engine::sampler::{Sampling, argmax};
use engine::tokenizer::EncodeOptions;
use engine::{ActivationMode, KvType, LoadOptions, Model, Sequence};

fn load(name: &str, options: LoadOptions) -> Option<Model> {
    let path = data::path(name)?;
    let tokenizer = options.tokenizer.clone().or(data::path("llama2c/tok512.bin"));
    Some(Model::load(&path, &LoadOptions { tokenizer, ..options }).unwrap())
}

/// 256 positions from BOS, as `run -t 0 -n 256`.
fn greedy(model: &Model) -> String {
    let mut sequence = Sequence::new(model, 256).unwrap();
    let options = GenerateOptions {
        max_tokens: Some(256),
        sampling: Sampling::greedy(),
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let prompt = tokenizer.encode("", EncodeOptions { add_special: true, parse_special: false }).unwrap();
    generate(model, &mut sequence, &prompt, &options, &mut |_| ControlFlow::Continue(())).unwrap().text
}

#[test]
fn stories260k_in_every_format_gives_the_text_of_run_c() {
    let Some(expected) = data::path("golden/stories260K-hf/runc_t0_n256.txt") else { return };
    let expected = std::fs::read_to_string(expected).unwrap();
    for name in ["llama2c/stories260K.bin", "llama2c/stories260K.v1.bin", "golden/stories260K-hf"] {
        for threads in [1, 2, 3] {
            let options = LoadOptions { threads: Some(threads), ..LoadOptions::default() };
            let model = load(name, options).unwrap();
            let text = greedy(&model);
            assert_eq!(text.trim_end(), expected.trim_end(), "{name} on {threads} threads");
        }
    }
}

/// A guess that is checked changes nothing, whatever the sampler.
#[test]
fn drafts_do_not_change_the_text() {
    let Some(model) = load("llama2c/stories260K.bin", LoadOptions::default()) else { return };
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let special = EncodeOptions { add_special: true, parse_special: false };
    for prompt in ["", "Lily and Tom went to the park. Lily and Tom", "One two three. One two three. One two"]
    {
        let prompt = tokenizer.encode(prompt, special).unwrap();
        for sampling in [Sampling::greedy(), Sampling { seed: 7, ..Sampling::default() }] {
            let run = |draft: usize, max_tokens: usize| {
                let mut sequence = Sequence::new(&model, 300).unwrap();
                let options = GenerateOptions {
                    max_tokens: Some(max_tokens),
                    sampling: sampling.clone(),
                    ignore_eos: true,
                    draft,
                    ..GenerateOptions::default()
                };
                let answer =
                    generate(&model, &mut sequence, &prompt, &options, &mut |_| ControlFlow::Continue(()));
                (answer.unwrap(), sequence.position())
            };
            for max_tokens in [1, 2, 50, 400] {
                let (plain, position) = run(0, max_tokens);
                for draft in [1, 4, 16] {
                    let (guessed, at) = run(draft, max_tokens);
                    assert_eq!((&guessed.ids, at), (&plain.ids, position), "{draft} {max_tokens}");
                    assert!(guessed.timings.accepted <= guessed.timings.drafted);
                }
            }
            assert!(run(4, 400).0.timings.accepted > 0);
        }
    }
}

#[test]
fn every_cache_type_and_batch_gives_nearly_the_same_logits() {
    let exact = LoadOptions { kv_type: KvType::F32, ..LoadOptions::default() };
    let Some(model) = load("llama2c/stories260K.bin", exact.clone()) else { return };
    let ids: Vec<u32> = (0..150).map(|i| 3 + i * 7 % 500).collect();
    let all = |model: &Model, chunk: usize| {
        let mut sequence = Sequence::new(model, 512).unwrap();
        let mut out = Vec::new();
        for ids in ids.chunks(chunk) {
            sequence
                .forward_all(ids, &mut |_, logits| {
                    out.push(logits.to_vec());
                    Ok(())
                })
                .unwrap();
        }
        out
    };
    let expected = all(&model, 150);
    assert_eq!(expected, all(&model, 1), "one token at a time gives the same bits");
    assert_eq!(expected, all(&model, 37));
    for (kv_type, tolerance) in [(KvType::F16, 0.02), (KvType::I8, 1.0)] {
        let model = load("llama2c/stories260K.bin", LoadOptions { kv_type, ..exact.clone() }).unwrap();
        let got = all(&model, 64);
        let worst = expected.iter().flatten().zip(got.iter().flatten()).map(|(a, b)| (a - b).abs());
        let worst = worst.fold(0.0, f32::max);
        assert!(worst > 0.0 && worst < tolerance, "{kv_type:?}: {worst}");
        let same = expected.iter().zip(&got).filter(|(a, b)| argmax(a) == argmax(b)).count();
        assert!(same * 100 >= 97 * expected.len(), "{kv_type:?}: {same} of {}", expected.len());
    }
}

#[test]
fn activations_f32_is_the_default_of_float_models() {
    let Some(a) = load("llama2c/stories260K.bin", LoadOptions::default()) else { return };
    let exact = LoadOptions { activations: ActivationMode::F32, ..LoadOptions::default() };
    let b = load("llama2c/stories260K.bin", exact).unwrap();
    let run = |m: &Model| Sequence::new(m, 8).unwrap().forward(&[1, 403, 407]).unwrap().to_vec();
    assert_eq!(run(&a), run(&b));
}
