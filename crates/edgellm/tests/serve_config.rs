//! `edgellm serve` with keys, as a process: where its configuration comes from, and what it tells of requests.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod guarded;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use guarded::{Server, chat, edgellm, new_key};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let check = |port: Option<&str>, args: &[&str]| {
        let mut command = assert_cmd::Command::from_std(edgellm(folder.path()));
        command.args(["config", "check", "--config"]).arg(&file).args(args);
        command.envs(port.map(|port| ("GATEWAY_PORT", port)));
        command.assert()
    };
    write(
        "port = 1001\nmodels = [\"null\"]\n[limits.default]\nrequests_per_minute = 7\n[limits.models.null]\ntokens_per_minute = 9\n",
    );
    check(None, &[])
        .success()
        .stdout(contains("http://127.0.0.1:1001").and(contains("{\"requests_per_minute\":7}")));
    check(Some("1002"), &[])
        .success()
        .stdout(contains(":1002").and(contains("null: {\"tokens_per_minute\":9}")));
    check(Some("1002"), &["--port", "1003", "--host", "::1"]).success().stdout(contains("[::1]:1003"));
    check(None, &["--jwks", "/nowhere", "--jwt-algorithm", "rs256"]).code(1).stderr(contains("/nowhere"));
    // Adapters go with the file's models, and flags before both.
    write("models = [\"null\"]\nadapters = [\"own=/models/own\", \"two=/models/two\"]\n");
    check(None, &[]).success().stdout(contains("null, own, two\n"));
    check(None, &["--lora", "flag=/models/flag"]).success().stdout(contains("null, flag\n"));
    check(None, &["--model", "synthetic:bitnet-2b"]).success().stdout(contains("models   bitnet-2b\n"));
    write("models = [\"null\"]\nadapters = [\"/models/own\"]\n");
    check(None, &[]).code(1).stderr(contains("adapter /models/own: not a name and a folder"));
    // Without a model it is the one that the program carries.
    write("");
    check(None, &[]).success().stdout(contains("stories"));
    for (text, problem) in [
        ("prot = 1", "unknown field `prot`"),
        ("port = 99999", "port"),
        ("[limits.default]\nrequests_per_hour = 1", "requests_per_hour"),
        ("[limits.default]\nbudget_days = 0", "limits.default: budget_days"),
        ("[jwt]\nalgorithm = \"none\"", "none"),
    ] {
        write(text);
        check(None, &[]).code(1).stderr(contains(problem));
    }
    std::fs::remove_file(&file).unwrap();
    check(None, &[]).code(1).stderr(contains("gateway.toml"));
}

#[cfg(unix)]
#[test]
fn limits_and_models_are_read_again_at_sighup_and_requests_are_told_in_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let write = |models: &str, n: u32| {
        let text = format!("models = {models}\n[limits.default]\nrequests_per_minute = {n}\n");
        std::fs::write(&file, text).unwrap();
    };
    write("[\"null\"]", 1);
    let key = new_key(folder.path(), &[]);
    let config = file.to_str().unwrap();
    let env = [("GATEWAY_CONFIG", config), ("LOG_LEVEL", "info")];
    let server = Server::start_with(folder.path(), &[], &env);
    let status = || server.ask(&key, "POST", "/v1/chat/completions", Some(&chat())).unwrap().0;
    assert_eq!([status(), status()], [200, 429]);
    let hangup = || {
        assert!(
            Command::new("kill").args(["-HUP", &server.process.id().to_string()]).status().unwrap().success()
        )
    };
    std::fs::write(&file, "what is this").unwrap();
    hangup();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(status(), 429, "a file that is wrong changes nothing");
    let models = || {
        let (_, text) = server.ask(&key, "GET", "/v1/models", None).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        let names =
            list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(models(), ["null"]);
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/models/tiny-gguf/qwen2-tiny.gguf");
    write(&format!("[\"null\", \"tiny={tiny}\"]"), 1000);
    hangup();
    let start = Instant::now();
    while status() != 200 {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    while models() != ["null", "tiny"] {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    let ask_tiny = || {
        let body = json!({ "model": "tiny", "prompt": "a", "max_tokens": 2 });
        server.ask(&key, "POST", "/v1/completions", Some(&body)).unwrap().0
    };
    assert_eq!(ask_tiny(), 200, "the new model answers");
    write("[\"null\"]", 1000);
    hangup();
    while ask_tiny() != 404 {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    let log = server.log.clone();
    server.kill();
    std::thread::sleep(Duration::from_millis(100));
    let log = log.lock().unwrap();
    let told: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let id = key.split('_').nth(1).unwrap();
    let ours: Vec<_> = told.iter().filter(|line| line["subject"] == id).collect();
    assert!(
        ours.iter().any(|line| line["status"] == 200 && line["route"] == "/v1/chat/completions"),
        "{log}"
    );
    assert!(told.iter().any(|line| line["status"] == 429 && line["level"] == "warn"), "{log}");
    assert!(told.iter().all(|line| line["request_id"].as_str().is_some_and(|id| !id.is_empty())), "{log}");
    assert!(log.contains("read anew: models null, tiny"), "{log}");
}

/// The body of the next request of a collector's client.
fn collected(listener: &TcpListener) -> (String, Vec<u8>) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let end = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    loop {
        let n = stream.read(&mut piece).unwrap();
        assert_ne!(n, 0);
        bytes.extend_from_slice(&piece[..n]);
        let Some(at) = end(&bytes) else { continue };
        let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        if bytes.len() == at + length.parse::<usize>().unwrap() {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            return (head, bytes.split_off(at));
        }
    }
}

#[test]
fn requests_are_traced_under_the_span_of_their_client() {
    let folder = tempfile::tempdir().unwrap();
    let key = new_key(folder.path(), &[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::start(folder.path(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector)]);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = "00f067aa0ba902b7";
    let request = ureq::post(format!("{}/v1/chat/completions", server.url));
    let request = request.header("traceparent", format!("00-{trace}-{parent}-01"));
    let answer = request
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .send(chat().to_string())
        .unwrap();
    assert_eq!(answer.status(), 200);
    // What is asked when the server is ready is traced too: the request is in one of the first exports.
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    };
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(30), "the span does not come");
        let (head, body) = collected(&listener);
        assert!(
            head.starts_with("post /v1/traces http/1.1\r\n") && head.contains("application/x-protobuf"),
            "{head}"
        );
        let has = |wanted: &[u8]| body.windows(wanted.len()).any(|window| window == wanted);
        assert!(!has(b"a very private prompt") && !has(key.as_bytes()));
        if has(&bytes(trace)) {
            assert!(has(&bytes(parent)), "it is below the client's");
            for wanted in
                ["edgellm", "POST /v1/chat/completions", "gen_ai.usage.output_tokens", "first token"]
            {
                assert!(has(wanted.as_bytes()), "{wanted}");
            }
            break;
        }
    }
    server.kill();
}
