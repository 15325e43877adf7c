//! `edgellm pull` against a hub on this machine.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod data;
mod hub_server;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use hub_server::{Behaviour, COMMIT, HubServer, etag};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

const REPO: &str = "tiny/model";
const GGUF: &str = "hf:tiny/model/model.gguf";

/// 300,000 bytes without a pattern that a cut could hide in.
fn weights() -> Vec<u8> {
    let mut state = 1u32;
    (0..300_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn gguf_repo() -> Behaviour {
    let files = BTreeMap::from([
        ("README.md".to_owned(), b"read me\n".to_vec()),
        ("model.gguf".to_owned(), weights()),
    ]);
    Behaviour { repo: REPO.to_owned(), files, ..Behaviour::default() }
}

fn folder_repo() -> Behaviour {
    let files = BTreeMap::from([
        ("config.json".to_owned(), b"{}".to_vec()),
        ("model.safetensors".to_owned(), weights()),
        ("onnx/model.onnx".to_owned(), b"not wanted".to_vec()),
        ("tokenizer.json".to_owned(), b"{\"model\": {}}".to_vec()),
    ]);
    Behaviour { repo: REPO.to_owned(), files, ..Behaviour::default() }
}

/// A hub, an empty cache and nothing else of the user's environment.
struct World {
    server: HubServer,
    home: TempDir,
}

impl World {
    fn new(behaviour: Behaviour) -> Self {
        Self { server: HubServer::start(behaviour), home: TempDir::new().unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("edgellm").unwrap();
        command.args(args).env_clear().env("HF_ENDPOINT", self.server.url()).env("HF_HOME", self.home.path());
        command
    }

    fn pull(&self, model: &str) -> Assert {
        self.command(&["pull", model]).assert()
    }

    fn repo(&self) -> PathBuf {
        self.home.path().join("hub/models--tiny--model")
    }

    fn snapshot(&self) -> PathBuf {
        self.repo().join("snapshots").join(COMMIT)
    }

    /// Names in the folder of blobs.
    fn blobs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.repo().join("blobs")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn assert_nothing_is_named(&self) {
        assert!(!self.snapshot().exists());
        assert!(!self.repo().join("refs").exists());
    }
}

#[test]
fn pulls_one_file_and_prints_its_path() {
    let world = World::new(gguf_repo());
    let path = world.snapshot().join("model.gguf");
    world.pull(GGUF).success().stdout(format!("{}\n", path.display()));
    assert_eq!(fs::read(&path).unwrap(), weights());
    assert_eq!(world.blobs(), [etag("model.gguf", &weights())]);
    assert_eq!(fs::read_to_string(world.repo().join("refs/main")).unwrap(), COMMIT);
}

#[test]
fn pulls_the_only_gguf_file_of_a_repository() {
    let world = World::new(gguf_repo());
    let path = world.snapshot().join("model.gguf");
    world.pull("hf:tiny/model").success().stdout(format!("{}\n", path.display()));
    assert!(!world.snapshot().join("README.md").exists());
}

#[test]
fn pulls_a_folder_of_safetensors_with_what_it_needs() {
    let world = World::new(folder_repo());
    world.pull("hf:tiny/model").success().stdout(format!("{}\n", world.snapshot().display()));
    assert_eq!(fs::read(world.snapshot().join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read(world.snapshot().join("tokenizer.json")).unwrap(), b"{\"model\": {}}");
    assert!(!world.snapshot().join("onnx").exists());
}

#[test]
fn a_file_that_is_there_is_not_fetched_again() {
    let world = World::new(gguf_repo());
    world.pull(GGUF).success();
    world.pull(GGUF).success();
    assert_eq!(world.server.ranges(), [None]);
}

#[test]
fn reports_json() {
    let world = World::new(gguf_repo());
    let output = world.command(&["pull", "--json", GGUF]).assert().success().get_output().stdout.clone();
    let report: serde_json::Value = serde_json::from_slice(&output).unwrap();
    let expected = serde_json::json!({
        "location": GGUF,
        "path": world.snapshot().join("model.gguf"),
        "commit": COMMIT,
        "files": [{"file": "model.gguf", "bytes": 300_000, "checksum": etag("model.gguf", &weights())}],
    });
    assert_eq!(report, expected);
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let world = World::new(Behaviour { cut: Some((100_000, 2)), ..gguf_repo() });
    world.pull(GGUF).success();
    let expected = [None, Some("bytes=100000-".to_owned()), Some("bytes=200000-".to_owned())];
    assert_eq!(world.server.ranges(), expected);
    assert_eq!(fs::read(world.snapshot().join("model.gguf")).unwrap(), weights());
}

#[test]
fn a_later_run_resumes_what_an_earlier_one_left() {
    let world = World::new(Behaviour { cut: Some((10_000, 5)), ..gguf_repo() });
    world
        .pull(GGUF)
        .code(1)
        .stderr(contains("of 300000 bytes").and(contains("hint: what was received is kept")));
    world.assert_nothing_is_named();
    assert_eq!(world.blobs(), [format!("{}.incomplete", etag("model.gguf", &weights()))]);
    world.server.change(|behaviour| behaviour.cut = None);
    world.pull(GGUF).success();
    assert_eq!(world.server.ranges().last().unwrap().as_deref(), Some("bytes=50000-"));
    assert_eq!(world.blobs(), [etag("model.gguf", &weights())]);
}

/// A disk that fills up, played by a limit on the size of files: 64 blocks of 512 bytes.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_the_download_goes_on_when_there_is_room() {
    let world = World::new(gguf_repo());
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" pull \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_edgellm"), GGUF]);
    command.env("HF_ENDPOINT", world.server.url()).env("HF_HOME", world.home.path());
    command.assert().code(1).stderr(contains(".incomplete: cannot write"));
    world.assert_nothing_is_named();
    world.pull(GGUF).success();
    assert_eq!(fs::read(world.snapshot().join("model.gguf")).unwrap(), weights());
}

