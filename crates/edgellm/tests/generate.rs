//! `edgellm generate` and `edgellm chat` on real and tiny models.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod data;

use data::{comma, edgellm, golden_ids, json, own, shared, stdout};
use predicates::prelude::*;
use predicates::str::contains;

/// Greedy options that every test here shares.
const GREEDY: [&str; 4] = ["-t", "0", "--threads", "1"];

fn generate<'a>(model: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&["generate", model][..], &GREEDY, args].concat()
}

/// The first must-show of the project: the text of the reference program, whatever the container.
#[test]
fn stories_are_those_of_run_c() {
    for model in ["llama2c/stories260K.bin", "llama2c/stories260K.v1.bin", "golden/stories260K-hf"] {
        let (Some(model), Some(tokenizer), Some(text)) =
            (shared(model), shared("llama2c/tok512.bin"), shared("golden/stories260K-hf/runc_t0_n256.txt"))
        else {
            return;
        };
        let expected = std::fs::read_to_string(text).unwrap();
        let exact = ["--activations", "f32", "--kv-cache", "f32"];
        for numbers in [&[][..], &exact] {
            let args = [&["-z", &tokenizer, "-n", "256"], numbers].concat();
            assert_eq!(stdout(&generate(&model, &args)), expected, "{model} {numbers:?}");
        }
    }
}

/// The model that the program carries is the file in `models/`, and small.
#[test]
fn without_a_model_the_program_takes_the_one_that_it_carries() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/stories.gguf");
    assert!(file.metadata().unwrap().len() <= 6_000_000);
    let args = ["--prompt", "Once upon a time", "-n", "40"];
    let text = stdout(&generate(file.to_str().unwrap(), &args));
    assert!(text.split_whitespace().count() > 20, "{text}");
    assert_eq!(stdout(&[&["generate"][..], &GREEDY, &args].concat()), text);
    assert_eq!(stdout(&generate("stories", &args)), text);
}

/// Bits a byte of texts that it was not trained on, as its card has them.
#[test]
fn the_model_that_the_program_carries_predicts_stories() {
    let texts = [("tinystories_valid", 40, usize::MAX, 1.00), ("valid", 25, 1500, 1.70)];
    for (name, documents, bytes, bound) in texts {
        let Some(path) = shared(&format!("corpus/{name}.txt")) else { return };
        let text = std::fs::read_to_string(path).unwrap();
        let all = text.split("<|endoftext|>").map(str::trim).filter(|document| !document.is_empty());
        let some: Vec<&str> = all.take(documents).map(|d| &d[..d.len().min(bytes)]).collect();
        assert_eq!(some.len(), documents);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("text.txt");
        std::fs::write(&file, some.join("\n<|endoftext|>\n")).unwrap();
        let file = file.to_str().unwrap();
        let found = json(&["eval", "perplexity", "--file", file, "--stride", "full", "--json"]);
        let found = found["bits_per_byte"].as_f64().unwrap();
        assert!(found <= bound, "{name}: {found} bits a byte, {bound} at most");
    }
}

#[test]
fn ids_are_the_golden_ones() {
    for (name, model) in [
        ("qwen2-tiny", "models/qwen2-tiny"),
        ("qwen2-tiny", "models/tiny-gguf/qwen2-tiny.gguf"),
        ("qwen3-tiny", "models/qwen3-tiny"),
        ("qwen3-tiny", "models/tiny-gguf/qwen3-tiny.gguf"),
        ("llama3-scaled-tiny", "models/llama3-scaled-tiny-sharded"),
        ("llama3-scaled-tiny", "models/tiny-gguf/llama3-scaled-tiny.gguf"),
        ("gemma3-tiny", "models/gemma3-tiny"),
        ("gemma3-tiny", "models/tiny-gguf/gemma3-tiny.gguf"),
    ] {
        let golden = own(&format!("models/{name}/golden.npz"));
        let ids = golden_ids(&golden, "ids");
        let model = own(model);
        let found = json(&generate(&model, &["--ids", &comma(&ids), "-n", "16", "--ignore-eos", "--json"]));
        assert_eq!(found["prompt_ids"], serde_json::json!(ids), "{model}");
        assert_eq!(found["ids"], serde_json::json!(golden_ids(&golden, "greedy")), "{model}");
    }
}

