//! Models that become ternary beside the float model that they were.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests stand outside #[test] functions"
)]

mod distance;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::eval::divergence;
use engine::{ActivationMode, KvType, LoadOptions, Model, Sequence};
use kernels::row::RowType;
use train::base::{Base, Storage, Written, load_rows, place};
use train::data::{Encoding, Example, PrepareOptions, examples, learn, prepare, shard_rows};
use train::finetune::{Event, Finetune, Finished, Method, Planes, Precision};
use train::model::{Activation, Layout, Shape};
use train::trainer::export;

fn shape() -> Shape {
    Shape {
        dim: 32,
        hidden_dim: 72,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        vocab_size: 300,
        seq_len: 128,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        activation: Activation::Silu,
        sub_norms: false,
        tied: false,
        ternary: false,
    }
}

fn noise(i: usize, by: f64) -> f32 {
    ((i as f64 * by).sin() * 43_758.545_3).fract() as f32
}

/// Random weights; norms around 1.
fn random(layout: &Layout, by: f64) -> Vec<f32> {
    let mut values: Vec<f32> = (0..layout.len()).map(|i| noise(i + 1, by) * 0.3).collect();
    for tensor in layout.tensors.iter().filter(|t| t.rows == 1) {
        values[tensor.range.clone()].iter_mut().for_each(|w| *w += 1.0);
    }
    values
}

/// A base with random weights in a folder, rows, and the same text as token shards.
fn files(folder: &Path) -> PathBuf {
    let text = folder.join("text.txt");
    let words = "What colour is the hen number of birds? It is red, blue or green. user assistant\n";
    fs::write(&text, words.repeat(40)).unwrap();
    let base = folder.join("base");
    let layout = Layout::new(&shape());
    export(&base, &shape(), &layout, &random(&layout, 12.9898), 0).unwrap();
    fs::write(base.join("tokenizer.json"), learn(&[text], "text", 280).unwrap()).unwrap();
    let config = "{\"bos_token\": \"<|endoftext|>\", \"eos_token\": \"<|endoftext|>\"}";
    fs::write(base.join("tokenizer_config.json"), config).unwrap();
    let colours = ["red", "blue", "green"];
    let row = |i: usize| format!("{{\"text\": \"The colour of hen {i} is {}.\"}}\n", colours[i % 3]);
    fs::write(folder.join("rows.jsonl"), (0..20).map(row).collect::<String>()).unwrap();
    fs::write(folder.join("held-out.jsonl"), (20..26).map(row).collect::<String>()).unwrap();
    base
}

fn qat(folder: &Path, base: &Path, output: &str) -> Finetune {
    Finetune {
        base: base.to_owned(),
        load: LoadOptions::default(),
        data: folder.join("rows.jsonl"),
        valid: Some(folder.join("held-out.jsonl")),
        output: folder.join(output),
        method: Method::Ternary {
            planes: Planes::One,
            gradual: 0.3,
            hidden: 0.5,
            patience: 30,
            start: None,
            embedding: true,
        },
        epochs: 20,
        batch_size: 5,
        learning_rate: 0.01,
        muon_learning_rate: Some(0.02),
        weight_decay: 0.0,
        warmup: 0.05,
        max_length: 64,
        micro_tokens: 60,
        recompute: false,
        precision: Precision::F32,
        validate_every: 8,
        checkpoint_every: 7,
        keep: 2,
        seed: 1,
        threads: 2,
        resume: false,
    }
}

fn run(finetune: &Finetune) -> (Vec<f32>, Vec<Event>) {
    let mut events = Vec::new();
    let finished = finetune.run(&AtomicBool::new(false), &mut |event| events.push(event.clone())).unwrap();
    let Finished::Model { written: Written::Ternary(_), parameters, .. } = finished else {
        panic!("{finished:?}")
    };
    (parameters, events)
}

