//! `edgellm benchmark` and `edgellm doctor`: what they say, not how fast they are.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod data;

use data::{edgellm, json, own, stdout};
use predicates::str::contains;
use serde_json::Value;

const SHORT: [&str; 12] = [
    "--prompt-lengths",
    "4,12",
    "--decode-lengths",
    "6",
    "--repeat",
    "2",
    "--threads",
    "1",
    "--bandwidth-mb",
    "8",
    "--batch-sizes",
    "1,3",
];

fn benchmark(args: &[&str]) -> Vec<String> {
    [&["benchmark"], args, &SHORT].concat().into_iter().map(str::to_owned).collect()
}

fn as_strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Checks that the object has exactly the fields that the book lists, and that every number is sane.
fn check(report: &Value, more: &[&str]) {
    let mut expected = vec![
        "model",
        "type",
        "isa",
        "kernel",
        "threads",
        "prefill_tok_s",
        "decode_tok_s",
        "batch_tok_s",
        "ttft_ms",
        "inter_token_ms",
        "bytes_per_token",
        "read_bandwidth_gb_s",
        "bandwidth_fraction",
        "peak_rss_mb",
        "load_ms",
    ];
    expected.extend(more);
    expected.sort_unstable();
    let mut found: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    for pointer in [
        "/prefill_tok_s/4",
        "/prefill_tok_s/12",
        "/decode_tok_s/6",
        "/batch_tok_s/1",
        "/batch_tok_s/3",
        "/ttft_ms",
        "/bytes_per_token",
        "/read_bandwidth_gb_s",
        "/load_ms",
        "/inter_token_ms/p50",
    ] {
        assert!(report.pointer(pointer).unwrap().as_f64().unwrap() > 0.0, "{pointer}: {report}");
    }
    let gaps = ["p50", "p99", "p999", "max"].map(|name| report["inter_token_ms"][name].as_f64().unwrap());
    assert!(gaps.is_sorted(), "{gaps:?}");
    if cfg!(target_os = "linux") {
        assert!(report["peak_rss_mb"].as_f64().unwrap() > 0.0, "{report}");
    }
    assert_eq!(report["threads"], 1);
}

#[test]
fn json_has_the_promised_fields() {
    let report = json(&as_strs(&benchmark(&[&own("models/tiny-gguf/qwen2-tiny.gguf"), "--json"])));
    check(&report, &[]);
    assert_eq!(report["model"], "qwen2-tiny.gguf");
    assert_eq!(report["type"], "F32");
    // All f32: 2 layers of dim 32, and the 304 rows of the tied classifier.
    assert!(report["bytes_per_token"].as_u64().unwrap() > 304 * 32 * 4);
}

#[test]
fn a_rounded_model_reads_fewer_bytes() {
    let model = own("models/tiny-gguf/qwen2-tiny.gguf");
    let bytes = |stored: &str| {
        let report = json(&as_strs(&benchmark(&[&model, "--json", "--as", stored])));
        check(&report, &[]);
        assert_eq!(report["type"], stored);
        report["bytes_per_token"].as_u64().unwrap()
    };
    let bytes = ["f32", "f16", "int8"].map(bytes);
    assert!(bytes.is_sorted_by(|a, b| a > b), "{bytes:?}");
}

#[test]
fn a_profile_has_every_operation_and_layer() {
    let model = own("models/tiny-gguf/qwen2-tiny.gguf");
    let report = json(&as_strs(&benchmark(&[&model, "--json", "--profile"])));
    check(&report, &["profile"]);
    for what in ["prefill", "decode"] {
        assert_eq!(report["profile"][what]["operations"].as_array().unwrap().len(), 9);
        assert_eq!(report["profile"][what]["layers"].as_array().unwrap().len(), 2);
    }
    let table = stdout(&as_strs(&benchmark(&[&model, "--profile"])));
    assert!(table.contains("classifier") && table.contains("layer 1"), "{table}");
}

