//! Training through the command itself: from a text to a model, killed in between.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;

fn edgellm(folder: &Path, args: &str) -> String {
    let output = command(folder, args).output().unwrap();
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn command(folder: &Path, args: &str) -> Command {
    let mut command = Command::new(cargo_bin("edgellm"));
    command.args(args.split_whitespace()).current_dir(folder);
    command
}

/// Tales of numbers, each another.
fn text(from: usize, to: usize) -> String {
    let tale = |i: usize| {
        let (a, b) = (i * 7 % 30, i * 11 % 40);
        format!(
            "Once there were {a} hens and {b} ducks.\nTogether they were {} birds.\n<|endoftext|>\n",
            a + b
        )
    };
    (from..to).map(tale).collect()
}

const CONFIG: &str = "
[model]
dim = 32
hidden_dim = 64
n_layers = 2
n_heads = 4
n_kv_heads = 4
vocab_size = 300
seq_len = 64
activation = 'relu2'
sub_norms = true
ternary = true

[training]
steps = 60
batch_tokens = 512
learning_rate = 0.01
muon_learning_rate = 0.02
checkpoint_every = 10
validate_every = 30
sample_prompt = 'Once'
";

/// The loss of each step, of several the one told last, and the last validation's nll.
fn log(output: &Path) -> (Vec<f64>, f64) {
    let mut losses = vec![f64::NAN; 60];
    let mut nll = f64::NAN;
    for line in fs::read_to_string(output.join("log.jsonl")).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        match event["event"].as_str().unwrap() {
            "step" => losses[event["step"].as_u64().unwrap() as usize - 1] = event["loss"].as_f64().unwrap(),
            "validation" => nll = event["nll"].as_f64().unwrap(),
            _ => {}
        }
    }
    (losses, nll)
}

#[test]
fn a_training_that_is_killed_ends_like_one_that_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("train.txt"), text(0, 300)).unwrap();
    fs::write(folder.join("valid.txt"), text(1000, 1010)).unwrap();
    fs::write(folder.join("config.toml"), CONFIG).unwrap();
    edgellm(folder, "tokenizer train --data train.txt --vocab-size 300 --output tokenizer.json");
    let report = edgellm(
        folder,
        "data prepare --input train.txt --valid valid.txt --tokenizer tokenizer.json --output tales --json",
    );
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["valid"]["documents"], 10);

    let train = "train --config config.toml --data tales --threads 2";
    edgellm(folder, &format!("{train} --output whole"));
    let mut child = command(folder, &format!("{train} --output killed"));
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // SIGKILL: nothing is written after it. Where the training is done before it comes, there is nothing to resume.
    while !folder.join("killed/checkpoint-00000010").exists() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    edgellm(folder, &format!("{train} --output killed --resume"));
    let (whole, nll) = log(&folder.join("whole"));
    assert!(whole[59] < whole[0] - 1.0, "{whole:?}");
    assert_eq!(log(&folder.join("killed")), (whole, nll));
    let page = fs::read_to_string(folder.join("killed/report.html")).unwrap();
    assert!(page.matches("<svg").count() >= 5 && page.ends_with("</html>\n"), "{page}");

    let found =
        edgellm(folder, "eval perplexity whole/model --file valid.txt --stride full --context 64 --json");
    let found: Value = serde_json::from_str(&found).unwrap();
    let found = found["nll"].as_f64().unwrap();
    assert!((found - nll).abs() < 0.005 * nll, "the trainer says {nll}, the engine {found}");
}
