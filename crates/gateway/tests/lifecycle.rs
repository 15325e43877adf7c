//! Queue, cancel, load, drain.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside #[test] functions")]

mod server;

use std::time::Duration;

use gateway::{Config, ModelSource, Origin};
use serde_json::{Value, json};
use server::{Server, answer, null_source, slow_source, tiny_source};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

fn endless() -> Value {
    json!({ "prompt": [300, 301, 302], "max_tokens": 4000, "stream": true, "temperature": 0, "ignore_eos": true })
}

async fn slow(config: Config) -> Server {
    Server::start(Config { models: vec![slow_source()], ..config }).await
}

async fn wait_for(server: &Server, metric: &str, value: f64) {
    for _ in 0..1000 {
        if server.metric(metric).await == value {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{metric} is {} and not {value}", server.metric(metric).await);
}

/// Reads until something of the body has come.
async fn first_event(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.windows(5).any(|w| w == b"data:") {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "{}", String::from_utf8_lossy(&bytes));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_again_and_the_gone_make_room() {
    let server = slow(Config { parallel: 1, queue: 1, ..Config::default() }).await;
    let mut running = server.begin("/v1/completions", &endless()).await;
    first_event(&mut running).await;
    let waiting = server.begin("/v1/completions", &endless()).await;
    wait_for(&server, "waiting", 1.0).await;
    let refused = server.post("/v1/completions", &endless()).await;
    assert_eq!(
        (refused.status, refused.json()["error"]["type"].as_str()),
        (429, Some("rate_limit_exceeded"))
    );
    assert!(refused.head.contains("retry-after: "));
    assert_eq!(server.metric("refused_total").await, 1.0);
    drop((running, waiting));
    wait_for(&server, "running", 0.0).await;
    wait_for(&server, "waiting", 0.0).await;
    wait_for(&server, "kv_pages", 0.0).await;
    let mut short = endless();
    (short["max_tokens"], short["stream"]) = (json!(3), json!(false));
    assert_eq!(server.post("/v1/completions", &short).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_leave_nothing_behind() {
    let server = slow(Config { parallel: 32, queue: 200, ..Config::default() }).await;
    let mut clients = Vec::new();
    for i in 0..60 {
        let mut body = endless();
        // Some in the middle of their answer, some of their prompt, some of a request that is not streamed.
        if i % 3 == 1 {
            body["prompt"] = (0..2000).map(|t| 300 + (t * 7 + i) % 1000).collect::<Vec<u32>>().into();
        }
        body["stream"] = (i % 3 != 2).into();
        clients.push(server.begin("/v1/completions", &body).await);
    }
    first_event(&mut clients[0]).await;
    wait_for(&server, "running", 32.0).await;
    drop(clients);
    wait_for(&server, "running", 0.0).await;
    wait_for(&server, "waiting", 0.0).await;
    wait_for(&server, "kv_pages", 0.0).await;
    assert_eq!(server.metric("cancelled_total").await, 60.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_requests_finish_when_the_server_is_to_stop() {
    let mut server = slow(Config::default()).await;
    let mut body = endless();
    body["max_tokens"] = 60.into();
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(server.begin("/v1/completions", &body).await);
    }
    let first = first_event(&mut streams[15]).await;
    server.signal();
    // New requests are turned away as long as old ones run.
    while server.get("/ready").await.status != 503 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.post("/v1/completions", &endless()).await.status, 503);
    assert_eq!(server.get("/live").await.status, 200);
    for (i, mut stream) in streams.into_iter().enumerate() {
        let mut bytes = if i == 15 { first.clone() } else { Vec::new() };
        stream.read_to_end(&mut bytes).await.unwrap();
        let events = answer(&bytes).events();
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "stream {i}");
    }
    server.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn grace_ends() {
    let mut server = slow(Config { grace: Duration::from_millis(100), ..Config::default() }).await;
    let mut stream = server.begin("/v1/completions", &endless()).await;
    first_event(&mut stream).await;
    server.signal();
    server.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_model_is_loaded_nothing_is_answered_and_a_bad_one_ends_the_server() {
    let server = Server::start_loading(Config { models: vec![slow_source()], ..Config::default() }).await;
    let ready = server.get("/ready").await;
    if ready.status == 503 {
        assert!(ready.head.contains("retry-after: "));
    }
    assert_eq!(server.get("/live").await.status, 200);
    let origin = Origin::Path("/nowhere.gguf".into(), Box::default());
    let bad = ModelSource { name: "bad".to_owned(), origin };
    let server = Server::start_loading(Config { models: vec![bad], ..Config::default() }).await;
    assert!(server.ended().await.unwrap_err().to_string().contains("/nowhere.gguf"));
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_swapped_without_a_lost_request() {
    let two = ModelSource { name: "two".to_owned(), ..tiny_source() };
    // Room for one of them.
    let config =
        Config { models: vec![tiny_source(), two, null_source()], memory: Some(1), ..Config::default() };
    let server = Server::start(config).await;
    let ask = async |model: &str| {
        let body = json!({ "model": model, "prompt": "abc", "max_tokens": 20, "temperature": 0 });
        let answer = server.post("/v1/completions", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    let asked = (0..6).map(|i| ask(if i % 2 == 0 { "tiny" } else { "two" }));
    let texts = futures_util::future::join_all(asked).await;
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_stay_within_their_memory_whatever_is_asked() {
    let names = ["tiny", "two", "three", "four"];
    let models: Vec<ModelSource> =
        names.iter().map(|name| ModelSource { name: (*name).to_owned(), ..tiny_source() }).collect();
    let Origin::Path(path, options) = &models[0].origin else { panic!("it is a file") };
    let loaded = engine::Model::load(path, options).unwrap().memory(1);
    let of_files: u64 =
        std::fs::read_dir(path).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    // Room for two that are loaded: a third would have to come.
    let memory = Some(loaded.mapped + loaded.repacked + of_files);
    let server =
        Server::start(Config { models: models.clone(), memory, queue: 200, ..Config::default() }).await;
    let ask = async |i: usize| {
        let model = names[i * 7 % names.len()];
        let body = json!({ "model": model, "prompt": "abc", "max_tokens": 12, "temperature": 0, "stream": i.is_multiple_of(2) });
        let answer = server.post("/v1/completions", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let pieces = if i.is_multiple_of(2) { answer.events() } else { vec![answer.text()] };
        let texts = pieces.iter().filter_map(|piece| serde_json::from_str::<Value>(piece).ok());
        texts
            .map(|piece| piece["choices"][0]["text"].as_str().unwrap_or_default().to_owned())
            .collect::<String>()
    };
    let asked = futures_util::future::join_all((0..40).map(ask));
    let watched = async {
        let mut most = 0;
        loop {
            most = most.max(server.get("/api/ps").await.json()["models"].as_array().unwrap().len());
            assert!(most <= 2);
            tokio::task::yield_now().await;
        }
    };
    let texts = tokio::select! { texts = asked => texts, () = watched => panic!("it watches for ever") };
    assert!(texts.iter().all(|text| *text == texts[0] && !text.is_empty()), "{texts:?}");
}