#[test]
fn comparison_page_and_table() {
    let folder = tempfile::tempdir().unwrap();
    let (earlier, page) = (folder.path().join("earlier.json"), folder.path().join("page.html"));
    let (earlier, page) = (earlier.to_str().unwrap(), page.to_str().unwrap());
    let model = own("models/tiny-gguf/qwen2-tiny.gguf");
    std::fs::write(earlier, stdout(&as_strs(&benchmark(&[&model, "--json"])))).unwrap();
    let text = stdout(&as_strs(&benchmark(&[&model, "--compare", earlier, "--html", page])));
    for wanted in ["prefill 12", "decode 6", "between tokens", "read bandwidth", "against", " x\n"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<svg").count(), 4, "{page}");
    assert!(!page.contains("src=") && !page.contains("href="), "the page needs no other file");
}

#[test]
fn all_types_side_by_side() {
    let text = "The engine reads the file. Where is the boat? ".repeat(64);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.txt");
    std::fs::write(&file, text).unwrap();
    let model = own("models/qwen2-tiny");
    let args = benchmark(&[&model, "--all", "--json", "--text", file.to_str().unwrap()]);
    let reports = json(&as_strs(&args));
    let reports = reports.as_array().unwrap();
    assert_eq!(reports.len(), 8);
    for report in reports {
        check(report, &["size_mb", "perplexity"]);
    }
    let perplexity = |i: usize| reports[i]["perplexity"].as_f64().unwrap();
    assert!((perplexity(0) - perplexity(1)).abs() < 0.01 * perplexity(0), "f32 and f16 are nearly the same");
    let table = stdout(&as_strs(&benchmark(&[&model, "--all"])));
    assert!(table.contains("tmac1") && table.lines().count() == 9, "{table}");
}

#[test]
fn errors_say_what_is_wrong() {
    let model = own("models/tiny-gguf/qwen2-tiny.gguf");
    edgellm(&["benchmark"]).assert().code(2).stderr(contains("MODEL"));
    edgellm(&["benchmark", &model, "--synthetic", "bitnet-2b"]).assert().code(2);
    edgellm(&["benchmark", &model, "--repeat", "0"]).assert().code(2).stderr(contains("at least 1"));
    edgellm(&["benchmark", &model, "--prompt-lengths", "100000"]).assert().code(1).stderr(contains("100000"));
    edgellm(&["benchmark", "no-such-file.gguf"]).assert().code(1).stderr(contains("no-such-file.gguf"));
    edgellm(&["benchmark", &model, "--compare", &model]).assert().code(1).stderr(contains("qwen2-tiny"));
    let synthetic = ["benchmark", "--synthetic", "smollm-135m", "--head", "q6_k"];
    edgellm(&synthetic).assert().code(1).stderr(contains("576"));
}

#[test]
fn doctor_tells_what_is_chosen() {
    let report = json(&["doctor", "--json", "--threads", "2", "--bandwidth-mb", "8"]);
    let found = report["isa"]["found"].as_array().unwrap();
    assert_eq!(found[0], "scalar");
    assert_eq!(&report["isa"]["chosen"], found.last().unwrap());
    assert!(report["cores"].as_u64().unwrap() >= 1);
    for threads in ["1", "2"] {
        assert!(report["read_bandwidth_gb_s"][threads].as_f64().unwrap() > 0.0, "{report}");
    }
    assert!(!report["kernels"].as_array().unwrap().is_empty());
    let scalar = edgellm(&["doctor", "--threads", "1", "--bandwidth-mb", "8"])
        .env("EDGELLM_ISA", "scalar")
        .assert()
        .success();
    let text = String::from_utf8(scalar.get_output().stdout.clone()).unwrap();
    assert!(text.contains("chosen          scalar") && text.contains("read bandwidth"), "{text}");
    edgellm(&["doctor", "--threads", "1", "--bandwidth-mb", "8"])
        .env("EDGELLM_ISA", "abacus")
        .assert()
        .success()
        .stderr(contains("EDGELLM_ISA=abacus"));
}
