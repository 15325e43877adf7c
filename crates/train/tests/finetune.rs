//! Fine-tuning: from rows to adapters that PEFT and the engine read.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests stand outside #[test] functions"
)]

#[path = "../../engine/tests/data/mod.rs"]
mod data;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::LoadOptions;
use train::base::{Base, Storage};
use train::data::{Encoding, Example, examples, learn};
use train::finetune::{Event, Finetune, Finished, Method, Precision};
use train::model::{Activation, Adapters, Batch, Layout, Network, Shape, Wanted};
use train::peft;
use train::trainer::export;

const VOCAB: usize = 300;

fn shape() -> Shape {
    Shape {
        dim: 32,
        hidden_dim: 64,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        vocab_size: VOCAB,
        seq_len: 128,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        activation: Activation::Silu,
        sub_norms: false,
        tied: true,
        ternary: false,
    }
}

fn noise(i: usize, by: f64) -> f32 {
    ((i as f64 * by).sin() * 43_758.545_3).fract() as f32
}

/// A model with random weights as a folder, with a vocabulary and a chat template.
fn base(folder: &Path, shape: &Shape) -> PathBuf {
    let text = folder.join("text.txt");
    let words = "What colour is the hen number of birds? It is red, blue or green. user assistant\n";
    fs::write(&text, words.repeat(40)).unwrap();
    let model = folder.join("base");
    let layout = Layout::new(shape);
    let mut values: Vec<f32> = (0..layout.len()).map(|i| noise(i + 1, 12.9898) * 0.2).collect();
    for tensor in layout.tensors.iter().filter(|t| t.rows == 1) {
        values[tensor.range.clone()].iter_mut().for_each(|w| *w += 1.0);
    }
    export(&model, shape, &layout, &values, 0).unwrap();
    // Fewer tokens than embeddings, as models have it whose vocabulary is filled up.
    fs::write(model.join("tokenizer.json"), learn(&[text], "text", 280).unwrap()).unwrap();
    let config = "{\"bos_token\": \"<|endoftext|>\", \"eos_token\": \"<|endoftext|>\"}";
    fs::write(model.join("tokenizer_config.json"), config).unwrap();
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}\
                    {% if add_generation_prompt %}assistant: {% endif %}";
    fs::write(model.join("chat_template.jinja"), template).unwrap();
    model
}

const COLOURS: [&str; 3] = ["red", "blue", "green"];

/// Questions whose answers can be learned, in all forms of rows.
fn rows() -> String {
    let row = |i: usize| {
        let (question, answer) = (format!("What colour is hen {i}?"), format!("It is {}.", COLOURS[i % 3]));
        match i % 3 {
            0 => format!("{{\"prompt\": \"{question}\", \"completion\": \"{answer}\"}}\n"),
            1 => format!("{{\"instruction\": \"{question}\", \"input\": \"\", \"output\": \"{answer}\"}}\n"),
            _ => format!(
                "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{question}\"}}, \
                 {{\"role\": \"assistant\", \"content\": \"{answer}\"}}]}}\n"
            ),
        }
    };
    (0..18).map(row).collect()
}

fn adapters(storage: Storage) -> Method {
    let targets = ["q_proj", "v_proj", "down_proj"].map(str::to_owned).to_vec();
    Method::Adapters { rank: 4, alpha: 8.0, dropout: 0.1, targets, storage }
}

fn finetune(folder: &Path, base: &Path, output: &str, method: Method) -> Finetune {
    let data = folder.join("rows.jsonl");
    fs::write(&data, rows()).unwrap();
    Finetune {
        base: base.to_owned(),
        load: LoadOptions::default(),
        valid: Some(data.clone()),
        data,
        output: folder.join(output),
        method,
        epochs: 4,
        batch_size: 4,
        learning_rate: 0.02,
        muon_learning_rate: None,
        weight_decay: 0.0,
        warmup: 0.1,
        max_length: 64,
        micro_tokens: 60,
        recompute: false,
        precision: Precision::F32,
        validate_every: 0,
        checkpoint_every: 3,
        keep: 2,
        seed: 1,
        threads: 2,
        resume: false,
    }
}

