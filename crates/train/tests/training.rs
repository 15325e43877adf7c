//! From text to a model that the engine runs: vocabulary, shards, training, checkpoints.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::eval::{Stride, perplexity};
use engine::{KvType, LoadOptions, Model};
use train::TrainError;
use train::data::{PrepareOptions, PrepareReport, learn, prepare};
use train::model::{Activation, Shape};
use train::trainer::{Config, Ended, Event, Run, Stage, Training};

const WHO: [&str; 6] = ["cat", "dog", "fox", "bird", "boy", "girl"];
const HOW: [&str; 5] = ["small", "old", "happy", "red", "quick"];
const DOES: [&str; 5] = ["sees", "likes", "finds", "helps", "follows"];

/// Little stories, all different.
fn stories(n: usize, seed: usize) -> String {
    let mut text = String::new();
    for story in 0..n {
        for line in 0..6 {
            let pick = |list: &[&'static str], by: usize| {
                list[(story * 7 + line * by + story * story * by + seed) % list.len()]
            };
            let (how, who, does, whom) = (pick(&HOW, 3), pick(&WHO, 5), pick(&DOES, 11), pick(&WHO, 13));
            text.push_str(&format!("The {how} {who} {does} the {whom} number {story}.\n"));
        }
        text.push_str("<|endoftext|>\n");
    }
    text
}

const VOCAB: usize = 330;

/// Texts, their vocabulary and shards in a folder.
fn data(folder: &Path) -> PrepareReport {
    let (train, valid, tokenizer) =
        (folder.join("train.txt"), folder.join("valid.txt"), folder.join("tokenizer.json"));
    fs::write(&train, stories(60, 0) + &stories(3, 0)).unwrap();
    fs::write(&valid, stories(8, 1)).unwrap();
    fs::write(&tokenizer, learn(std::slice::from_ref(&train), "text", VOCAB).unwrap()).unwrap();
    let options = PrepareOptions {
        train: vec![train],
        valid: vec![valid],
        field: "text".to_owned(),
        tokenizer,
        ..PrepareOptions::default()
    };
    prepare(&options, &folder.join("stories"), &mut |_| ()).unwrap()
}

fn config(ternary: bool) -> Config {
    let stage = |until, seq_len| Stage { until, seq_len, mix: [("stories".to_owned(), 1.0)].into() };
    let text = "steps = 16\nbatch_tokens = 256\nlearning_rate = 0.01\nmuon_learning_rate = 0.02\n\
                warmup_steps = 2\nmicro_tokens = 128\ncheckpoint_every = 5\nkeep = 2\nweight_decay = 0.01";
    Config {
        model: Shape {
            dim: 32,
            hidden_dim: 64,
            n_layers: 2,
            n_heads: 4,
            n_kv_heads: 2,
            vocab_size: VOCAB,
            seq_len: 64,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            activation: if ternary { Activation::Relu2 } else { Activation::Silu },
            sub_norms: ternary,
            tied: ternary,
            ternary,
        },
        training: toml::from_str::<Training>(text).unwrap(),
        stages: vec![stage(Some(7), 32), stage(None, 64)],
    }
}

fn run(folder: &Path, output: &str, config: Config, resume: bool) -> Run {
    let data = vec![folder.join("stories")];
    Run { config, data, output: folder.join(output), threads: 2, resume }
}

fn no_sample(_: &Path, _: &str) -> Result<String, TrainError> {
    Ok(String::new())
}

/// All events of a run that nobody stops.
fn events(run: &Run) -> Vec<Event> {
    let mut all = Vec::new();
    let ended = run.train(&AtomicBool::new(false), &mut no_sample, &mut |event| all.push(event.clone()));
    assert_eq!(ended.unwrap(), Ended::Done);
    all
}

/// Loss of each step.
fn losses(events: &[Event]) -> Vec<(u64, f64)> {
    let loss = |event: &Event| match event {
        Event::Step { step, loss, .. } => Some((*step, *loss)),
        _ => None,
    };
    events.iter().filter_map(loss).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = {
            let entry = entry.unwrap();
            (entry.path(), entry.file_name())
        };
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

#[test]
fn a_killed_training_goes_on_with_the_losses_of_an_unbroken_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let report = data(folder);
    assert_eq!((report.train.documents, report.valid.documents, report.duplicates), (60, 8, 3));
    let whole = run(folder, "whole", config(true), false);
    let killed = folder.join("killed");
    let mut unbroken = Vec::new();
    whole
        .train(&AtomicBool::new(false), &mut no_sample, &mut |event| {
            // What is on the disk when a process is killed at step 9, in the second stage.
            if let Event::Step { step: 9, .. } = event {
                copy(&whole.output, &killed);
            }
            unbroken.push(event.clone());
        })
        .unwrap();
    let unbroken = losses(&unbroken);
    assert_eq!(unbroken.len(), 16);
    assert!(unbroken[15].1 < unbroken[0].1 - 0.5, "{unbroken:?}");
    let resumed = events(&run(folder, "killed", config(true), true));
    assert_eq!(resumed[0], Event::Resumed { step: 5 });
    assert_eq!(losses(&resumed), unbroken[5..]);
    let mut kept: Vec<PathBuf> = fs::read_dir(&killed).unwrap().map(|e| e.unwrap().path()).collect();
    kept.retain(|path| path.to_string_lossy().contains("checkpoint"));
    kept.sort();
    assert_eq!(kept, ["checkpoint-00000015", "checkpoint-00000016"].map(|name| killed.join(name)));

    // Stopped, which writes a checkpoint where none was due.
    let stopped = run(folder, "stopped", config(true), false);
    let (stop, mut first) = (AtomicBool::new(false), Vec::new());
    let ended = stopped.train(&stop, &mut no_sample, &mut |event| {
        stop.fetch_or(matches!(event, Event::Step { step: 3, .. }), Ordering::Relaxed);
        first.push(event.clone());
    });
    assert_eq!(ended.unwrap(), Ended::Stopped);
    let rest = events(&run(folder, "stopped", config(true), true));
    assert_eq!([losses(&first), losses(&rest)].concat(), unbroken);
    let again = run(folder, "stopped", config(true), false).train(&stop, &mut no_sample, &mut |_| ());
    assert!(again.unwrap_err().to_string().contains("holds a training already"));
}

