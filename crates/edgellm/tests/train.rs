//! Training through the command itself: from a text to a model, killed in between, or stopped at a terminal.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests stand outside #[test] functions"
)]

mod small_disk;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use rexpect::process::WaitStatus;
use rexpect::session::spawn_command;
use serde_json::{Value, json};
use small_disk::SmallDisk;

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

/// Texts, a vocabulary, shards and a configuration; also the report of the shards.
fn prepare(folder: &Path) -> Value {
    fs::write(folder.join("train.txt"), text(0, 300)).unwrap();
    fs::write(folder.join("valid.txt"), text(1000, 1010)).unwrap();
    fs::write(folder.join("config.toml"), CONFIG).unwrap();
    edgellm(folder, "tokenizer train --data train.txt --vocab-size 300 --output tokenizer.json");
    let report = edgellm(
        folder,
        "data prepare --input train.txt --valid valid.txt --tokenizer tokenizer.json --output tales --json",
    );
    serde_json::from_str(&report).unwrap()
}

const TRAIN: &str = "train --config config.toml --data tales --threads 2";

#[test]
fn a_training_that_is_killed_ends_like_one_that_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let report = prepare(folder);
    assert_eq!(report["valid"]["documents"], 10);

    edgellm(folder, &format!("{TRAIN} --output whole"));
    let mut child = command(folder, &format!("{TRAIN} --output killed"));
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // SIGKILL: nothing is written after it. Where the training is done before it comes, there is nothing to resume.
    while !folder.join("killed/checkpoint-00000010").exists() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    edgellm(folder, &format!("{TRAIN} --output killed --resume"));
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

/// Standard error at a terminal has the course as a picture, and Ctrl-C, which the terminal makes a SIGINT, costs no step.
#[test]
fn ctrl_c_at_a_terminal_stops_a_training_that_goes_on_as_if_it_had_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder);
    let at_a_terminal = |options: &str| {
        let mut command = command(folder, &format!("{TRAIN} {options}"));
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        spawn_command(command, Some(60_000)).unwrap()
    };
    edgellm(folder, &format!("{TRAIN} --output whole"));
    let mut terminal = at_a_terminal("--output stopped");
    while !folder.join("stopped/checkpoint-00000010").exists() {
        sleep(Duration::from_millis(1));
    }
    terminal.send_control('c').unwrap();
    let screen = terminal.exp_eof().unwrap();
    assert!(screen.contains("stopped: a checkpoint holds what was done, --resume goes on"), "{screen}");
    let status = terminal.process().wait().unwrap();
    assert!(matches!(status, WaitStatus::Exited(_, 130)), "{status:?}");
    let done = log(&folder.join("stopped")).0.iter().filter(|loss| loss.is_finite()).count();
    let checkpoint = folder.join(format!("stopped/checkpoint-{done:08}"));
    assert!(done < 60 && checkpoint.join("state.json").exists(), "{done} steps");

    let mut terminal = at_a_terminal("--output stopped --resume");
    let screen = terminal.exp_eof().unwrap();
    let status = terminal.process().wait().unwrap();
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    let (whole, _) = log(&folder.join("whole"));
    assert_eq!(log(&folder.join("stopped")).0, whole);
    // The last picture, with the steps from before Ctrl-C in its curve. The session makes a character of each byte.
    let screen = String::from_utf8(screen.chars().map(|c| c as u8).collect()).unwrap();
    let picture = screen.rsplit_once("loss, nats a token").unwrap().1;
    for figure in ["step 60 of 60", "checkpoint of step 60", "what it wrote at step 60", "tokens/s"] {
        assert!(picture.contains(figure), "{figure} is missing in {picture}");
    }
    let dots = picture.chars().filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count();
    assert!(dots > 40, "{dots} cells of a curve in {picture}");

    // The bar alone.
    let config = CONFIG.replace("steps = 60", "steps = 5");
    fs::write(folder.join("config.toml"), config).unwrap();
    let screen = at_a_terminal("--output plain --plain").exp_eof().unwrap();
    assert!(screen.contains("5/5") && !screen.contains("nats a token"), "{screen}");
    let events = edgellm(folder, &format!("{TRAIN} --output events --json"));
    let first: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    assert_eq!((&first["event"], &first["step"]), (&json!("step"), &json!(1)));
}

/// The disk has room for a checkpoint and not for two: the error says so, the first stays, and with more room the training
/// goes on as if it had not been cut off.
#[test]
fn a_full_disk_ends_a_training_and_costs_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder);
    let Some(disk) = SmallDisk::mount(&folder.join("disk"), 1024) else { return };
    edgellm(folder, &format!("{TRAIN} --output whole"));
    let output = command(folder, &format!("{TRAIN} --output disk/run")).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    let last = error.lines().last().unwrap();
    assert!(
        last.starts_with("error: disk/run/") && last.contains("No space left on device (os error 28)"),
        "{error}"
    );
    let checkpoint = folder.join("disk/run/checkpoint-00000010");
    for name in ["state.json", "model.safetensors", "optimizer.safetensors"] {
        assert!(checkpoint.join(name).exists(), "{name}: {error}");
    }
    assert!(!folder.join("disk/run/.checkpoint.part").exists());
    // What was written last can be read, too.
    edgellm(folder, "generate disk/run/model --prompt Once -n 4");
    disk.grow(8192);
    edgellm(folder, &format!("{TRAIN} --output disk/run --resume"));
    assert_eq!(log(&folder.join("disk/run")), log(&folder.join("whole")));
}

/// Texts of a Parquet file that another library wrote, a text that came before in other words, and one that nearly did.
#[test]
fn data_prepare_reads_parquet_and_finds_near_duplicates() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder);
    let parquet = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/parquet/snappy.parquet");
    let words: Vec<String> = (0..120).map(|i| format!("word{}", i * i % 997)).collect();
    let nearly = words.join(" ").to_uppercase().replace("WORD36 ", "other ");
    let other: Vec<String> = words.iter().rev().cloned().collect();
    fs::write(folder.join("a.txt"), words.join(" ")).unwrap();
    fs::write(folder.join("b.txt"), format!("{}\n<|endoftext|>\n{nearly}", other.join(" "))).unwrap();
    let prepare = |options: &str| -> Value {
        let input = format!("--valid a.txt --input b.txt {}", parquet.display());
        let args =
            format!("data prepare {input} --tokenizer tokenizer.json --output shards --json {options}");
        serde_json::from_str(&edgellm(folder, &args)).unwrap()
    };
    let report = prepare("");
    assert_eq!(report["duplicates"], 1);
    assert_eq!((&report["train"]["documents"], &report["near_duplicates"]), (&json!(6), &json!(1)));
    let example = &report["near_duplicate_examples"][0];
    assert_eq!((&example["file"], &example["document"]), (&json!("b.txt"), &json!(2)));
    assert_eq!((&example["like_file"], &example["like_document"]), (&json!("a.txt"), &json!(1)));
    assert!(example["similarity"].as_f64().unwrap() >= 0.8, "{example}");
    let report = prepare("--near-duplicates drop");
    assert_eq!((&report["train"]["documents"], &report["near_duplicates"]), (&json!(5), &json!(1)));
    let report = prepare("--near-duplicates ignore");
    assert_eq!((&report["train"]["documents"], &report["near_duplicates"]), (&json!(6), &json!(0)));

    let wrong = format!(
        "data prepare --input {} --field id --tokenizer tokenizer.json --output no",
        parquet.display()
    );
    let output = command(folder, &wrong).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("snappy.parquet: column id holds no texts"));
}