/// All but the speed.
fn course(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::Step { step, loss, share, .. } => Some(format!("{step} {loss} {share:?}")),
        Event::Validation { step, tokens, nll, kl, hidden } => {
            Some(format!("{step} {tokens} {nll} {kl:?} {hidden:?}"))
        }
        _ => None,
    };
    events.iter().filter_map(line).collect()
}

fn divergences(events: &[Event]) -> Vec<f64> {
    let kl = |event: &Event| if let Event::Validation { kl, .. } = event { *kl } else { None };
    events.iter().filter_map(kl).collect()
}

/// What the engine makes of the rows with the base and with what became of it, all in floats.
fn engine_divergence(folder: &Path, base: &Path, planes: Planes, parameters: &[f32]) -> f64 {
    let options = LoadOptions {
        activations: ActivationMode::F32,
        kv_type: KvType::F32,
        threads: Some(1),
        ..LoadOptions::default()
    };
    let own = Base::load(base, &options, Storage::File).unwrap();
    let layout = Layout::new(&own.shape);
    let teacher = load_rows(base, &options).unwrap();
    let mut student = load_rows(base, &options).unwrap();
    place(&mut student, &layout, parameters, Written::Ternary(planes)).unwrap();
    let layer = &student.weights.layers[1];
    for linear in layer.linears() {
        let row_type = if planes == Planes::One { RowType::TG1 } else { RowType::TG2 };
        assert_eq!(linear.weight.row_type, row_type);
    }
    assert_eq!(student.weights.token_embedding.row_type, RowType::Q8_0);
    assert_eq!(student.weights.wcls.as_ref().unwrap().row_type, RowType::Q8_0);

    let encoding = Encoding { tokenizer: &own.tokenizer, template: None, eos: &own.eos, max_length: 64 };
    let (rows, _) = examples(&folder.join("held-out.jsonl"), &encoding).unwrap();
    let logits = |model: &Model, ids: &[u32]| {
        let mut all = Vec::new();
        let mut sequence = Sequence::new(model, ids.len()).unwrap();
        let mut keep = |_, logits: &[f32]| {
            all.push(logits.to_vec());
            Ok(())
        };
        sequence.forward_all(ids, &mut keep).unwrap();
        all
    };
    let (mut sum, mut n) = (0.0, 0.0);
    for row in &rows {
        let ids = &row.ids[..row.ids.len() - 1];
        for (p, q) in logits(&teacher, ids).iter().zip(&logits(&student, ids)) {
            sum += divergence(p, q);
            n += 1.0;
        }
    }
    sum / n
}

#[test]
fn a_model_becomes_ternary_and_the_engine_finds_what_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = files(folder);
    let whole = qat(folder, &base, "whole");
    let (parameters, events) = run(&whole);
    let kl = divergences(&events);
    println!("{kl:?}");
    let least = kl.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(least < 0.5 * kl[0], "{kl:?}");
    // The best is what is given back, and the file has it but for the embedding's and the classifier's 8 bits.
    let found = engine_divergence(folder, &base, Planes::One, &parameters);
    assert!((found - least).abs() < 0.02 * least, "{found} for {least}");
    let shares = events.iter().filter_map(|event| match event {
        Event::Step { share, .. } => *share,
        _ => None,
    });
    let shares: Vec<f32> = shares.collect();
    assert!(shares.is_sorted() && shares[0] > 0.0 && shares[0] < 0.1 && shares[30] == 1.0, "{shares:?}");

    // Stopped where no checkpoint is due.
    let stopped = Finetune { output: folder.join("stopped"), ..whole.clone() };
    let (stop, mut first) = (AtomicBool::new(false), Vec::new());
    let ended = stopped.run(&stop, &mut |event| {
        stop.fetch_or(matches!(event, Event::Step { step: 45, .. }), Ordering::Relaxed);
        first.push(event.clone());
    });
    assert!(matches!(ended.unwrap(), Finished::Stopped));
    let (later, rest) = run(&Finetune { resume: true, ..stopped.clone() });
    assert_eq!([course(&first), course(&rest)].concat(), course(&events));
    assert!(later == parameters);
    let other = Finetune { resume: true, validate_every: 9, ..stopped };
    let refused = other.run(&AtomicBool::new(false), &mut |_| ()).unwrap_err().to_string();
    assert!(refused.contains("validate-every was 8, not 9"), "{refused}");
}