#[test]
fn a_server_without_ranges_sends_everything_again() {
    let world = World::new(Behaviour { cut: Some((100_000, 1)), no_ranges: true, ..gguf_repo() });
    world.pull(GGUF).success();
    assert_eq!(fs::read(world.snapshot().join("model.gguf")).unwrap(), weights());
}

#[test]
fn a_spoiled_download_is_refused_and_leaves_nothing() {
    for behaviour in [gguf_repo(), folder_repo()] {
        let world = World::new(Behaviour { spoil: Some((1, usize::MAX)), ..behaviour });
        world.pull("hf:tiny/model").code(1).stderr(contains("checksum mismatch"));
        world.assert_nothing_is_named();
        assert_eq!(world.blobs(), Vec::<String>::new());
    }
}

#[test]
fn a_spoiled_beginning_of_an_earlier_run_is_fetched_anew() {
    let world = World::new(gguf_repo());
    let checksum = etag("model.gguf", &weights());
    let blobs = world.repo().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{checksum}.incomplete")), vec![0; 1000]).unwrap();
    world.pull(GGUF).success();
    assert_eq!(world.server.ranges(), [Some("bytes=1000-".to_owned()), None]);
    assert_eq!(fs::read(world.snapshot().join("model.gguf")).unwrap(), weights());
}

#[test]
fn verify_finds_a_file_that_has_changed_in_the_cache() {
    let world = World::new(gguf_repo());
    world.pull(GGUF).success();
    let mut changed = weights();
    changed[123_456] ^= 1;
    fs::write(world.repo().join("blobs").join(etag("model.gguf", &weights())), changed).unwrap();
    world.command(&["pull", "--verify", GGUF]).assert().success();
    assert_eq!(fs::read(world.snapshot().join("model.gguf")).unwrap(), weights());
}

