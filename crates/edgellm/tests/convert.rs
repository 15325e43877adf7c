//! `edgellm convert`: the same numbers in another container.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod data;

use std::fs;
use std::path::Path;
use std::process::Command as Process;

use data::{comma, edgellm, golden_ids, json, npy_values, own, shared, stdout};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

/// Converts and gives the path of the result.
fn convert(input: &str, folder: &TempDir, name: &str, options: &[&str]) -> String {
    let output = folder.path().join(name).to_str().unwrap().to_owned();
    assert_eq!(stdout(&[&["convert", input, &output], options].concat()), format!("{output}\n"));
    output
}

/// Logits of `ids`, computed in f32 throughout.
fn logits(model: &str, ids: &[u32]) -> Vec<f32> {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("logits.npy").to_str().unwrap().to_owned();
    let exact = ["--activations", "f32", "--kv-cache", "f32", "--threads", "1"];
    let ids = comma(ids);
    stdout(&[&["eval", "logits", model, "--ids", &ids, "--output", &output][..], &exact].concat());
    npy_values(&fs::read(output).unwrap()).into_iter().map(f32::from_le_bytes).collect()
}

fn assert_same_logits(one: &str, other: &str, ids: &[u32]) {
    let (one_logits, other_logits) = (logits(one, ids), logits(other, ids));
    assert_eq!(one_logits.len(), other_logits.len());
    let far = one_logits.iter().zip(&other_logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // Permuted rows change the order of sums, nothing else.
    assert!(far < 1e-4, "{one} and {other} are {far} apart");
}

/// The v1 file was written by llama2.c's own export: ours has the same bytes, from v0 and from Hugging Face's names and
/// pairing.
#[test]
fn llama2c_v1_is_byte_for_byte_that_of_llama2c() {
    let folder = TempDir::new().unwrap();
    for source in ["llama2c/stories260K.bin", "golden/stories260K-hf"] {
        let (Some(source), Some(expected)) = (shared(source), shared("llama2c/stories260K.v1.bin")) else {
            return;
        };
        let written = convert(&source, &folder, "stories.v1.bin", &["--to", "llama2c-v1"]);
        assert!(fs::read(written).unwrap() == fs::read(expected).unwrap(), "{source}");
    }
}

/// v0 and T-MAC v2 carry RoPE tables that nobody reads; their last bits depend on who computed cos and sin.
#[test]
fn formats_with_rope_tables_differ_in_those_only() {
    let folder = TempDir::new().unwrap();
    for (source, expected, name, container) in [
        ("llama2c/stories260K.v1.bin", "llama2c/stories260K.bin", "a.bin", "llama2c"),
        (
            "golden/stories260K-quantized/stories260K.tmac2.bin",
            "golden/stories260K-quantized/stories260K.tmac2.bin",
            "b.bin",
            "tmac2",
        ),
    ] {
        let (Some(source), Some(expected)) = (shared(source), shared(expected)) else {
            return;
        };
        let written = fs::read(convert(&source, &folder, name, &["--to", container])).unwrap();
        let expected = fs::read(expected).unwrap();
        let different: Vec<usize> =
            (0..expected.len()).filter(|&i| written.get(i) != Some(&expected[i])).collect();
        // The tables, 512 positions x 4 pairs, cos and sin, are the last tensors of these files.
        let tables = expected.len() - 2 * (512 * 4 * 4 + 1);
        assert!(different.iter().all(|&i| i >= tables), "{container}: {:?}", different.first());
        for &i in &different {
            let at = expected.len() - (expected.len() - i).next_multiple_of(4);
            let value = |bytes: &[u8]| f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            if container == "llama2c" {
                assert!((value(&written) - value(&expected)).abs() < 1e-4, "byte {i}");
            }
        }
        assert!(different.len() < 1000, "{}", different.len());
    }
}

#[test]
fn gguf_keeps_the_numbers_of_hugging_face_folders() {
    let folder = TempDir::new().unwrap();
    for name in
        ["qwen2-tiny", "qwen3-tiny", "qwen3-tiny-bf16", "llama3-scaled-tiny", "llama3-scaled-tiny-sharded"]
    {
        let source = own(&format!("models/{name}"));
        let written = convert(&source, &folder, &format!("{name}.gguf"), &[]);
        let ids = golden_ids(&own(&format!("models/{name}/golden.npz")), "ids");
        assert_same_logits(&source, &written, &ids);
    }
    let report = json(&["inspect", folder.path().join("qwen3-tiny-bf16.gguf").to_str().unwrap(), "--json"]);
    let kept = report["tensors"].as_array().unwrap().iter().any(|tensor| tensor["type"] == "BF16");
    assert!(kept, "bf16 rows stay bf16");
}

#[test]
fn quantized_and_ternary_files_keep_their_numbers() {
    let folder = TempDir::new().unwrap();
    let ids: Vec<u32> = (1..60).map(|i| i * 7 % 500).collect();
    for (source, name) in [
        ("golden/stories260K-quantized/stories260K.tmac.bin", "a.tmac2.bin"),
        ("golden/stories260K-quantized/stories260K.tmac2.bin", "b.gguf"),
        ("golden/stories260K-quantized/stories260K.q4.bin", "c.gguf"),
        ("golden/bitnet-tiny64/packed-autobitlinear", "d.gguf"),
        ("golden/bitnet-tiny64/packed-autobitlinear", "e.tmac2.bin"),
    ] {
        let Some(source) = shared(source) else {
            return;
        };
        let written = convert(&source, &folder, name, &[]);
        let vocab_size = json(&["inspect", &written, "--json"])["config"]["vocab_size"].as_u64().unwrap();
        let ids: Vec<u32> = ids.iter().map(|id| id % vocab_size as u32).collect();
        assert_same_logits(&source, &written, &ids);
    }
}

/// The tokenizer goes along: the file alone gives run.c's text.
#[test]
fn a_gguf_file_of_stories_serves_alone() {
    let (Some(source), Some(tokenizer), Some(text)) = (
        shared("golden/stories260K-hf"),
        shared("llama2c/tok512.bin"),
        shared("golden/stories260K-hf/runc_t0_n256.txt"),
    ) else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let written = convert(&source, &folder, "stories.gguf", &["-z", &tokenizer]);
    let found = stdout(&["generate", &written, "-t", "0", "-n", "256", "--threads", "1"]);
    assert_eq!(found, fs::read_to_string(text).unwrap());
    let story = "Lily said, \"Hello!\" \u{e9}\u{20ac}\u{1f642} 12";
    let ids = |args: &[&str]| json(&[&["tokenize"], args, &[story, "--json"]].concat())["ids"].clone();
    assert_eq!(ids(&[&written]), ids(&[&source, "-z", &tokenizer]));
}

#[test]
fn what_a_container_cannot_hold_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("out");
    fs::write(&output, "as it was").unwrap();
    let output = output.to_str().unwrap();
    for (model, container, reason) in [
        ("models/gemma3-tiny", "gguf", "attention_scale"),
        ("models/qwen2-tiny", "llama2c", "architecture: qwen2"),
        ("models/qwen3-tiny", "tmac2", "architecture: qwen3"),
        ("models/llama3-scaled-tiny", "llama2c-v1", "rope"),
    ] {
        let failure = edgellm(&["convert", &own(model), output, "--to", container]).assert().code(1);
        failure.stderr(contains(reason).and(contains("cannot hold this model unchanged")));
        assert_eq!(fs::read_to_string(output).unwrap(), "as it was");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
    let model = own("models/qwen2-tiny");
    edgellm(&["convert", &model, output]).assert().code(1).stderr(contains("hint: say it with --to: gguf"));
    edgellm(&["convert", &model, output, "--to", "zip"]).assert().code(1).stderr(contains("known are gguf"));
}

/// A disk that fills up, played by a limit on the size of files.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("out.gguf");
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$0\" convert \"$1\" \"$2\"";
    let run = Process::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_edgellm"), &own("models/qwen2-tiny")])
        .arg(&output)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("out.gguf"), "{stderr}");
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
