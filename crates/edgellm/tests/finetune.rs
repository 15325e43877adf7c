//! The example from data to device on a model that is made on the spot, and what the commands refuse.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests stand outside #[test] functions"
)]

mod guarded;
mod small_disk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use serde_json::{Value, json};
use small_disk::SmallDisk;

fn edgellm(folder: &Path, args: &str) -> Output {
    let mut command = Command::new(cargo_bin("edgellm"));
    command.args(args.split_whitespace()).current_dir(folder);
    command.output().unwrap()
}

fn done(folder: &Path, args: &str) -> String {
    let output = edgellm(folder, args);
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

const CONFIG: &str = "
[model]
dim = 64
hidden_dim = 128
n_layers = 2
n_heads = 4
n_kv_heads = 2
vocab_size = 400
seq_len = 128
activation = 'silu'
sub_norms = false
ternary = false

[training]
steps = 30
batch_tokens = 512
learning_rate = 0.01
muon_learning_rate = 0.02
";

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}\
                        {% if add_generation_prompt %}assistant: {% endif %}";

/// A small Llama that has read the example's rows as text, with a chat template.
fn model(folder: &Path) -> PathBuf {
    let rows = fs::read_to_string(examples().join("fine-tune/train.jsonl")).unwrap();
    let rows = rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap());
    let text: String = rows
        .map(|r| format!("user: {}\nassistant: \n<|endoftext|>\n", r["prompt"].as_str().unwrap()))
        .collect();
    fs::write(folder.join("text.txt"), text).unwrap();
    fs::write(folder.join("config.toml"), CONFIG).unwrap();
    done(folder, "tokenizer train --data text.txt --vocab-size 400 --output tokenizer.json");
    done(folder, "data prepare --input text.txt --tokenizer tokenizer.json --output text");
    done(folder, "train --config config.toml --data text --output base --threads 2");
    let model = folder.join("base/model");
    fs::write(model.join("chat_template.jinja"), TEMPLATE).unwrap();
    model
}

#[test]
fn the_example_goes_from_data_to_answers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = model(folder);
    if Command::new("python3").arg("--version").output().is_err() {
        return println!("skipped: the example needs python3");
    }
    let script = Command::new("bash")
        .arg(examples().join("fine-tune.sh"))
        .args([&model, &folder.join("out")])
        .env("EDGELLM", cargo_bin("edgellm"))
        .env("FINETUNE_OPTIONS", "--epochs 4 --learning-rate 0.01 --threads 2")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&script.stdout), String::from_utf8_lossy(&script.stderr));
    println!("{out}{err}");
    assert!(script.status.success());
    let told = |name: &str| {
        let line = out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.filter(|line| line.contains("of 24 answers are right")).map(str::to_owned)
    };
    let [before, adapter, merged] = ["before", "adapter", "korrin"].map(told);
    assert!(merged.is_some() && before.is_some() && adapter.is_some_and(|a| Some(a) != before), "{out}");
    let log = fs::read_to_string(folder.join("out/adapter/log.jsonl")).unwrap();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let nll: Vec<f64> =
        events.iter().filter(|e| e["event"] == "validation").map(|e| e["nll"].as_f64().unwrap()).collect();
    assert!(nll.len() == 5 && nll[4] < nll[0] - 0.5, "{nll:?}");
    assert!(fs::read_to_string(folder.join("out/adapter/report.html")).unwrap().contains("<svg"));

    // Unmerged and merged say the same; the unadapted model something else.
    let answer = |model: &str| {
        let options = "--prompt What -t 0 -n 24 --activations f32 --kv-cache f32 --ignore-eos";
        done(folder, &format!("generate {model} {options}"))
    };
    done(folder, "merge --base-model base/model --adapter out/adapter --output f32.gguf --dtype f32");
    let merged = answer("f32.gguf");
    assert_eq!(answer("base/model --lora out/adapter"), merged);
    assert_ne!(answer("base/model"), merged);
    served(folder);
}

/// A server answers by the name of the model or of its adapter, in any order, as `generate` does.
fn served(folder: &Path) {
    let options = "-t 0 -n 24 --activations f32 --kv-cache f32";
    let base = done(folder, &format!("generate base/model --prompt What {options}"));
    let adapted = done(folder, &format!("generate base/model --lora out/adapter --prompt What {options}"));
    assert_ne!(base, adapted);
    let place = |name: &str, path: &str| format!("{name}={}", folder.join(path).display());
    let (model, adapter) = (place("base", "base/model"), place("korrin", "out/adapter"));
    let config = folder.join("gateway.toml");
    fs::write(&config, format!("models = [\"{model}\"]\nadapters = [\"{adapter}\"]\n")).unwrap();
    let flags: [&[&str]; 2] =
        [&["--model", &model, "--lora", &adapter], &["--config", config.to_str().unwrap()]];
    for flags in flags {
        let args = [&["--no-auth", "--activations", "f32", "--kv-cache", "f32"], flags].concat();
        let server = guarded::Server::start_with(folder, &args, &[]);
        for (name, text) in [("base", &base), ("korrin", &adapted), ("base", &base), ("korrin", &adapted)] {
            let body = json!({ "model": name, "prompt": "What", "max_tokens": 24, "temperature": 0 });
            let (status, answer) = server.ask("", "POST", "/v1/completions", Some(&body)).unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(status, 200, "{answer}");
            assert_eq!(format!("What{}\n", answer["choices"][0]["text"].as_str().unwrap()), *text, "{name}");
            assert_eq!(answer["model"], name);
        }
        server.kill();
    }
}

