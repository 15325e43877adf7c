//! Batches, from file to file and on a server, whose process is killed in the middle.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside #[test] functions")]

mod data;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use data::{edgellm, own, stdout};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;
use tempfile::TempDir;

const REQUESTS: usize = 300;
/// Results before the process is killed.
const SOME: usize = 5;

/// A batch of texts that go on, and one request that is refused.
fn requests() -> String {
    let line = |i: usize| {
        let body = match i {
            7 => serde_json::json!({ "prompt": "a", "n": 0 }),
            _ => {
                serde_json::json!({ "prompt": format!("{i}"), "max_tokens": 40, "temperature": 0, "ignore_eos": true })
            }
        };
        let line = serde_json::json!({ "custom_id": format!("r{i}"), "method": "POST", "url": "/v1/completions", "body": body });
        format!("{line}\n")
    };
    (0..REQUESTS).map(line).collect()
}

fn model() -> String {
    format!("tiny={}", own("models/tiny-gguf/qwen2-tiny.gguf"))
}

fn spawn(args: &[&str], stderr: Stdio) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgellm"));
    command.args(args).stdout(Stdio::null()).stderr(stderr).spawn().unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The whole results of a journal: name of the request to name of the result.
fn in_journal(path: &Path) -> HashMap<String, String> {
    let Ok(text) = fs::read_to_string(path) else { return HashMap::new() };
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let name = |value: &Value| value.as_str().unwrap().to_owned();
    whole
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|entry| (name(&entry["outcome"]["custom_id"]), name(&entry["outcome"]["id"])))
        .collect()
}

/// Waits for some results, kills the process, and gives the results that it left.
fn kill_in_the_middle(mut process: Child, journal: &Path) -> HashMap<String, String> {
    while in_journal(journal).len() < SOME {
        assert!(process.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(Duration::from_millis(2));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    let left = in_journal(journal);
    assert!(left.len() < REQUESTS, "it was done before it was killed");
    left
}

/// Every request has one result in the order of the requests, and those that were there are the same.
fn check(results: &[Value], before: &HashMap<String, String>, expected: impl Iterator<Item = usize>) {
    let names: Vec<&str> = results.iter().map(|result| result["custom_id"].as_str().unwrap()).collect();
    assert_eq!(names, expected.map(|i| format!("r{i}")).collect::<Vec<_>>());
    for result in results {
        let name = result["custom_id"].as_str().unwrap();
        let status = if name == "r7" { 400 } else { 200 };
        assert_eq!(result["response"]["status_code"], status, "{result}");
        if let Some(id) = before.get(name) {
            assert_eq!(result["id"], id.as_str(), "{name} was computed again");
        }
    }
}

#[test]
fn a_killed_batch_goes_on_where_it_was() {
    let folder = TempDir::new().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (input, output, part) = (place("in.jsonl"), place("out.jsonl"), folder.path().join("out.jsonl.part"));
    fs::write(&input, requests()).unwrap();
    let model = model();
    let args = ["batch", &*input, &*output, "--model", &*model, "--parallel", "2", "--threads", "1"];
    let before = kill_in_the_middle(spawn(&args, Stdio::null()), &part);
    assert!(!Path::new(&output).exists());
    // As if the last line had not been written to its end.
    fs::OpenOptions::new().append(true).open(&part).unwrap().write_all(b"{\"place\":9").unwrap();
    stdout(&args);
    check(&lines(&fs::read_to_string(&output).unwrap()), &before, 0..REQUESTS);
    assert!(!part.exists());
}

#[test]
fn results_of_other_requests_are_not_mixed_in() {
    let folder = TempDir::new().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (input, output, part) = (place("in.jsonl"), place("out.jsonl"), folder.path().join("out.jsonl.part"));
    fs::write(&input, requests()).unwrap();
    let model = model();
    let args = ["batch", &*input, &*output, "--model", &*model, "--threads", "1"];
    kill_in_the_middle(spawn(&args, Stdio::null()), &part);
    fs::write(&input, requests().replace("\"max_tokens\":40", "\"max_tokens\":41")).unwrap();
    edgellm(&args).assert().failure().stderr(contains("out.jsonl.part").and(contains("other requests")));
}

/// A server and its port.
fn serve(folder: &Path) -> (Child, u16) {
    let model = model();
    let data = folder.to_str().unwrap();
    let args = [
        "serve",
        "--model",
        &*model,
        "--port",
        "0",
        "--no-auth",
        "--data",
        data,
        "--parallel",
        "2",
        "--threads",
        "1",
    ];
    let mut process = spawn(&args, Stdio::piped());
    let mut stderr = BufReader::new(process.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("http://") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    let port = said.rsplit(':').next().unwrap().trim().parse().unwrap();
    while ask(port, "GET", "/ready", "", "").0 != 200 {
        std::thread::sleep(Duration::from_millis(10));
    }
    // What is said besides must not fill the pipe.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    (process, port)
}

/// Status and body of an answer.
fn ask(port: u16, method: &str, path: &str, kind: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn json(port: u16, method: &str, path: &str, body: &str) -> Value {
    let (status, text) = ask(port, method, path, "application/json", body);
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn upload(port: u16) -> String {
    let form = format!(
        "--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
         --x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{}\r\n--x--\r\n",
        requests()
    );
    let (status, text) = ask(port, "POST", "/v1/files", "multipart/form-data; boundary=x", &form);
    assert_eq!(status, 200, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_batch_survives_the_server() {
    let folder = TempDir::new().unwrap();
    let (process, port) = serve(folder.path());
    let file = upload(port);
    let body =
        format!(r#"{{"input_file_id":"{file}","endpoint":"/v1/completions","completion_window":"24h"}}"#);
    let id = json(port, "POST", "/v1/batches", &body)["id"].as_str().unwrap().to_owned();
    let before =
        kill_in_the_middle(process, &folder.path().join("batches").join(&id).with_extension("journal"));

    let (mut process, port) = serve(folder.path());
    let path = format!("/v1/batches/{id}");
    let ended = loop {
        let batch = json(port, "GET", &path, "");
        if !["validating", "in_progress", "finalizing"].contains(&batch["status"].as_str().unwrap()) {
            break batch;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(
        ended["request_counts"],
        serde_json::json!({ "total": REQUESTS, "completed": REQUESTS - 1, "failed": 1 })
    );
    for (name, expected) in
        [("output_file_id", (0..REQUESTS).filter(|i| *i != 7).collect()), ("error_file_id", vec![7])]
    {
        let file = ended[name].as_str().unwrap();
        let (status, text) = ask(port, "GET", &format!("/v1/files/{file}/content"), "", "");
        assert_eq!(status, 200);
        check(&lines(&text), &before, expected.into_iter());
    }
    process.kill().unwrap();
    process.wait().unwrap();
}
