//! `edgellm inspect`, `tokenize` and `eval` on real and tiny models.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod data;

use data::{comma, edgellm, golden_f32, golden_ids, json, npy_values, own, shared, stdout};
use predicates::str::contains;

#[test]
fn inspect_tells_what_a_file_is() {
    let model = own("models/tiny-gguf/qwen2-tiny.gguf");
    let report = json(&["inspect", &model, "--json", "--context", "64"]);
    assert_eq!(report["architecture"], "qwen2");
    assert!(report["format"].as_str().unwrap().to_lowercase().contains("gguf"), "{}", report["format"]);
    assert_eq!(report["file_bytes"], std::fs::metadata(&model).unwrap().len());
    for (field, value) in
        [("dim", 32), ("n_layers", 2), ("n_heads", 4), ("n_kv_heads", 2), ("vocab_size", 304)]
    {
        assert_eq!(report["config"][field], value, "{field}");
    }
    // layers x positions x kv heads x (head_dim of the keys + head_dim of the values in whole vectors of 16) x bytes of an f16
    assert_eq!(report["memory"]["kv_cache"], 2 * 64 * 2 * (8 + 16) * 2);
    let tensors = report["tensors"].as_array().unwrap();
    let embedding = tensors.iter().find(|tensor| tensor["name"] == "token_embd.weight").unwrap();
    assert_eq!(embedding["shape"], serde_json::json!([304, 32]));
    assert_eq!((&embedding["type"], &embedding["bytes"]), (&"F32".into(), &(304 * 32 * 4).into()));
    let elements = |tensor: &serde_json::Value| {
        tensor["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>()
    };
    assert_eq!(report["parameters"], tensors.iter().map(elements).sum::<u64>());
}

#[test]
fn inspect_prints_every_tensor() {
    let model = own("models/qwen3-tiny");
    let text = stdout(&["inspect", &model]);
    let report = json(&["inspect", &model, "--json"]);
    assert!(text.contains("architecture   qwen3"), "{text}");
    for tensor in report["tensors"].as_array().unwrap() {
        assert!(text.contains(tensor["name"].as_str().unwrap()), "{tensor}");
    }
}

#[test]
fn tokenize_gives_the_golden_ids() {
    let golden = std::fs::read_to_string(own("models/qwen2-tiny/tokenizer_golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    let model = own("models/qwen2-tiny");
    let mut checked = 0;
    for encoding in golden["encodings"].as_array().unwrap() {
        let text = encoding["text"].as_str().unwrap();
        // An argument cannot hold a zero byte.
        if !text.contains('\0') {
            let found = json(&["tokenize", &model, text, "--no-special", "--json"]);
            assert_eq!(found["ids"], encoding["ids"], "{text:?}");
            checked += 1;
        }
    }
    assert!(checked >= 10);
    edgellm(&["tokenize", &model, "-"]).write_stdin("the").assert().success().stdout("286\t\"the\"\n");
}

#[test]
fn logits_are_the_golden_ones() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("logits.npy");
    for name in ["qwen2-tiny", "qwen3-tiny", "llama3-scaled-tiny", "gemma3-tiny"] {
        let golden = own(&format!("models/{name}/golden.npz"));
        let ids = comma(&golden_ids(&golden, "ids"));
        let model = own(&format!("models/{name}"));
        let exact = ["--activations", "f32", "--kv-cache", "f32", "--threads", "1"];
        let args = ["eval", "logits", &model, "--ids", &ids, "--output", output.to_str().unwrap()];
        stdout(&[&args[..], &exact].concat());
        let found = npy_values(&std::fs::read(&output).unwrap());
        let expected = golden_f32(&golden, "logits");
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.into_iter().map(f32::from_le_bytes).zip(expected) {
            assert!((found - expected).abs() < 1e-3, "{name}: {found} {expected}");
        }
    }
}

#[test]
fn logits_appear_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("logits.npy");
    let model = own("models/qwen2-tiny");
    let args = ["eval", "logits", &model, "--ids", "1,2,99999", "--output", output.to_str().unwrap()];
    edgellm(&args).assert().code(1).stderr(contains("99999"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let nowhere = folder.path().join("none/logits.npy");
    let args = ["eval", "logits", &model, "--ids", "1,2", "--output", nowhere.to_str().unwrap()];
    edgellm(&args).assert().code(1).stderr(contains("none/logits.npy"));
}

/// nll of the golden text as transformers has it, over all its tokens.
#[test]
fn perplexity_of_stories_is_the_golden_one() {
    let (Some(model), Some(tokenizer), Some(golden), Some(text)) = (
        shared("golden/stories260K-hf"),
        shared("llama2c/tok512.bin"),
        shared("golden/stories260K-hf/golden.npz"),
        shared("golden/stories260K-hf/runc_t0_n256.txt"),
    ) else {
        return;
    };
    let ids = golden_ids(&golden, "greedy");
    let expected = f64::from(golden_f32(&golden, "nll")[0]);
    let text_ids =
        json(&["tokenize", &model, "-z", &tokenizer, &std::fs::read_to_string(&text).unwrap(), "--json"]);
    let text_ids = text_ids["ids"].as_array().unwrap();
    let args = ["eval", "perplexity", &model, "-z", &tokenizer, "--file", &text, "--threads", "1", "--json"];
    let report = json(&[&args[..], &["--stride", "full", "--context", "512"]].concat());
    let nll = report["nll"].as_f64().unwrap();
    assert!((nll - expected).abs() < 0.02, "{nll} {expected} {} {}", ids.len(), text_ids.len());
    let perplexity = report["perplexity"].as_f64().unwrap();
    assert!((perplexity - nll.exp()).abs() < 1e-9);
    let (tokens, bytes) = (report["tokens"].as_f64().unwrap(), report["bytes"].as_f64().unwrap());
    let bits = nll * tokens / std::f64::consts::LN_2 / bytes;
    assert!((report["bits_per_byte"].as_f64().unwrap() - bits).abs() < 1e-9);
}

#[test]
fn a_model_does_not_diverge_from_itself_but_from_another() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.txt");
    std::fs::write(&file, "The engine reads the file. Where is the boat? ".repeat(8)).unwrap();
    let (file, model) = (file.to_str().unwrap(), own("models/qwen2-tiny"));
    let kl = |reference: &str, text: &str| {
        let args = ["eval", "kl", &model, "--reference", reference, "--file", text];
        json(&[&args[..], &["--context", "32", "--threads", "1", "--json"]].concat())
    };
    let same = kl(&own("models/tiny-gguf/qwen2-tiny.gguf"), file);
    assert!(same["mean_kl"].as_f64().unwrap() < 1e-6, "{same}");
    assert_eq!(same["top1_agreement"], 1.0);
    let args = ["eval", "kl", &model, "--reference", &own("models/qwen3-tiny"), "--file", file];
    edgellm(&args).assert().code(1).stderr(contains("vocabulary"));
}

#[test]
fn questions_are_answered_and_bad_lines_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("questions.jsonl");
    let name = file.to_str().unwrap();
    let row = |answer: &str| {
        format!(
            r#"{{"question": "Where is the", "choices": ["boat", "engine of the file"], "answer": {answer}}}"#
        )
    };
    std::fs::write(&file, [row("0"), String::new(), row("1"), row("\"B\"")].join("\n")).unwrap();
    let model = own("models/qwen2-tiny");
    let args = ["eval", "choice", &model, "--file", name, "--threads", "1"];
    let report = json(&[&args[..], &["--json"]].concat());
    assert_eq!((&report["questions"], &report["chance"]), (&3.into(), &0.5.into()));
    for (mean, error) in [("accuracy", "accuracy_stderr"), ("accuracy_per_byte", "accuracy_per_byte_stderr")]
    {
        // One of three or two of three: both have the same standard error.
        let mean = report[mean].as_f64().unwrap();
        assert!((mean * 3.0 - 1.0).abs() < 1e-9 || (mean * 3.0 - 2.0).abs() < 1e-9, "{report}");
        assert!((report[error].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9, "{report}");
    }
    let one = json(&[&args[..], &["--limit", "1", "--json"]].concat());
    assert_eq!((&one["questions"], &one["accuracy_stderr"]), (&1.into(), &serde_json::Value::Null));
    assert!(stdout(&args).contains("guessing           50.00 %"));
    std::fs::write(&file, [row("0"), row("2")].join("\n")).unwrap();
    let wrong = "questions.jsonl: line 2: answer: 2 is no index of 2 choices, 0 to 1";
    edgellm(&args).assert().code(1).stderr(contains(wrong));
    std::fs::write(&file, row("0").replace("Where", &"where is the boat ".repeat(500))).unwrap();
    edgellm(&args).assert().code(1).stderr(contains("questions.jsonl: line 1: question: "));
    std::fs::write(&file, "").unwrap();
    edgellm(&args).assert().code(1).stderr(contains("no questions"));
}