#[test]
fn more_bytes_than_announced_are_refused() {
    let world = World::new(Behaviour { too_long: true, ..gguf_repo() });
    world.pull(GGUF).code(1).stderr(contains("more than the announced 300000 bytes"));
    world.assert_nothing_is_named();
}

#[test]
fn a_busy_server_is_asked_again() {
    let world = World::new(Behaviour { status: Some((503, 2)), ..gguf_repo() });
    world.pull(GGUF).success();
    let world = World::new(Behaviour { status: Some((503, usize::MAX)), ..gguf_repo() });
    world.pull(GGUF).code(1).stderr(contains("the server answered 503"));
}

#[test]
fn the_token_opens_the_hub_and_does_not_reach_the_storage() {
    let world = World::new(Behaviour { token: Some("hf_secret".to_owned()), storage: true, ..gguf_repo() });
    world
        .pull(GGUF)
        .code(1)
        .stderr(contains("access refused (401)").and(contains("hint:")).and(contains("HF_TOKEN")));
    world
        .command(&["pull", GGUF])
        .env("HF_TOKEN", "wrong")
        .assert()
        .code(1)
        .stderr(contains("the token was sent"));
    let assert = world.command(&["pull", GGUF]).env("HF_TOKEN", "hf_secret").assert().success();
    assert!(!String::from_utf8_lossy(&assert.get_output().stderr).contains("hf_secret"));
    let storage: Vec<_> =
        world.server.seen().into_iter().filter(|seen| seen.path.starts_with("/storage/")).collect();
    assert_eq!(storage.len(), 1);
    assert_eq!(storage[0].token, None);
    assert_eq!(fs::read(world.snapshot().join("model.gguf")).unwrap(), weights());
}

#[test]
fn the_token_of_the_login_file_is_used() {
    let world = World::new(Behaviour { token: Some("hf_file".to_owned()), ..gguf_repo() });
    fs::write(world.home.path().join("token"), "hf_file\n").unwrap();
    world.pull(GGUF).success();
}

#[test]
fn says_what_is_not_found() {
    let world = World::new(gguf_repo());
    world.pull("hf:tiny/model/other.gguf").code(1).stderr(contains("not found (EntryNotFound)"));
    world.pull("hf:tiny/other").code(1).stderr(contains("not found (RepoNotFound)"));
}

#[test]
fn offline_uses_the_cache_and_nothing_else() {
    let world = World::new(gguf_repo());
    let offline = |model: &str| {
        let mut command = world.command(&["pull", model]);
        command.env("HF_HUB_OFFLINE", "1").env("HF_ENDPOINT", "http://127.0.0.1:1");
        command.assert()
    };
    offline(GGUF)
        .code(1)
        .stderr(contains("hf:tiny/model/model.gguf is not in the cache").and(contains("HF_HUB_OFFLINE")));
    world.pull(GGUF).success();
    let path = world.snapshot().join("model.gguf");
    offline(GGUF).success().stdout(format!("{}\n", path.display()));
    offline("hf:tiny/model").success().stdout(format!("{}\n", path.display()));
    offline("hf:tiny/model/other.gguf").code(1);
}

#[test]
fn half_a_folder_is_no_model() {
    let world = World::new(folder_repo());
    world.pull("hf:tiny/model/config.json").success();
    let mut offline = world.command(&["pull", "hf:tiny/model"]);
    offline.env("HF_HUB_OFFLINE", "1").assert().code(1).stderr(contains("is not in the cache"));
    world.pull("hf:tiny/model").success();
    let mut offline = world.command(&["pull", "hf:tiny/model"]);
    offline.env("HF_HUB_OFFLINE", "1").assert().success();
}

#[test]
fn no_server_is_an_error_that_names_the_address() {
    let world = World::new(gguf_repo());
    let mut command = world.command(&["pull", GGUF]);
    command.env("HF_ENDPOINT", "http://127.0.0.1:1");
    command.assert().code(1).stderr(contains("http://127.0.0.1:1/tiny/model/resolve/main/model.gguf"));
    let mut command = world.command(&["pull", GGUF]);
    command.env("HF_ENDPOINT", "ftp://mirror").assert().code(1).stderr(contains("error: HF_ENDPOINT: "));
}