fn run(finetune: &Finetune) -> (Finished, Vec<Event>) {
    let mut events = Vec::new();
    let finished = finetune.run(&AtomicBool::new(false), &mut |event| events.push(event.clone())).unwrap();
    (finished, events)
}

fn losses(events: &[Event]) -> Vec<(u64, f64)> {
    let loss = |event: &Event| match event {
        Event::Step { step, loss, .. } => Some((*step, *loss)),
        _ => None,
    };
    events.iter().filter_map(loss).collect()
}

fn validations(events: &[Event]) -> Vec<f64> {
    let nll = |event: &Event| if let Event::Validation { nll, .. } = event { Some(*nll) } else { None };
    events.iter().filter_map(nll).collect()
}

#[test]
fn every_method_learns_the_answers_and_a_stopped_one_goes_on_as_if_it_were_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = base(folder, &shape());
    let all = [
        ("lora", adapters(Storage::F32)),
        ("nf4", adapters(Storage::Nf4)),
        ("int4", adapters(Storage::Int4)),
        ("full", Method::Full),
    ];
    for (name, method) in all {
        let whole = Finetune { recompute: name == "nf4", ..finetune(folder, &base, name, method) };
        let (finished, events) = run(&whole);
        let (losses_of_whole, nll) = (losses(&events), validations(&events));
        println!("{name}: {nll:?}");
        assert!(nll.len() == 5 && nll[4] < nll[0] - 0.5, "{name}: {nll:?}");
        assert_eq!(losses_of_whole.len(), 20);
        // The rows' questions are of 18 different numbers of tokens in all, and only answers count.
        let Event::Data { train, trained, parameters, .. } = &events[0] else { panic!("{:?}", events[0]) };
        assert!(
            train.rows == 18 && train.cut == 0 && 4 * train.answer_tokens < 3 * train.tokens,
            "{train:?}"
        );
        assert_eq!(matches!(finished, Finished::Model { .. }), trained == parameters);

        // Stopped in the middle of an epoch, where no checkpoint is due.
        let stopped = Finetune { output: folder.join(format!("{name}-stopped")), ..whole.clone() };
        let (stop, mut first) = (AtomicBool::new(false), Vec::new());
        let ended = stopped.run(&stop, &mut |event| {
            stop.fetch_or(matches!(event, Event::Step { step: 7, .. }), Ordering::Relaxed);
            first.push(event.clone());
        });
        assert!(matches!(ended.unwrap(), Finished::Stopped));
        let again = stopped.run(&AtomicBool::new(false), &mut |_| ()).unwrap_err();
        assert!(again.to_string().contains("holds a training already"), "{again}");
        let (finished_later, rest) = run(&Finetune { resume: true, ..stopped.clone() });
        assert_eq!([losses(&first), losses(&rest)].concat(), losses_of_whole, "{name}");
        match (finished, finished_later) {
            (Finished::Model { parameters: a, .. }, Finished::Model { parameters: b, .. }) => assert!(a == b),
            _ => {
                let read = |output: &Path| fs::read(output.join("adapter_model.safetensors")).unwrap();
                assert!(read(&whole.output) == read(&stopped.output), "{name}");
            }
        }
        let other = Finetune { resume: true, learning_rate: 0.01, ..stopped };
        let refused = other.run(&AtomicBool::new(false), &mut |_| ()).unwrap_err().to_string();
        assert!(refused.contains("learning-rate was 0.019") && refused.contains("not 0.009"), "{refused}");
    }
    // What was trained is what is written, and it is the layout of the base.
    let layout = Layout::new(&shape());
    let (read, values) = peft::load(&folder.join("lora"), &layout).unwrap();
    assert_eq!((read.rank, read.scale), (4, 2.0));
    assert!(values.iter().all(|v| v.is_finite()) && values.iter().any(|v| *v != 0.0));
}

