//! Calibration: what is kept of a model, measured on texts that it has not seen.

use std::path::{Path, PathBuf};

use engine::Model;
use engine::eval::{Stride, log_softmax_at, perplexity};
use quantize::calibrate::{Statistics, Text, collect};
use quantize::quantize::{Format, Method, Options, QuantizeError, quantize};

use crate::helpers::{Folder, load, ours, shared, with_tokenizer};
use crate::npz::Npz;

/// stories260K and its tokenizer.
fn stories() -> Option<(PathBuf, engine::LoadOptions)> {
    Some((shared("llama2c/stories260K.bin")?, with_tokenizer(shared("llama2c/tok512.bin")?).load))
}

/// The text to calibrate on, and another one to measure on.
fn texts() -> Option<(Text, String)> {
    let text = std::fs::read_to_string(shared("corpus/tinystories_valid.txt")?).unwrap();
    let (seen, unseen) = text.split_at(80_000);
    Some((Text { text: seen.to_owned(), samples: Some(16), tokens: 256 }, unseen[..12_000].to_owned()))
}

fn options(format: Format, load: &engine::LoadOptions, text: &Text) -> Options {
    let load = engine::LoadOptions { threads: Some(2), ..load.clone() };
    Options { load, method: Method::Calibrated, text: text.clone(), ..Options::new(format) }
}

/// Perplexity of the unseen text, and bits a weight in the linear layers.
fn measured(folder: &Folder, input: &Path, unseen: &str, options: &Options) -> (f64, f64) {
    let output = folder.path("measured.gguf");
    let summary = quantize(input, &output, options, &mut |_, _, _| {}).unwrap();
    let found = perplexity(&load(&output), unseen, 256, Stride::Half, &mut |_, _, _| {}).unwrap();
    println!(
        "{:?} {:?}: {:.3} bits, perplexity {:.2}",
        options.format, options.method, summary.bits, found.perplexity
    );
    (found.perplexity, summary.bits)
}

#[test]
fn keeps_more_than_rounding() {
    let (Some((model, load)), Some((text, unseen))) = (stories(), texts()) else { return };
    let folder = Folder::new();
    let mut last = f64::INFINITY;
    for (planes, bound) in [(1, 0.25), (2, 0.8)] {
        let calibrated = Options { planes, ..options(Format::Ternary, &load, &text) };
        let rounded = Options { method: Method::Round, ..calibrated.clone() };
        let (plain, _) = measured(&folder, &model, &unseen, &rounded);
        let (found, _) = measured(&folder, &model, &unseen, &calibrated);
        assert!(found < plain * bound && found < last, "{planes} planes: {found}, rounded {plain}");
        last = found;
    }
}

#[test]
fn more_bits_keep_more() {
    let (Some((model, load)), Some((text, unseen))) = (stories(), texts()) else { return };
    let folder = Folder::new();
    let mut last = f64::INFINITY;
    for budget in [1.6, 2.2, 4.5] {
        let options = Options { bits: Some(budget), ..options(Format::Ternary, &load, &text) };
        let (found, bits) = measured(&folder, &model, &unseen, &options);
        assert!(bits <= budget && bits > budget - 0.1, "{bits} of {budget}");
        assert!(found < last, "{found} at {budget} bits, {last} at fewer");
        last = found;
    }
}

/// Plain rounding to T-MAC v2 has a mean nll of 6.22 on these tokens, f32 one of 0.456.
#[test]
fn ternary_tells_the_model_s_own_story() {
    let (Some((model, load_options)), Some((text, _))) = (stories(), texts()) else { return };
    let Some(golden) = shared("golden/stories260K-quantized/golden.npz") else { return };
    let folder = Folder::new();
    let options = Options { bits: Some(2.2), ..options(Format::Ternary, &load_options, &text) };
    let output = folder.path("a.gguf");
    let summary = quantize(&model, &output, &options, &mut |_, _, _| {}).unwrap();
    assert!(summary.bits <= 2.2);
    let ids = Npz::open_path(&golden).u32s("ids");
    let model = load(&output);
    let (mut sum, mut n) = (0.0, 0);
    engine::Sequence::new(&model, ids.len())
        .unwrap()
        .forward_all(&ids, &mut |t, logits| {
            if let Some(&next) = ids.get(t + 1) {
                sum -= log_softmax_at(logits, next);
                n += 1;
            }
            Ok(())
        })
        .unwrap();
    println!("mean nll {:.3} at {:.3} bits", sum / f64::from(n), summary.bits);
    assert!(sum / f64::from(n) <= 2.0);
}

