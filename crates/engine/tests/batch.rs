//! Several sequences in one pass: each gets the logits that it would get alone, bit for bit.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod data;

use std::path::{Path, PathBuf};

use engine::{Batch, EngineError, KvCache, KvType, LoadOptions, LogitsOf, MAX_BATCH, Model, Sequence, Slot};

fn load(path: &Path, threads: usize, kv_type: KvType) -> Model {
    Model::load(path, &LoadOptions { threads: Some(threads), kv_type, ..LoadOptions::default() }).unwrap()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// A text and the logits of each of its tokens, run alone and one by one.
struct Text {
    ids: Vec<u32>,
    expected: Vec<Vec<u32>>,
}

fn text(model: &Model, n: usize, seed: usize) -> Text {
    let ids: Vec<u32> = (0..n).map(|i| ((i * 7 + seed * 13 + 1) % model.config.vocab_size) as u32).collect();
    let mut sequence = Sequence::new(model, n).unwrap();
    let expected = ids.iter().map(|&id| bits(sequence.forward(&[id]).unwrap())).collect();
    Text { ids, expected }
}

/// Runs the texts together, each by its own number of tokens a step (the first in steps of one while others
/// bring pieces of prompts), and compares all logits.
fn together(model: &Model, texts: &[Text], strides: &[usize]) {
    let mut caches: Vec<KvCache> = texts.iter().map(|t| model.cache(t.ids.len()).unwrap()).collect();
    let mut batch = Batch::new(model, 8, 16);
    while caches.iter().any(|cache| cache.position() < cache.context()) {
        let (mut slots, mut rows) = (Vec::new(), Vec::new());
        for (i, cache) in caches.iter_mut().enumerate() {
            let left = &texts[i].ids[cache.position()..];
            if left.is_empty() {
                continue;
            }
            let ids = &left[..strides[i].min(left.len())];
            let logits = [LogitsOf::Last, LogitsOf::All, LogitsOf::None][(strides[i] + cache.position()) % 3];
            let slot = Slot { cache, ids, logits };
            let end = slot.cache.position() + ids.len();
            rows.extend((end - slot.rows()..end).map(|position| (i, position)));
            slots.push(slot);
        }
        let logits = batch.forward(&mut slots).unwrap();
        assert_eq!(logits.len(), rows.len() * model.config.vocab_size);
        for ((i, position), got) in rows.into_iter().zip(logits.chunks_exact(model.config.vocab_size)) {
            assert!(bits(got) == texts[i].expected[position], "text {i}, position {position}, {strides:?}");
        }
    }
}

fn models() -> Vec<PathBuf> {
    let ours = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name);
    let mut models = vec![ours("qwen3-tiny"), ours("gemma3-tiny")];
    models.extend(data::path("golden/bitnet-tiny64/packed-bitlinear"));
    models.extend(data::path("llama2c/stories260K.bin"));
    models
}

#[test]
fn a_sequence_among_others_gets_the_logits_that_it_gets_alone() {
    for path in models() {
        for kv_type in [KvType::F32, KvType::F16, KvType::I8] {
            let model = load(&path, 1, kv_type);
            let most = model.config.seq_len;
            let texts: Vec<Text> = [40, 150, 100, 7, 90]
                .into_iter()
                .enumerate()
                .map(|(i, n)| text(&model, n.min(most), i))
                .collect();
            for threads in [1, 2, 3, 5] {
                let model = load(&path, threads, kv_type);
                together(&model, &texts, &[1, 20, 12, 1, 30]);
                together(&model, &texts[..3], &[5, 1, 57]);
            }
        }
    }
}

#[test]
fn eight_sequences_decode_together() {
    let model = load(&models()[0], 2, KvType::F16);
    let texts: Vec<Text> = (0..8).map(|i| text(&model, 30 + i, i)).collect();
    together(&model, &texts, &[1; 8]);
}

fn slot<'s>(cache: &'s mut KvCache, ids: &'s [u32]) -> Slot<'s> {
    Slot { cache, ids, logits: LogitsOf::Last }
}

#[test]
fn batches_that_cannot_be_are_refused_and_change_nothing() {
    let model = load(&models()[0], 2, KvType::F16);
    let other = load(&models()[1], 1, KvType::F16);
    let mut batch = Batch::new(&model, 8, 16);
    let (mut a, mut b) = (model.cache(16).unwrap(), model.cache(16).unwrap());
    let mut foreign = other.cache(16).unwrap();
    let long = vec![1; MAX_BATCH];
    let vocab_size = model.config.vocab_size as u32;
    let mut refused = |slots: &mut [Slot<'_>]| batch.forward(slots).unwrap_err().to_string();
    assert!(refused(&mut [slot(&mut a, &[1, 2]), slot(&mut b, &[])]).contains("no tokens"));
    assert!(refused(&mut [slot(&mut a, &[1]), slot(&mut b, &long)]).contains("at most"));
    assert!(refused(&mut [slot(&mut a, &[1]), slot(&mut b, &long[1..])]).contains("do not fit"));
    assert!(refused(&mut [slot(&mut a, &[1]), slot(&mut b, &[vocab_size])]).contains("token id"));
    assert!(refused(&mut [slot(&mut a, &[1]), slot(&mut foreign, &[1])]).contains("another model"));
    assert_eq!((a.position(), b.position()), (0, 0));
    assert!(matches!(model.cache(0), Err(EngineError::Request(_))));
    assert!(batch.forward(&mut []).unwrap().is_empty());
}
