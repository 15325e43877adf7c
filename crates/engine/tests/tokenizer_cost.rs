//! What loading and using a tokenizer costs. The figures of the book: `cargo test --release -p engine --test tokenizer_cost --
//! --include-ignored --nocapture --test-threads 1`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers outside #[test] functions")]

use std::path::Path;
use std::time::Instant;

use engine::tokenizer::{EncodeOptions, Tokenizer};
use formats::gguf::Gguf;

mod data;

/// Anonymous memory of this process in KiB: what was allocated, without mapped files.
fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Loads a tokenizer, encodes `text`, says what that cost and returns the memory after it, in MB.
fn measure(what: &str, text: &str, load: impl FnOnce() -> Tokenizer) -> f64 {
    let before = anonymous_kib();
    let grown = || anonymous_kib().saturating_sub(before) as f64 / 1024.0;
    let start = Instant::now();
    let tokenizer = load();
    let (load_ms, load_mb) = (start.elapsed().as_secs_f64() * 1e3, grown());
    let start = Instant::now();
    let ids = tokenizer.encode(text, EncodeOptions::default()).unwrap();
    let rate = text.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
    let mb = grown();
    println!(
        "{what}: load {load_ms:.1} ms, {load_mb:.1} MB; {} bytes to {} tokens at {rate:.1} MB/s, then {mb:.1} MB",
        text.len(),
        ids.len()
    );
    mb
}

fn measure_gguf(name: &str, path: &Path, text: &str) -> f64 {
    let file = std::fs::read(path).unwrap();
    let gguf = Gguf::parse(&file).unwrap();
    measure(name, text, || Tokenizer::from_gguf(&gguf).unwrap())
}

/// The whole engine may take 1.15 x the model's file: its tokenizer must be small change.
#[test]
fn smollm2_takes_less_than_12_mb() {
    let (Some(path), Some(text)) = (data::model("smollm2.gguf"), data::path("text/wikitext2-test.txt"))
    else {
        return;
    };
    let text = std::fs::read_to_string(text).unwrap();
    let mb = measure_gguf("smollm2.gguf", &path, &text[..100_000]);
    assert!(mb < 12.0, "{mb} MB");
}

#[test]
#[ignore = "a measurement"]
fn cost() {
    let text = std::fs::read_to_string(data::path("text/wikitext2-test.txt").unwrap()).unwrap();
    for name in ["smollm2.gguf", "gemma3.gguf"] {
        if let Some(path) = data::model(name) {
            measure_gguf(name, &path, &text);
        }
    }
    if let Some(path) = data::path("vocab/ggml-vocab-llama-spm.gguf") {
        measure_gguf("llama-spm", &path, &text);
    }
    if let Some(path) = data::path("tokenizers/llama3_1_tokenizer.json") {
        let json = std::fs::read(path).unwrap();
        measure("llama3 tokenizer.json", &text, || Tokenizer::from_hf(&json, None).unwrap());
    }
}