/// A calibrated run that was killed goes on, with the norms and sensitivities that it had, and the file is the same;
/// nor does the number of threads change it.
#[test]
fn a_killed_run_goes_on() {
    let (Some((model, load)), Some((text, _))) = (stories(), texts()) else { return };
    let folder = Folder::new();
    let text = Text { samples: Some(4), ..text };
    let options = Options { bits: Some(2.5), ..options(Format::Ternary, &load, &text) };
    let (whole, output) = (folder.path("whole.gguf"), folder.path("resumed.gguf"));
    quantize(&model, &whole, &options, &mut |_, _, _| {}).unwrap();
    let journal = folder.path(".resumed.gguf.quantize");
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let one =
        Options { load: engine::LoadOptions { threads: Some(1), ..options.load.clone() }, ..options.clone() };
    quantize(&model, &output, &one, &mut |_, _, _| kept.push(std::fs::read(&journal).unwrap())).unwrap();
    let expected = std::fs::read(&whole).unwrap();
    assert!(std::fs::read(&output).unwrap() == expected);
    kept.retain(|state| !state.is_empty());
    for state in kept.iter().step_by(17) {
        std::fs::remove_file(&output).unwrap();
        std::fs::write(&journal, &state[..state.len() - 1]).unwrap();
        quantize(&model, &output, &options, &mut |_, _, _| {}).unwrap();
        assert!(std::fs::read(&output).unwrap() == expected);
    }
}

/// Statistics in a file do nearly as well as the text, and belong to one model.
#[test]
fn statistics_can_be_used_again() {
    let (Some((model, load)), Some((text, unseen))) = (stories(), texts()) else { return };
    let folder = Folder::new();
    let file = folder.path("statistics.safetensors");
    let collected = collect(&model, &file, &text, &load, &mut |_, _, _| {}).unwrap();
    assert_eq!((collected.samples, collected.tokens), (16, 16 * 256));
    let statistics = Statistics::open(&file).unwrap();
    let nothing = Text { text: String::new(), ..text };
    let fitted =
        Options { statistics: Some(statistics), planes: 2, ..options(Format::Ternary, &load, &nothing) };
    let rounded = Options { method: Method::Round, ..fitted.clone() };
    let (plain, _) = measured(&folder, &model, &unseen, &rounded);
    let (found, _) = measured(&folder, &model, &unseen, &fitted);
    assert!(found < plain, "{found}, rounded {plain}");
    let budget = Options { planes: 1, bits: Some(2.2), ..fitted.clone() };
    assert!(measured(&folder, &model, &unseen, &budget).1 <= 2.2);
    // That model has a tokenizer of its own.
    let other = Options { force: true, load: engine::LoadOptions::default(), ..fitted };
    let message =
        quantize(&ours("qwen3-tiny"), &folder.path("a.gguf"), &other, &mut |_, _, _| {}).unwrap_err();
    assert!(message.to_string().contains("of another model?"), "{message}");
}

#[test]
fn every_architecture_can_be_calibrated() {
    for name in ["qwen2-tiny", "qwen3-tiny", "gemma3-tiny", "llama3-scaled-tiny"] {
        let folder = Folder::new();
        let text = Text { samples: Some(8), tokens: 64, ..Text::shipped() };
        let options =
            Options { force: true, ..options(Format::Ternary, &engine::LoadOptions::default(), &text) };
        let output = folder.path("a.gguf");
        match quantize(&ours(name), &output, &options, &mut |_, _, _| {}) {
            Ok(_) => assert!(Model::load(&output, &engine::LoadOptions::default()).is_ok(), "{name}"),
            // Not every tiny model has a tokenizer.
            Err(QuantizeError::Engine(err)) => assert!(err.to_string().contains("no tokenizer"), "{err}"),
            Err(err) => panic!("{name}: {err}"),
        }
    }
}

#[test]
fn what_does_not_do_is_told() {
    let Some((model, load)) = stories() else { return };
    let folder = Folder::new();
    let short = Text { text: "Once upon a time".to_owned(), samples: None, tokens: 256 };
    let many = Text { samples: Some(100_000), ..Text::shipped() };
    let base = options(Format::Ternary, &load, &Text::shipped());
    for (options, expected) in [
        (Options { text: short, ..base.clone() }, "--calibration-data: the text has"),
        (Options { text: many, ..base.clone() }, "100000 are asked for"),
        (Options { bits: Some(1.0), ..base.clone() }, "--bits: 1 bits a weight: the least is"),
        (Options { planes: 3, ..base.clone() }, "--planes: 3: take 1 or 2"),
        (Options { planes: 2, bits: Some(2.0), ..base.clone() }, "--planes: a budget"),
        (Options { planes: 2, ..options(Format::Int8, &load, &Text::shipped()) }, "only --format ternary"),
    ] {
        let message = quantize(&model, &folder.path("a.gguf"), &options, &mut |_, _, _| {}).unwrap_err();
        assert!(message.to_string().contains(expected), "{message}");
    }
    assert!(folder.files().is_empty(), "{:?}", folder.files());
}
