//! Decoding allocates nothing: neither the forward pass on its threads, nor the sampler, nor the text.
#![cfg(test)]

use std::alloc::System;
use std::ops::ControlFlow;
use std::path::Path;

use adapters::{ALL, adapter};
use engine::generate::{GenerateOptions, generate};
use engine::sampler::Sampling;
use engine::{KvType, LoadOptions, Model, Sequence};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

mod adapters;
#[path = "../../kernels/tests/data/mod.rs"]
mod data;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TOKENS: usize = 200;

/// A llama2.c checkpoint (version 0) of random weights, its matrices large enough to be shared among threads.
fn checkpoint(path: &Path) {
    let (dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len) = (256, 704, 2, 4, 2, 512, 512);
    let header = [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len];
    let kv_dim = dim / n_heads * n_kv_heads;
    let per_layer = 2 * dim + 2 * dim * dim + 2 * dim * kv_dim + 3 * dim * hidden_dim;
    let floats = vocab_size * dim + n_layers * per_layer + dim + seq_len * dim / n_heads;
    let mut state = 1u32;
    let weights = (0..floats).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 * 0.1 - 0.1
    });
    let mut bytes: Vec<u8> = header.iter().flat_map(|x: &i32| x.to_le_bytes()).collect();
    bytes.extend(weights.flat_map(f32::to_le_bytes));
    std::fs::write(path, bytes).unwrap();
}

/// Allocations while the last [`TOKENS`] of a long answer are made.
fn allocations(model: &Model, sampling: Sampling) -> usize {
    let mut sequence = Sequence::new(model, 400).unwrap();
    let options = GenerateOptions {
        max_tokens: Some(TOKENS + 100),
        sampling,
        stop: vec!["never to be seen".to_owned()],
        ignore_eos: true,
        draft: 0,
    };
    let (mut region, mut count, mut n) = (Region::new(ALLOCATOR), usize::MAX, 0);
    let prompt: Vec<u32> = (1..90).collect();
    generate(model, &mut sequence, &prompt, &options, &mut |_| {
        n += 1;
        match n {
            100 => region = Region::new(ALLOCATOR),
            300 => {
                let change = region.change();
                count = change.allocations + change.reallocations;
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(n, TOKENS + 100);
    count
}

// One test, so that nothing else allocates meanwhile.
#[test]
fn two_hundred_tokens_are_decoded_without_an_allocation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    checkpoint(&path);
    let penalties =
        Sampling { repetition_penalty: 1.1, top_k: 0, top_p: 0.9, min_p: 0.01, ..Sampling::default() };
    for (threads, kv_type) in [(1, KvType::F32), (2, KvType::F16), (2, KvType::I8)] {
        let options = LoadOptions {
            threads: Some(threads),
            kv_type,
            tokenizer: data::path("llama2c/tok512.bin"),
            ..LoadOptions::default()
        };
        let model = Model::load(&path, &options).unwrap();
        for sampling in [Sampling::greedy(), Sampling::default(), penalties.clone()] {
            // A thread that the system lets run late makes its own buffers late: the best of three runs counts.
            let least = (0..3).map(|_| allocations(&model, sampling.clone())).min();
            assert_eq!(least, Some(0), "{threads} threads, {kv_type:?}");
        }
        let adapted = folder.path().join("adapter");
        adapter(&adapted, &model, &ALL, 1.0);
        let model = Model::load(&path, &LoadOptions { adapter: Some(adapted), ..options }).unwrap();
        let least = (0..3).map(|_| allocations(&model, Sampling::greedy())).min();
        assert_eq!(least, Some(0), "{threads} threads, {kv_type:?}, with an adapter");
    }
}