/// The loss that the trainer tells is that of the file which it writes, as the engine computes it.
#[test]
fn what_is_trained_is_what_the_engine_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    data(folder);
    let text = fs::read_to_string(folder.join("valid.txt")).unwrap();
    for ternary in [true, false] {
        let output = if ternary { "ternary" } else { "float" };
        let events = events(&run(folder, output, config(ternary), false));
        let told = events.iter().find_map(|event| match event {
            Event::Validation { nll, bits_per_byte, .. } => Some((*nll, *bits_per_byte)),
            _ => None,
        });
        let (nll, bits) = told.unwrap();
        let options = LoadOptions { kv_type: KvType::F32, ..LoadOptions::default() };
        let model = Model::load(&folder.join(output).join("model"), &options).unwrap();
        let found = perplexity(&model, &text, 64, Stride::Full, &mut |_, _, _| ()).unwrap();
        println!("{output}: {nll} and {}, {bits} and {} bits a byte", found.nll, found.bits_per_byte);
        assert!((nll - found.nll).abs() < 0.005 * found.nll, "{nll} for {}", found.nll);
        assert!((bits - found.bits_per_byte).abs() < 0.005 * found.bits_per_byte);
    }
}

#[test]
fn data_and_configurations_that_do_not_go_together_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    data(folder);
    let says = |config: Config| {
        let run = run(folder, "refused", config, false);
        run.train(&AtomicBool::new(false), &mut no_sample, &mut |_| ()).unwrap_err().to_string()
    };
    let with = |change: fn(&mut Config)| {
        let mut config = config(true);
        change(&mut config);
        config
    };
    let vocabulary = says(with(|c| c.model.vocab_size = 400));
    assert_eq!(vocabulary, "model.vocab_size: 330 tokens in the data stories, 400 in the model");
    let unknown = says(with(|c| c.stages[0].mix = [("tales".to_owned(), 1.0)].into()));
    assert_eq!(unknown, "stage 0: mix: no data set tales; there are stories");
    // A learning rate that no model stands: the loss is no number at some step, and the checkpoint before stays.
    let broken = says(with(|c| {
        c.training.learning_rate = 3e38;
        c.training.steps = 16;
        c.training.checkpoint_every = 1;
    }));
    assert!(broken.contains("nothing was changed since the checkpoint of step"), "{broken}");
    let (step, rest) = broken.split_once(": the ").unwrap();
    let (_, rest) = rest.split_once(", on documents ").unwrap();
    let (documents, checkpoint) = rest.split_once(" of stories: nothing was changed").unwrap();
    assert!(documents.split(", ").all(|i| (1..=60).contains(&i.parse::<usize>().unwrap())), "{broken}");
    assert_eq!(checkpoint.rsplit(' ').next(), step.rsplit(' ').next(), "{broken}");
    let last = folder.join(format!("refused/checkpoint-{:0>8}", step.rsplit(' ').next().unwrap()));
    assert!(
        last.join("state.json").exists() && folder.join("refused/model/config.json").exists(),
        "{broken}"
    );
    let path = folder.join("config.toml");
    let reads = |text: &str| {
        fs::write(&path, text).unwrap();
        Config::read(&path).unwrap_err().to_string()
    };
    let good = toml::to_string(&config(true)).unwrap();
    fs::write(&path, &good).unwrap();
    assert_eq!(Config::read(&path).unwrap(), config(true));
    assert!(reads(&good.replace("n_heads = 4", "n_heads = 3")).contains("model.n_heads: "));
    assert!(reads(&good.replace("steps = 16", "stepz = 16")).contains("unknown field `stepz`"));
    assert!(reads(&good.replace("until = 7", "until = 0")).contains("stage 0 ends at step 0"));
    assert!(reads("no toml").contains("config.toml"));
}