#[test]
fn headers_that_are_no_checksum_or_commit_never_become_paths() {
    for etag in ["../../../../escaped", "", "W/\"abc\"", "/etc/passwd"] {
        let world = World::new(Behaviour { etag: Some(etag.to_owned()), ..gguf_repo() });
        world.pull(GGUF).code(1).stderr(contains("cannot be verified"));
        assert!(!world.repo().exists());
    }
    let world = World::new(Behaviour { commit: Some("../../..".to_owned()), ..gguf_repo() });
    world.pull("hf:tiny/model").code(1).stderr(contains("is not a commit"));
    assert!(!world.repo().exists());
}

#[test]
fn file_names_that_leave_the_folder_are_ignored() {
    let mut behaviour = folder_repo();
    for name in ["../../escaped.safetensors", "/etc/escaped.safetensors", "a\\..\\b.safetensors"] {
        behaviour.files.insert(name.to_owned(), b"evil".to_vec());
    }
    let world = World::new(behaviour);
    world.pull("hf:tiny/model").success();
    let mut names: Vec<_> = fs::read_dir(world.snapshot())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
}

#[test]
fn many_gguf_files_want_a_choice() {
    let mut behaviour = gguf_repo();
    behaviour.files.insert("other.gguf".to_owned(), weights());
    let world = World::new(behaviour);
    world
        .pull("hf:tiny/model")
        .code(1)
        .stderr(contains("2 GGUF files: model.gguf, other.gguf").and(contains("hint: name one of them")));
}

#[test]
fn two_pulls_at_once_fetch_once() {
    let world = World::new(gguf_repo());
    let assert_pulls = |_| world.pull(GGUF).success();
    std::thread::scope(|scope| {
        for thread in [(); 2].map(|()| scope.spawn(|| assert_pulls(()))) {
            thread.join().unwrap();
        }
    });
    assert_eq!(world.blobs(), [etag("model.gguf", &weights())]);
    assert_eq!(fs::read(world.snapshot().join("model.gguf")).unwrap(), weights());
}

/// MODEL as `hf:…`: pulled when it is not there, then taken from the cache.
#[test]
fn a_model_argument_is_pulled_once_and_then_found() {
    let files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    let read = |name: &str| fs::read(data::own(&format!("models/qwen2-tiny/{name}"))).unwrap();
    let files = files.into_iter().map(|name| (name.to_owned(), read(name))).collect();
    let world = World::new(Behaviour { repo: REPO.to_owned(), files, ..Behaviour::default() });
    let tokenize = |offline: &str| {
        let mut command = world.command(&["tokenize", "hf:tiny/model", "the"]);
        command.env("HF_HUB_OFFLINE", offline).assert()
    };
    tokenize("1").code(1).stderr(contains("HF_HUB_OFFLINE"));
    tokenize("0").success().stdout("286\t\"the\"\n");
    let requests = world.server.seen().len();
    tokenize("0").success().stdout("286\t\"the\"\n");
    tokenize("1").success().stdout("286\t\"the\"\n");
    assert_eq!(world.server.seen().len(), requests);
}

#[test]
fn lists_the_names() {
    let world = World::new(gguf_repo());
    let list = world.command(&["pull", "--list"]).assert().success();
    let list = String::from_utf8(list.get_output().stdout.clone()).unwrap();
    for name in ["smollm2-135m-instruct", "llama-3.2-1b", "qwen2.5-0.5b", "bitnet-2b-4t"] {
        assert!(list.lines().any(|line| line.starts_with(name)), "{name} in\n{list}");
    }
    world.pull("no-such-name").code(1).stderr(contains("no name of a model").and(contains("pull --list")));
}