/// The loss of each step, of several the one told last.
fn losses(output: &Path) -> Vec<f64> {
    let mut losses = Vec::new();
    for line in fs::read_to_string(output.join("log.jsonl")).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["event"] == "step" {
            let step = event["step"].as_u64().unwrap() as usize;
            losses.resize(losses.len().max(step), f64::NAN);
            losses[step - 1] = event["loss"].as_f64().unwrap();
        }
    }
    losses
}

/// SIGINT to the program itself, and a disk on which there is room for one checkpoint: both can go on without a difference.
#[test]
fn a_fine_tuning_that_is_stopped_or_whose_disk_is_full_goes_on_as_if_it_were_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    model(folder);
    let rows = examples().join("fine-tune/train.jsonl").canonicalize().unwrap();
    let finetune = |options: &str| {
        let fixed = "--epochs 3 --lora-r 20 --learning-rate 0.01 --threads 2 --checkpoint-every 8";
        let data = rows.display();
        format!("finetune --base-model base/model --data {data} {fixed} {options}")
    };
    done(folder, &finetune("--output whole"));
    let whole = losses(&folder.join("whole"));
    assert_eq!(whole.len(), 36);

    let mut child = Command::new(cargo_bin("edgellm"));
    child.args(finetune("--output stopped").split_whitespace()).current_dir(folder);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !folder.join("stopped/checkpoint-00000008").exists() {
        sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let stopped = losses(&folder.join("stopped")).len();
    assert!(folder.join(format!("stopped/checkpoint-{stopped:08}/adapter_model.safetensors")).exists());
    assert!(stopped < 36 && !folder.join("stopped/adapter_model.safetensors").exists());
    done(folder, &finetune("--output stopped --resume"));
    assert_eq!(losses(&folder.join("stopped")), whole);
    let adapter = |output: &str| fs::read(folder.join(output).join("adapter_model.safetensors")).unwrap();
    assert!(adapter("stopped") == adapter("whole"));

    // A learning rate that no model stands: the rows are named, and the checkpoint before stays.
    let broken = edgellm(
        folder,
        &finetune("--output broken --method full").replace("0.01", "3e38").replace("every 8", "every 1"),
    );
    let error = String::from_utf8(broken.stderr).unwrap();
    assert_eq!(broken.status.code(), Some(1), "{error}");
    let (step, rest) = error.rsplit_once("error: step ").unwrap().1.split_once(": the ").unwrap();
    let (lines, rest) = rest.split_once(", on lines ").unwrap().1.split_once(" of /").unwrap();
    let lines: Vec<usize> = lines.split(", ").map(|line| line.parse().unwrap()).collect();
    assert!(
        lines.len() == 8 && lines.iter().all(|line| (1..=96).contains(line)) && lines.is_sorted(),
        "{error}"
    );
    let kept = format!("train.jsonl: nothing was changed since the checkpoint of step {step}\n");
    assert!(rest.ends_with(&kept), "{error}");
    assert!(folder.join(format!("broken/checkpoint-{step:0>8}/state.json")).exists(), "{error}");

    let Some(disk) = SmallDisk::mount(&folder.join("disk"), 1024) else { return };
    let full = edgellm(folder, &finetune("--output disk/run"));
    let error = String::from_utf8(full.stderr).unwrap();
    assert_eq!(full.status.code(), Some(1), "{error}");
    let last = error.lines().last().unwrap();
    assert!(
        last.starts_with("error: disk/run/") && last.contains("No space left on device (os error 28)"),
        "{error}"
    );
    // The checkpoint is an adapter that the engine reads.
    done(folder, "generate base/model --lora disk/run/checkpoint-00000008 --prompt What -n 4");
    assert!(!folder.join("disk/run/checkpoint-00000016").exists());
    disk.grow(16384);
    done(folder, &finetune("--output disk/run --resume"));
    assert_eq!(losses(&folder.join("disk/run")), whole);
}

#[test]
fn what_is_refused_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("rows.jsonl"), "{\"prompt\": \"a\"}\n").unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models");
    let says = |args: &str| {
        let output =
            edgellm(folder, &args.replace("MODEL", &models.join("qwen2-tiny").display().to_string()));
        assert_eq!(output.status.code(), Some(1), "{args}");
        String::from_utf8(output.stderr).unwrap()
    };
    let finetune = "finetune --base-model MODEL --data rows.jsonl --output out";
    assert!(says(finetune).contains("architecture: qwen2 cannot be trained"));
    assert!(says(&format!("{finetune} --method full --base-type nf4")).contains("nothing is frozen"));
    assert!(
        says("merge --base-model MODEL --adapter nowhere --output a.gguf").contains("adapter_config.json")
    );
    assert!(
        says("merge --base-model MODEL --adapter nowhere --output a").contains("does not tell the container")
    );
    assert!(says("generate MODEL --lora nowhere --prompt a").contains("adapter_config.json"));
    assert!(says("serve --no-auth --model MODEL --lora nowhere").contains("not a name and a folder"));
}