#[test]
fn two_planes_are_nearer_than_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = files(folder);
    let of = |planes| {
        let method =
            Method::Ternary { planes, gradual: 0.3, hidden: 0.5, patience: 30, start: None, embedding: true };
        let output = format!("{planes:?}");
        run(&Finetune {
            method,
            learning_rate: 1e-3,
            muon_learning_rate: None,
            ..qat(folder, &base, &output)
        })
    };
    let one = divergences(&of(Planes::One).1);
    let (parameters, events) = of(Planes::Two);
    let two = divergences(&events);
    println!("{one:?}\n{two:?}");
    let least = |kl: &[f64]| kl.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(two[0] < 0.3 * one[0] && least(&two) < 0.5 * least(&one));
    let found = engine_divergence(folder, &base, Planes::Two, &parameters);
    assert!((found - least(&two)).abs() < 0.02 * least(&two) + 1e-4, "{found} for {two:?}");
}

#[test]
fn it_goes_on_from_a_model_that_was_made_before() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = files(folder);
    let (parameters, events) = run(&qat(folder, &base, "first"));
    let least = divergences(&events).into_iter().fold(f64::INFINITY, f64::min);
    let layout = Layout::new(&shape());
    let made = folder.join("made");
    export(&made, &shape(), &layout, &parameters, 0).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(base.join(file), made.join(file)).unwrap();
    }
    let from = |start: &Path| Method::Ternary {
        planes: Planes::One,
        gradual: 0.0,
        hidden: 0.5,
        patience: 30,
        start: Some(start.to_owned()),
        embedding: false,
    };
    let gently = Finetune { learning_rate: 1e-3, muon_learning_rate: None, ..qat(folder, &base, "second") };
    let second = Finetune { method: from(&made), ..gently };
    let (_, events) = run(&second);
    let kl = divergences(&events);
    assert!((kl[0] - least).abs() < 1e-6 * least, "{} for {least}", kl[0]);
    assert!(kl.iter().any(|kl| *kl < 0.95 * least), "{kl:?}");
    assert!(
        events.iter().all(|event| !matches!(event, Event::Step { share: Some(share), .. } if *share < 1.0))
    );

    let wide = Shape { hidden_dim: 2 * shape().hidden_dim, ..shape() };
    let layout = Layout::new(&wide);
    let other = folder.join("other");
    export(&other, &wide, &layout, &random(&layout, 12.9898), 0).unwrap();
    fs::copy(base.join("tokenizer.json"), other.join("tokenizer.json")).unwrap();
    let refused = Finetune { method: from(&other), ..qat(folder, &base, "refused") };
    let refused = refused.run(&AtomicBool::new(false), &mut |_| ()).unwrap_err().to_string();
    assert!(refused.contains("has another shape than the base model"), "{refused}");
}

#[test]
fn it_ends_when_the_divergence_does_not_fall_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = files(folder);
    // Steps too small to change anything.
    let still = Finetune {
        method: Method::Ternary {
            planes: Planes::One,
            gradual: 0.2,
            hidden: 0.5,
            patience: 2,
            start: None,
            embedding: false,
        },
        learning_rate: 1e-30,
        muon_learning_rate: None,
        ..qat(folder, &base, "still")
    };
    let (parameters, events) = run(&still);
    // All is rounded from step 16 of 80 on; the second validation from then on is that of step 24.
    assert_eq!(divergences(&events).len(), 4, "{events:?}");
    assert!(matches!(events.last(), Some(Event::Checkpoint { step: 24 })), "{:?}", events.last());
    let (again, rest) = run(&Finetune { resume: true, ..still });
    assert!(again == parameters && course(&rest).is_empty());
}

