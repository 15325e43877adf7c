//! What the program says to files and requests that are wrong: exit code 1, one line that names the place, no panic.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod data;

use std::fs;

use data::{edgellm, own, shared};
use predicates::prelude::*;
use predicates::str::{contains, starts_with};

fn fails(args: &[&str], parts: &[&str]) {
    let output =
        edgellm(args).assert().code(1).stdout("").stderr(starts_with("error: ")).get_output().clone();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{args:?}: no {part:?} in\n{stderr}");
    }
    let lines: Vec<_> = stderr.lines().collect();
    assert!(lines.len() <= 2 && lines[1..].iter().all(|line| line.starts_with("hint: ")), "{stderr}");
}

#[test]
fn a_model_that_is_not_there() {
    fails(
        &["inspect", "no-such-model.gguf"],
        &["no-such-model.gguf", "hint: ", "hf:owner/repo", "qwen2.5-0.5b"],
    );
    fails(
        &["inspect", "qwen2.5-0.5b"],
        &["not in the cache", "hint: get it with: edgellm pull qwen2.5-0.5b"],
    );
    fails(&["inspect", "hf:owner/repo"], &["hf:owner/repo", "HF_HUB_OFFLINE"]);
    fails(&["inspect", "hf:owner"], &["hf:owner", "hint: write hf:owner/repo"]);
}

#[test]
fn files_that_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in
        [("empty", &b""[..]), ("text", b"Once upon a time there was no model here."), ("gguf", b"GGUF")]
    {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        fails(&["inspect", path.to_str().unwrap()], &[path.to_str().unwrap()]);
    }
    fails(&["inspect", folder.path().to_str().unwrap()], &["config.json"]);
}

#[test]
fn a_file_that_was_cut_names_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(own("models/tiny-gguf/qwen3-tiny.gguf")).unwrap();
    let path = folder.path().join("cut.gguf");
    fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    fails(&["generate", path.to_str().unwrap(), "--ids", "1"], &["cut.gguf", "tensor"]);
    let Some(stories) = shared("llama2c/stories260K.bin") else {
        return;
    };
    let whole = fs::read(stories).unwrap();
    let path = folder.path().join("cut.bin");
    fs::write(&path, &whole[..500_000]).unwrap();
    fails(&["generate", path.to_str().unwrap(), "--ids", "1"], &["cut.bin", "500000"]);
}

#[test]
fn an_unknown_architecture_is_refused_with_the_list_of_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        fs::read_to_string(own("models/qwen3-tiny/config.json")).unwrap().replace("\"qwen3\"", "\"mamba\"");
    fs::write(folder.path().join("config.json"), config).unwrap();
    fs::copy(own("models/qwen3-tiny/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    fails(
        &["inspect", folder.path().to_str().unwrap()],
        &["mamba", "llama", "qwen2", "qwen3", "bitnet", "gemma3"],
    );
}

#[test]
fn requests_that_do_not_fit_the_model() {
    let model = own("models/qwen3-tiny");
    fails(&["generate", &model, "--ids", "1,500"], &["500", "128"]);
    fails(&["generate", &model, "--prompt", "x"], &["no tokenizer", "-z"]);
    fails(&["generate", &model, "--ids", "1", "--threads", "0"], &["threads"]);
    fails(&["generate", &model, "--ids", "1", "-p", "1.5"], &["top_p", "1.5"]);
    fails(&["generate", &model, "--ids", "1", "--logit-bias", "999=1"], &["999"]);
    let long = vec!["1"; 60_000].join(",");
    fails(&["generate", &model, "--ids", &long, "-n", "1"], &["60000 tokens do not fit"]);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let (Some(stories), Some(tokenizer)) =
        (shared("llama2c/stories260K.bin"), shared("llama2c/tokenizer.bin"))
    else {
        return;
    };
    fails(&["generate", &stories, "-z", &tokenizer, "--prompt", "Once"], &["tokenizer", "32000", "512"]);
}

/// A copy of qwen3-tiny with NaN as the first value of a tensor.
fn with_nan(tensor: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(own("models/qwen3-tiny/config.json"), folder.path().join("config.json")).unwrap();
    let mut bytes = fs::read(own("models/qwen3-tiny/model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let directory: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let at = 8 + header + directory[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    folder
}

#[test]
fn nan_weights_are_found_by_name() {
    let norm = with_nan("model.layers.1.input_layernorm.weight");
    fails(
        &["generate", norm.path().to_str().unwrap(), "--ids", "1,2,3"],
        &["model.layers.1.input_layernorm.weight", "NaN"],
    );
    let matrix = with_nan("model.layers.1.mlp.up_proj.weight");
    fails(
        &["generate", matrix.path().to_str().unwrap(), "--ids", "1,2,3"],
        &["not finite", "up_proj", "row 0"],
    );
}

#[test]
fn texts_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("binary.txt");
    fs::write(&binary, b"abc\xff\xfe").unwrap();
    let (binary, model) = (binary.to_str().unwrap(), own("models/qwen2-tiny"));
    fails(&["eval", "perplexity", &model, "--file", binary], &["binary.txt", "UTF-8"]);
    fails(&["eval", "perplexity", &model, "--file", "no-such-file"], &["no-such-file"]);
    let short = folder.path().join("short.txt");
    fs::write(&short, "Too short.").unwrap();
    fails(&["eval", "perplexity", &model, "--file", short.to_str().unwrap()], &["tokens"]);
    let mut command = edgellm(&["generate", &model, "--prompt", "-"]);
    command
        .write_stdin(&b"\xff"[..])
        .assert()
        .code(1)
        .stderr(contains("UTF-8").and(contains("standard input")));
}