/// Frozen in few bits, a model gives the loss and the derivatives of the floats that the bits stand for.
#[test]
fn frozen_parameters_are_the_floats_that_they_stand_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = base(folder.path(), &shape());
    let batch = Batch::of_document(&(0..100).map(|i| i * 7 % 280).collect::<Vec<u32>>());
    let mut last = Vec::new();
    for (_, storage) in Storage::ALL {
        let base = Base::load(&path, &LoadOptions::default(), storage).unwrap();
        let layout = Layout::new(&base.shape);
        let adapters =
            Adapters::new(&layout, 3, 6.0, &["k_proj", "gate_proj", "down_proj"].map(str::to_owned));
        let values: Vec<f32> = (0..adapters.len()).map(|i| noise(i + 3, 7.7) * 0.1).collect();
        let mut network = Network::new(base.shape.clone(), 1, storage == Storage::Nf4);
        let mut d = [vec![0.0; adapters.len()], vec![0.0; adapters.len()]];
        let floats = base.frozen.to_floats(&layout);
        let frozen =
            network.run(&base.frozen, Some((&adapters, &values)), &batch, Wanted::Adapters(&mut d[0]));
        let plain = network.run(&floats, Some((&adapters, &values)), &batch, Wanted::Adapters(&mut d[1]));
        assert_eq!(frozen, plain, "{storage:?}");
        assert!(d[0] == d[1] && d[0].iter().any(|d| *d != 0.0), "{storage:?}");
        println!("{storage:?}: loss {frozen}, {} bytes", base.frozen.byte_len());
        last.push((storage, frozen));
    }
    // Fewer bits are further from the model, all are near it, and it makes a difference which.
    let at = |of: Storage| last.iter().find(|(storage, _)| *storage == of).unwrap().1;
    assert_eq!(at(Storage::F32), at(Storage::File));
    let away = |of| (at(of) - at(Storage::F32)).abs();
    assert!(away(Storage::Nf4) > 0.0 && away(Storage::Int4) > 0.0);
    assert!(away(Storage::Nf4).max(away(Storage::Int4)) < 0.2, "{last:?}");
}

/// The derivatives are those of the loss with the same inputs left out, and another seed leaves out others.
#[test]
fn dropout_has_the_derivatives_of_what_it_leaves() {
    let shape = Shape { vocab_size: 40, ..shape() };
    let layout = Layout::new(&shape);
    let frozen: Vec<f32> = (0..layout.len()).map(|i| noise(i + 1, 12.9898) * 0.3).collect();
    let mut adapters = Adapters::new(&layout, 2, 4.0, &["q_proj", "o_proj", "up_proj"].map(str::to_owned));
    adapters.dropout = 0.4;
    let values: Vec<f32> = (0..adapters.len()).map(|i| noise(i + 3, 7.7) * 0.3).collect();
    let batch = Batch::of_document(&(0..60).map(|i| i * 7 % 40).collect::<Vec<u32>>());
    let mut network = Network::new(shape, 2, true);
    network.seed_dropout(5);
    let (mut d, mut unused) = (vec![0.0; values.len()], vec![0.0; values.len()]);
    let loss = network.run(&frozen, Some((&adapters, &values)), &batch, Wanted::Adapters(&mut d));
    let direction: Vec<f32> = (0..values.len()).map(|i| noise(i + 7, 78.233)).collect();
    let expected: f64 = d.iter().zip(&direction).map(|(d, v)| f64::from(*d) * f64::from(*v)).sum();
    let step = 1e-3;
    let mut at = |by: f64, seed| {
        network.seed_dropout(seed);
        let moved: Vec<f32> =
            values.iter().zip(&direction).map(|(w, v)| w + (by * f64::from(*v)) as f32).collect();
        network.run(&frozen, Some((&adapters, &moved)), &batch, Wanted::Adapters(&mut unused))
    };
    let found = (at(step, 5) - at(-step, 5)) / (2.0 * step);
    println!("{found} for {expected}");
    assert!((found - expected).abs() < 0.01 * expected.abs(), "{found} for {expected}");
    assert_eq!(at(0.0, 5), loss);
    assert_ne!(at(0.0, 6), loss);
}

