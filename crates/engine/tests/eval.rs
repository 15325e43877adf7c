//! Hidden states, multiple-choice questions and comparisons against other programs and against plain arithmetic.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod data;
#[path = "../../kernels/tests/npz/mod.rs"]
mod npz;

use std::path::{Path, PathBuf};

use engine::eval::{Compare, Question, choice, choice_log_likelihoods, compare, parse_questions};
use engine::tokenizer::EncodeOptions;
use engine::{ActivationMode, KvType, LoadOptions, Model, Sequence};
use npz::Npz;
use proptest::prelude::*;

fn exact() -> LoadOptions {
    LoadOptions {
        activations: ActivationMode::F32,
        kv_type: KvType::F32,
        threads: Some(1),
        ..LoadOptions::default()
    }
}

fn ours(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name)
}

fn stories() -> Option<Model> {
    let tokenizer = Some(data::path("llama2c/tok512.bin")?);
    let path = data::path("llama2c/stories260K.bin")?;
    Some(Model::load(&path, &LoadOptions { tokenizer, ..exact() }).unwrap())
}

fn question(question: &str, choices: &[&str]) -> Question {
    let choices = choices.iter().map(ToString::to_string).collect();
    Question { line: 1, question: question.to_owned(), choices, answer: 0 }
}

/// log p(id) of a row of logits, in the plainest way.
fn log_p(logits: &[f32], id: u32) -> f64 {
    let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    f64::from(logits[id as usize]) - sum.ln()
}

/// log p of all ids behind the first `from`, each token run alone and from the start.
fn token_by_token(model: &Model, ids: &[u32], from: usize) -> f64 {
    let score = |at: usize| {
        let mut sequence = Sequence::new(model, ids.len()).unwrap();
        let mut logits = Vec::new();
        for &id in &ids[..at] {
            logits = sequence.forward(&[id]).unwrap().to_vec();
        }
        log_p(&logits, ids[at])
    };
    (from..ids.len()).map(score).sum()
}

/// transformers' `hidden_states`: behind the first layer as they are, behind the last with the last norm.
#[test]
fn hidden_states_are_those_of_transformers() {
    for name in ["golden/llama-tiny64", "golden/llama-tiny64-tied", "golden/bitnet-tiny64/master-f32"] {
        let Some(path) = data::path(name) else { return };
        let file = if name.ends_with("master-f32") { "golden_noquant.npz" } else { "golden.npz" };
        let mut golden = Npz::open_path(&path.join(file));
        let model = Model::load(&path, &exact()).unwrap();
        let ids = golden.u32s("ids1");
        let mut sequence = Sequence::new(&model, ids.len()).unwrap();
        assert!(sequence.hidden_states().is_none());
        sequence.keep_hidden_states();
        sequence.forward(&ids).unwrap();
        let found = sequence.hidden_states().unwrap();
        for (found, want) in found.layer(0).zip(golden.f32_rows("hidden1_1")) {
            assert!(found.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-4), "{name}");
        }
        let norm = |x: &[f32]| -> Vec<f32> {
            let square: f32 = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
            let scale = 1.0 / (square + model.config.norm_eps).sqrt();
            x.iter().zip(&model.weights.rms_final).map(|(x, w)| x * scale * w).collect()
        };
        assert_eq!(found.layer(1).count(), ids.len());
        for (found, want) in found.layer(1).zip(golden.f32_rows("hidden1_2")) {
            assert!(norm(found).iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-3), "{name}");
        }
        assert_eq!(found.layer(2).count(), 0);
    }
}

/// The likelihood of a story's continuation from transformers' logits of the same ids.
#[test]
fn likelihoods_are_those_of_transformers() {
    let (Some(model), Some(golden)) = (stories(), data::path("golden/stories260K-hf/golden.npz")) else {
        return;
    };
    let mut golden = Npz::open_path(&golden);
    let (ids, logits) = (golden.u32s("greedy"), golden.f32_rows("logits_first128"));
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let text = tokenizer.decode(&ids[..100]).unwrap();
    // Where the text is split again as it was: its tokens are not always the fewest.
    let options = EncodeOptions { add_special: true, parse_special: false };
    let same = tokenizer.encode(text.trim_start(), options).unwrap();
    assert_eq!(same, ids[..100]);
    let mut compared = 0;
    for from in 20..90 {
        let before = tokenizer.decode(&ids[..from]).unwrap();
        if tokenizer.encode(before.trim_start(), options).unwrap() != ids[..from] {
            continue;
        }
        let after = &text[before.len()..];
        if !after.starts_with(' ') {
            continue;
        }
        let row = question(before.trim_start(), &[after, " zebra"]);
        let found = choice_log_likelihoods(&model, &row).unwrap()[0];
        let want: f64 = (from..100).map(|at| log_p(&logits[at - 1], ids[at])).sum();
        assert!((found - want).abs() < 1e-2, "{from}: {found} {want}");
        compared += 1;
    }
    assert!(compared >= 10, "{compared}");
}