#[test]
fn token_shards_are_rows_and_what_does_not_go_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = files(folder);
    let own = Base::load(&base, &LoadOptions::default(), Storage::File).unwrap();
    let story = |i: usize| format!("The hen number {i} is {} and red.\n", "blue ".repeat(i));
    let text: String = (0..30).map(|i| story(i % 9) + "<|endoftext|>\n").collect();
    fs::write(folder.join("stories.txt"), &text).unwrap();
    let shards = folder.join("shards");
    let options = PrepareOptions {
        train: vec![folder.join("stories.txt")],
        valid: Vec::new(),
        valid_fraction: 0.3,
        field: "text".to_owned(),
        tokenizer: base.join("tokenizer.json"),
        seed: 1,
        ..PrepareOptions::default()
    };
    prepare(&options, &shards, &mut |_| ()).unwrap();
    let (rows, report) = shard_rows(&shards.join("train.tokens"), &own.tokenizer, 12).unwrap();
    let answers = |row: &Example| row.answers.iter().cloned().flatten().collect::<Vec<_>>();
    let whole = |row: &Example| answers(row).into_iter().eq(1..row.ids.len());
    assert!(rows.iter().all(|row| (2..=12).contains(&row.ids.len()) && whole(row)));
    assert!(report.rows == rows.len() && report.tokens > 12);
    assert!(rows[0].ids[0] == 0 && rows.iter().any(|row| row.ids.ends_with(&[0])));

    // Without documents to validate on there is nothing that could end it.
    let nothing = PrepareOptions { valid_fraction: 0.0, ..options.clone() };
    prepare(&nothing, &folder.join("nothing"), &mut |_| ()).unwrap();

    let trained =
        Finetune { data: shards.clone(), valid: None, epochs: 2, ..qat(folder, &base, "shards-run") };
    let (_, events) = run(&trained);
    let kl = divergences(&events);
    assert!(kl.len() > 1 && kl.iter().all(|kl| kl.is_finite()), "{kl:?}");

    let says = |change: &dyn Fn(&mut Finetune)| {
        let mut run = qat(folder, &base, "refused");
        change(&mut run);
        run.run(&AtomicBool::new(false), &mut |_| ()).unwrap_err().to_string()
    };
    assert!(says(&|run| run.valid = None).contains("val-data: qat needs rows to validate on"));
    let refused = says(&|run| (run.data, run.valid) = (folder.join("nothing"), None));
    assert!(refused.contains("val-data: qat needs rows to validate on"), "{refused}");
    let refused = says(&|run| run.valid = Some(folder.join("nothing")));
    assert!(refused.contains("valid.tokens: No such file"), "{refused}");
    let patience = Method::Ternary {
        planes: Planes::One,
        gradual: 0.3,
        hidden: 1.0,
        patience: 0,
        start: None,
        embedding: false,
    };
    assert_eq!(says(&|run| run.method = patience.clone()), "patience: is out of its range");
    let gradual = Method::Ternary {
        planes: Planes::One,
        gradual: 1.3,
        hidden: 1.0,
        patience: 1,
        start: None,
        embedding: false,
    };
    assert_eq!(says(&|run| run.method = gradual.clone()), "gradual: is out of its range");
    let nan = says(&|run| {
        run.learning_rate = 3e38;
        run.output = folder.join("nan");
    });
    assert!(nan.contains("nothing was changed since the checkpoint of step"), "{nan}");
    // Another vocabulary.
    let other = folder.join("other.json");
    fs::write(&other, learn(&[folder.join("stories.txt")], "text", 262).unwrap()).unwrap();
    let options = PrepareOptions { tokenizer: other, ..options };
    prepare(&options, &folder.join("other"), &mut |_| ()).unwrap();
    let refused = says(&|run| run.data = folder.join("other"));
    assert!(refused.contains("its vocabulary has 262 tokens, the model's has 280"), "{refused}");
}