/// The same weights in llama2.c's order of rows and in Hugging Face's.
#[test]
fn models_of_files_are_taken_up_whatever_pairs_their_rotation_turns() {
    let Some(bin) = data::path("llama2c/stories260K.bin") else { return };
    let Some(folder) = data::path("golden/stories260K-hf") else { return };
    let Some(tokenizer) = data::path("llama2c/tok512.bin") else { return };
    let options = LoadOptions { tokenizer: Some(tokenizer), ..LoadOptions::default() };
    let [a, b] = [bin, folder].map(|path| {
        let base = Base::load(&path, &options, Storage::File).unwrap();
        let layout = Layout::new(&base.shape);
        (base.frozen.to_floats(&layout), base.shape)
    });
    assert!(a.0 == b.0);
    assert_eq!(Shape { seq_len: 0, ..a.1 }, Shape { seq_len: 0, ..b.1 });
}

/// What a row asks is the prompt that the engine makes of it, what it answers are the answer's tokens and an end token.
#[test]
fn rows_are_the_prompts_and_answers_of_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = Base::load(&base(folder, &shape()), &LoadOptions::default(), Storage::File).unwrap();
    let template = base.template.as_ref();
    let file = folder.join("rows.jsonl");
    fs::write(
        &file,
        "{\"instruction\": \"a hen\", \"input\": \"red\", \"output\": \"<|endoftext|>two\", \"system\": \"s\"}\n\
         {\"messages\": [{\"role\": \"user\", \"content\": \"one\"}, {\"role\": \"assistant\", \"content\": \"two\"}, \
         {\"role\": \"user\", \"content\": \"three\"}, {\"role\": \"assistant\", \"content\": \"four\"}]}\n\
         {\"text\": \"five six\"}\n{\"prompt\": \"seven\", \"completion\": \" eight\"}\n",
    )
    .unwrap();
    let encoding = Encoding { tokenizer: &base.tokenizer, template, eos: &base.eos, max_length: usize::MAX };
    let (rows, report) = examples(&file, &encoding).unwrap();
    let said = |row: &Example| -> Vec<String> {
        let text = |range: &std::ops::Range<usize>| base.tokenizer.decode(&row.ids[range.clone()]).unwrap();
        row.answers.iter().map(text).collect()
    };
    let all: Vec<Vec<String>> = rows.iter().map(said).collect();
    // The end token that an answer only spells is text.
    assert_eq!(all, [&["<|endoftext|>two"][..], &["two", "four"], &["five six"], &[" eight"]]);
    for row in &rows {
        assert!(row.answers.iter().all(|answer| row.ids[answer.end - 1] == 0), "{row:?}");
    }
    let message = engine::chat_template::Message::new;
    let prompt = [message("system", "s"), message("user", "a hen\n\nred")];
    let prompt = template.unwrap().encode(&base.tokenizer, &prompt, None, true).unwrap();
    assert_eq!(rows[0].ids[..rows[0].answers[0].start], prompt);
    let prompt = [message("user", "one"), message("assistant", "two"), message("user", "three")];
    let prompt = template.unwrap().encode(&base.tokenizer, &prompt, None, true).unwrap();
    assert_eq!(rows[1].ids[..rows[1].answers[1].start], prompt);
    assert_eq!((report.rows, report.cut, report.left_out), (4, 0, 0));

    // Without a template: one behind the other. Cut, and left out.
    let refused = examples(&file, &Encoding { template: None, ..encoding }).unwrap_err().to_string();
    assert!(refused.contains("line 2: messages: the model has no chat template"), "{refused}");
    let file = folder.join("pairs.jsonl");
    fs::write(&file, "{\"prompt\": \"seven hens\", \"completion\": \" eight birds\"}\n{\"text\": \"hen\"}\n")
        .unwrap();
    let (rows, _) = examples(&file, &Encoding { template: None, ..encoding }).unwrap();
    assert_eq!(base.tokenizer.decode(&rows[0].ids).unwrap(), "seven hens eight birds");
    assert_eq!(said(&rows[0]), [" eight birds"]);
    let start = rows[0].answers[0].start;
    let cut = |max_length| examples(&file, &Encoding { template: None, max_length, ..encoding }).unwrap().1;
    assert_eq!((cut(start + 1).rows, cut(start + 1).cut, cut(start + 1).left_out), (2, 1, 0));
    assert_eq!((cut(start).rows, cut(start).cut, cut(start).left_out), (1, 0, 1));
}