#[test]
fn likelihoods_are_those_of_one_token_after_another() {
    let mut models = vec![Model::load(&ours("qwen2-tiny"), &exact()).unwrap()];
    models.extend(stories());
    for model in &models {
        let tokenizer = model.tokenizer.as_ref().unwrap();
        let rows = [
            question("Once upon a time there was a", &["dog", "dog who ran", "house by the sea"]),
            // White space on either side of the border, none, and choices of which one begins the other.
            question("The boat is ", &["red", "reddish"]),
            question("Where is the", &[" boat", "\nboat", "boat and the sea where it went"]),
        ];
        for row in &rows {
            let found = choice_log_likelihoods(model, row).unwrap();
            let options = EncodeOptions { add_special: false, parse_special: false };
            let encode = |text: &str| -> Vec<u32> {
                let mut ids: Vec<u32> =
                    tokenizer.bos().filter(|_| tokenizer.adds_bos()).into_iter().collect();
                ids.extend(tokenizer.encode(text, options).unwrap());
                ids
            };
            let space = |choice: &str| {
                let bare = row.question.ends_with(' ') || choice.starts_with(char::is_whitespace);
                if bare { "" } else { " " }
            };
            let all: Vec<Vec<u32>> =
                row.choices.iter().map(|c| encode(&format!("{}{}{c}", row.question, space(c)))).collect();
            let asked = encode(row.question.trim_end());
            let from = (0..asked.len())
                .take_while(|&i| all.iter().all(|ids| i + 1 < ids.len() && ids[i] == asked[i]))
                .count();
            for (found, ids) in found.iter().zip(&all) {
                let want = token_by_token(model, ids, from);
                assert!((found - want).abs() < 1e-4, "{row:?}: {found} {want}");
            }
        }
    }
}

#[test]
fn shares_and_standard_errors() {
    let model = Model::load(&ours("qwen2-tiny"), &exact()).unwrap();
    let mut rows = vec![question("Where is the", &["boat", "engine of the file"]); 5];
    let likely = choice_log_likelihoods(&model, &rows[0]).unwrap();
    let best = usize::from(likely[1] > likely[0]);
    for (i, row) in rows.iter_mut().enumerate() {
        row.answer = if i < 3 { best } else { 1 - best };
    }
    let found = choice(&model, &rows, &mut |_, _, _| ()).unwrap();
    assert_eq!((found.accuracy.mean, found.chance), (0.6, 0.5));
    // Standard deviation of three ones and two zeros is sqrt(1.2 / 4); over sqrt(5).
    assert!((found.accuracy.standard_error.unwrap() - (1.2f64 / 4.0 / 5.0).sqrt()).abs() < 1e-12);
    let per_byte = likely[0] / 4.0 > likely[1] / 18.0;
    let right = if usize::from(!per_byte) == best { 0.6 } else { 0.4 };
    assert_eq!(found.accuracy_per_byte.mean, right);
    assert_eq!(choice(&model, &rows[..1], &mut |_, _, _| ()).unwrap().accuracy.standard_error, None);
    assert!(choice(&model, &[], &mut |_, _, _| ()).unwrap_err().to_string().contains("no questions"));
    let long = question(&"Where is the boat? ".repeat(500), &["a", "b"]);
    let refused = choice(&model, &[rows[0].clone(), long], &mut |_, _, _| ()).unwrap_err().to_string();
    assert!(refused.contains("line 1: question: ") && refused.contains("takes"), "{refused}");
}