#[test]
fn json_has_exactly_the_promised_shape() {
    let report = json(&generate(&own("models/qwen2-tiny"), &["--prompt", "Where is", "-n", "3", "--json"]));
    let keys = |value: &serde_json::Value| {
        value.as_object().unwrap().keys().map(String::from).collect::<std::collections::BTreeSet<_>>()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(keys(&report), set(&["prompt_ids", "ids", "text", "finish_reason", "timings"]));
    assert_eq!(keys(&report["timings"]), set(&["load_ms", "prefill_tok_s", "decode_tok_s", "ttft_ms"]));
    assert_eq!(report["finish_reason"], "length");
    assert_eq!(report["ids"].as_array().unwrap().len(), 3);
    assert!(report["timings"]["ttft_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn prompt_and_text_go_to_stdout_and_figures_to_stderr() {
    let model = own("models/qwen2-tiny");
    let args = ["--prompt", "Where is", "-n", "8"];
    let report = json(&generate(&model, &[&args[..], &["--json"]].concat()));
    let expected = format!("Where is{}\n", report["text"].as_str().unwrap());
    edgellm(&generate(&model, &args)).assert().success().stdout(expected.clone()).stderr(contains("tok/s"));
    let mut piped = edgellm(&generate(&model, &["--prompt", "-", "-n", "8"]));
    piped.write_stdin("Where is").assert().success().stdout(expected);
}

#[test]
fn a_seed_gives_the_same_text_on_every_thread_count() {
    let model = own("models/qwen2-tiny");
    let text = |seed: &str, threads: &str| {
        let args = ["--prompt", "the", "-n", "24", "-t", "1", "-k", "0", "-p", "1", "--seed", seed];
        stdout(&[&["generate", &model, "--threads", threads], &args[..]].concat())
    };
    let first = text("7", "1");
    assert_eq!(first, text("7", "2"));
    assert_eq!(first, text("7", "3"));
    assert_ne!(first, text("8", "1"));
}

#[test]
fn a_seed_from_the_clock_is_told_and_repeats_the_text() {
    let model = own("models/qwen2-tiny");
    let args = ["generate", &model, "--threads", "1", "--prompt", "the", "-n", "16", "-t", "1.5", "-k", "0"];
    let output = edgellm(&args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let seed = stderr.lines().find_map(|line| line.strip_prefix("seed ")).unwrap();
    assert_eq!(stdout(&[&args[..], &["--seed", seed]].concat()).into_bytes(), output.stdout);
}

#[test]
fn a_stop_text_ends_the_answer_and_is_not_part_of_it() {
    let model = own("models/qwen2-tiny");
    let whole = json(&generate(&model, &["--prompt", "the", "-n", "24", "--json"]));
    let whole = whole["text"].as_str().unwrap();
    let at = whole.char_indices().nth(6).unwrap().0;
    let stop: String = whole[at..].chars().take(3).collect();
    let cut = json(&generate(&model, &["--prompt", "the", "-n", "24", "--json", "--stop", &stop]));
    assert_eq!(cut["text"].as_str().unwrap(), &whole[..whole.find(&stop).unwrap()]);
    assert_eq!(cut["finish_reason"], "stop");
}

#[test]
fn logit_bias_forbids_a_token() {
    let model = own("models/qwen2-tiny");
    let first = |bias: &[&str]| {
        json(&generate(&model, &[&["--prompt", "the", "-n", "1", "--json"], bias].concat()))["ids"][0].clone()
    };
    let best = first(&[]);
    assert_ne!(best, first(&["--logit-bias", &format!("{best}=-100")]));
}

/// The text that a ChatML template makes of questions and answers, the last answer still to come.
fn chatml(system: &str, turns: &[(&str, &str)], question: &str) -> String {
    let mut text = format!("<|im_start|>system\n{system}<|im_end|>\n");
    for (question, answer) in turns {
        let answer = answer.trim();
        text +=
            &format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n");
    }
    text + &format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
}

/// What the model says when it is given the whole conversation at once.
fn fresh_answer(model: &str, conversation: &str) -> String {
    let args = ["--prompt", conversation, "-n", "12", "--json"];
    json(&generate(model, &args))["text"].as_str().unwrap().to_owned()
}

const SYSTEM: &str = "You are a small test model.";

fn chat<'a>(model: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&["chat", model, "-n", "12"][..], &GREEDY, args].concat()
}

#[test]
fn chat_answers_one_question_through_the_models_template() {
    for model in ["models/qwen2-tiny", "models/tiny-gguf/qwen2-tiny.gguf"] {
        let model = own(model);
        let expected = fresh_answer(&model, &chatml(SYSTEM, &[], "Where is the boat?"));
        let found = stdout(&chat(&model, &["--prompt", "Where is the boat?"]));
        assert_eq!(found, format!("{expected}\n"));
    }
}

/// Later turns reuse what the cache holds of earlier ones: the answers are those of a fresh run all the same.
#[test]
fn later_turns_are_answered_as_if_everything_were_read_anew() {
    let model = own("models/qwen2-tiny");
    let first = fresh_answer(&model, &chatml(SYSTEM, &[], "Where is the boat?"));
    let turns = [("Where is the boat?", first.as_str())];
    let second = fresh_answer(&model, &chatml(SYSTEM, &turns, "And the file?"));
    let terse = fresh_answer(&model, &chatml("Be terse.", &turns[..0], "And the file?"));
    let mut command = edgellm(&chat(&model, &[]));
    command.write_stdin(
        "Where is the boat?\nAnd \\\nthe file?\n/retry\n/clear\n/system Be terse.\nAnd the file?\n",
    );
    let second_two_lines = fresh_answer(&model, &chatml(SYSTEM, &turns, "And \nthe file?"));
    assert!(!second.is_empty());
    command.assert().success().stdout(format!("{first}\n{second_two_lines}\n{second_two_lines}\n{terse}\n"));
}

#[test]
fn chat_commands_speak_on_stderr() {
    let model = own("models/qwen2-tiny");
    let mut command = edgellm(&chat(&model, &[]));
    command.write_stdin("/help\n/retry\n/nonsense\n\n/exit\nnot asked\n");
    let expected = contains("/clear").and(contains("no question yet")).and(contains("/nonsense is unknown"));
    command.assert().success().stdout("").stderr(expected);
}

#[test]
fn a_long_conversation_forgets_its_beginning() {
    let model = own("models/qwen2-tiny");
    let mut command = edgellm(&chat(&model, &["--context", "120"]));
    command.write_stdin("Where is the boat?\nAnd the file?\nAnd the engine?\n");
    command.assert().success().stderr(contains("the context was full: 2 messages were forgotten"));
}

#[test]
fn a_model_without_a_template_says_how_to_give_one() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(own(&format!("models/qwen2-tiny/{name}")), folder.path().join(name)).unwrap();
    }
    let model = folder.path().to_str().unwrap();
    let failure = edgellm(&chat(model, &["--prompt", "x"])).assert().code(1);
    failure.stderr(contains("no chat template").and(contains("hint: ")).and(contains("--chat-template")));
    let template = folder.path().join("template.jinja");
    std::fs::write(&template, "{{ messages[0].content }} said").unwrap();
    let found =
        stdout(&chat(model, &["--prompt", "The engine", "--chat-template", template.to_str().unwrap()]));
    assert_eq!(found, format!("{}\n", fresh_answer(model, "The engine said")));
}