#[test]
fn what_cannot_be_done_is_said_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = base(folder, &shape());
    let says = |change: &dyn Fn(&mut Finetune)| {
        let mut run = finetune(folder, &base, "refused", adapters(Storage::F32));
        change(&mut run);
        let text = run.run(&AtomicBool::new(false), &mut |_| ()).unwrap_err();
        let mut chain = text.to_string();
        let mut source = std::error::Error::source(&text);
        while let Some(cause) = source {
            chain += &format!(": {cause}");
            source = cause.source();
        }
        chain
    };
    let rows = |text: &str| {
        let path = folder.join("bad.jsonl");
        fs::write(&path, text).unwrap();
        says(&|run: &mut Finetune| run.data = path.clone())
    };
    let good = "{\"prompt\": \"a\", \"completion\": \"b\"}\n";
    assert!(rows(&format!("{good}{{\"prompt\": \"a\"}}\n")).ends_with("line 2: completion is missing"));
    assert!(rows("{\"instruction\": \"a\", \"output\": \" \"}").ends_with("line 1: output is empty"));
    assert!(rows("{\"instruction\": \"a\", \"output\": 7}").ends_with("line 1: output is no text"));
    assert!(rows("\n{\"text\": \"\"}").ends_with("line 2: text is empty"));
    assert!(rows("{\"question\": \"a\"}").contains("none of the fields messages, instruction, prompt, text"));
    assert!(
        rows("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}")
            .contains("none is the assistant's")
    );
    let empty = "{\"messages\": [{\"role\": \"assistant\", \"content\": \"\"}]}";
    assert!(rows(empty).ends_with("messages[0].content is empty"));
    assert!(rows("not json").contains("line 1: expected"));
    assert!(rows("\n\n").ends_with("the file has no rows"));
    let long = format!("{{\"prompt\": \"{}\", \"completion\": \"b\"}}", "hen ".repeat(100));
    assert!(rows(&long).contains("nothing of the answers of its 1 rows is within 64 tokens"));

    let unknown = says(&|run: &mut Finetune| {
        let Method::Adapters { targets, .. } = &mut run.method else { return };
        *targets = vec!["qkv".to_owned()];
    });
    assert!(
        unknown.starts_with("target-modules: the model has no qkv, but down_proj, gate_proj, "),
        "{unknown}"
    );
    let rank = says(&|run: &mut Finetune| {
        let Method::Adapters { rank, .. } = &mut run.method else { return };
        *rank = 0;
    });
    assert_eq!(rank, "lora-r: is out of its range");
    let nan = says(&|run: &mut Finetune| {
        run.learning_rate = 3e38;
        run.output = folder.join("nan");
        run.checkpoint_every = 1;
    });
    assert!(nan.contains("nothing was changed since the checkpoint of step"), "{nan}");
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models");
    for (name, field) in [
        ("qwen2-tiny", "architecture: qwen2 cannot be trained"),
        ("tiny-gguf/llama3-scaled-tiny.gguf", "no tokenizer"),
    ] {
        let refused = says(&|run: &mut Finetune| run.base = models.join(name));
        assert!(refused.contains(field), "{name}: {refused}");
    }
}