#[test]
fn bad_lines_are_named() {
    let good = r#"{"question": "a", "choices": ["b", "c"], "answer": 1, "more": null}"#;
    let letter = r#"{"question": "a", "choices": ["b", "c"], "answer": "B"}"#;
    let text = r#"{"question": "a", "choices": ["b", "A"], "answer": "A"}"#;
    let rows = parse_questions([good, "", letter, text].join("\r\n").as_bytes()).unwrap();
    assert_eq!(rows.iter().map(|row| (row.line, row.answer)).collect::<Vec<_>>(), [(1, 1), (3, 1), (4, 1)]);
    for (line, want) in [
        (r#"{"choices": ["b", "c"], "answer": 1}"#, "question: missing"),
        (r#"{"question": 1, "choices": ["b", "c"], "answer": 1}"#, "question: a number, not a text"),
        (r#"{"question": "a", "answer": 1}"#, "choices: missing"),
        (r#"{"question": "a", "choices": "b", "answer": 1}"#, "choices: a text, not a list"),
        (r#"{"question": "a", "choices": ["b"], "answer": 0}"#, "choices: 1 of them"),
        (r#"{"question": "a", "choices": ["b", null], "answer": 0}"#, "choices[1]: null, not a text"),
        (r#"{"question": "a", "choices": ["b", " "], "answer": 0}"#, "choices[1]: empty"),
        (r#"{"question": "a", "choices": ["b", "c"]}"#, "answer: missing"),
        (r#"{"question": "a", "choices": ["b", "c"], "answer": 2}"#, "answer: 2 is no index"),
        (r#"{"question": "a", "choices": ["b", "c"], "answer": -1}"#, "answer: -1 is no index"),
        (r#"{"question": "a", "choices": ["b", "c"], "answer": 0.5}"#, "answer: 0.5 is no index"),
        (r#"{"question": "a", "choices": ["b", "c"], "answer": "C"}"#, "answer: neither"),
        (r#"{"question": "a", "choices": ["b", "b"], "answer": "b"}"#, "answer: more than one"),
        (r#"{"question": "a", "choices": ["b", "c"], "answer": true}"#, "answer: a truth value"),
        ("[1]", "a list, not an object"),
        ("{", "byte 1: not JSON"),
    ] {
        let err = parse_questions(format!("{good}\n{line}\n{good}").as_bytes()).unwrap_err().to_string();
        assert!(err.starts_with(&format!("line 2: {want}")), "{line}: {err}");
    }
    let err = parse_questions(b"\n\xff").unwrap_err().to_string();
    assert_eq!(err, "line 2: byte 0: not UTF-8");
    let err = parse_questions(&[b'['; 10_000]).unwrap_err().to_string();
    assert!(err.contains("recursion"), "{err}");
    let err = parse_questions(&vec![b' '; (1 << 20) + 1]).unwrap_err().to_string();
    assert!(err.starts_with("line 1: 1048577 bytes"), "{err}");
}

proptest! {
    /// Whatever is written is read again, wherever it stands in the file.
    #[test]
    fn questions_are_read_as_they_were_written(
        rows in prop::collection::vec(
            (any::<String>(), prop::collection::vec("[^\\s]{1,4}\\PC{0,9}", 2..6), any::<prop::sample::Index>(), 0..3usize),
            0..8,
        ),
    ) {
        let (mut file, mut want) = (String::new(), Vec::new());
        for (question, choices, answer, blank) in rows {
            file.push_str(&"\n".repeat(blank));
            let answer = answer.index(choices.len());
            let line = 1 + file.matches('\n').count();
            let row = serde_json::json!({"answer": answer, "choices": choices, "question": question});
            file.push_str(&format!("{row}\n"));
            want.push(Question { line, question, choices, answer });
        }
        prop_assert_eq!(parse_questions(file.as_bytes()).unwrap(), want);
    }

    /// No bytes make it panic, and an error names a line that there is.
    #[test]
    fn any_bytes_are_questions_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Err(err) = parse_questions(&bytes) {
            prop_assert!((1..=1 + bytes.iter().filter(|&&b| b == b'\n').count()).contains(&err.line));
        }
    }

    /// The same for what is nearly a question.
    #[test]
    fn cut_and_changed_questions_are_questions_or_an_error(at in 0..70usize, byte in any::<u8>(), cut in any::<bool>()) {
        let mut line = br#"{"question": "Where?", "choices": ["here", "there"], "answer": "there"}"#.to_vec();
        if cut { line.truncate(at) } else { line[at] = byte }
        if let Ok(rows) = parse_questions(&line) {
            prop_assert!(rows.iter().all(|row| row.answer < row.choices.len() && row.choices.len() >= 2));
        }
    }
}

#[test]
fn a_model_compared_with_itself_and_with_a_rounded_one() {
    let text = "The engine reads the file. Where is the boat? ".repeat(16);
    let load = |stored: Option<engine::StoredType>| match stored {
        None => Model::load(&ours("qwen2-tiny"), &exact()).unwrap(),
        Some(stored) => Model::load_rounded(&ours("qwen2-tiny"), stored, stored, &exact()).unwrap(),
    };
    let reference = load(None);
    let what = Compare { context: 48, chunks: Some(2), layers: true };
    let same = compare(&load(None), &reference, &text, what, &mut |_, all| assert_eq!(all, 2)).unwrap();
    assert_eq!((same.divergence.top1_agreement, same.divergence.tokens), (1.0, 2 * 23));
    assert_eq!(same.layers.len(), 2);
    for layer in same.layers {
        assert_eq!((layer.relative_error, layer.mse), (0.0, 0.0));
        assert!((layer.cosine - 1.0).abs() < 1e-9);
    }
    let mut last = 0.0;
    for stored in [engine::StoredType::F16, engine::StoredType::Int8, engine::StoredType::Int4] {
        let found = compare(&load(Some(stored)), &reference, &text, what, &mut |_, _| ()).unwrap();
        assert!(found.layers[0].relative_error > last && found.divergence.mean > 0.0, "{stored:?} {found:?}");
        last = found.layers[0].relative_error;
    }
    let other = Model::load(&ours("qwen3-tiny"), &exact()).unwrap();
    assert!(compare(&other, &reference, &text, what, &mut |_, _| ()).is_err());
}
