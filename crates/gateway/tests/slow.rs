//! Clients that take their time, and answers that do. The clock stands still and leaps to the next thing that waits for
//! it, so that nothing here waits.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside #[test] functions")]

mod server;

use std::time::Duration;

use gateway::{Config, limits};
use serde_json::{Value, json};
use server::{Server, answer, null_source, slow_source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

async fn null() -> Server {
    let server = Server::start(Config { models: vec![null_source()], ..Config::default() }).await;
    tokio::time::pause();
    server
}

/// Sends a byte a second for as long as the other side listens; what it says, and after which time it closed.
async fn drip(server: &Server, first: &[u8], bytes: &[u8]) -> (Vec<u8>, Duration) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let started = Instant::now();
    stream.write_all(first).await.unwrap();
    let mut said = Vec::new();
    for byte in bytes {
        // A byte that is too late tells nothing: the end is what is read.
        let _ = stream.write_all(&[*byte]).await;
        if let Ok(read) = tokio::time::timeout(SECOND, stream.read_buf(&mut said)).await
            && read.is_ok_and(|n| n == 0)
        {
            return (said, started.elapsed());
        }
    }
    let _ = tokio::time::timeout(1000 * SECOND, stream.read_to_end(&mut said)).await.unwrap();
    (said, started.elapsed())
}

fn assert_about(time: Duration, limit: Duration) {
    assert!((limit - SECOND..limit + 3 * SECOND).contains(&time), "{time:?} for {limit:?}");
}

#[tokio::test]
async fn a_head_has_its_time_however_it_comes() {
    let server = null().await;
    let head = format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}", "a".repeat(200));
    for bytes in ["", "G", "P", "PRI * HTTP/2.0\r\n", &head] {
        let (said, time) = drip(&server, b"", bytes.as_bytes()).await;
        assert_about(time, limits::HEAD_TIME);
        let said = answer(&said);
        assert!([0, 408].contains(&said.status), "{bytes:?}: {}", said.head);
    }
    // Most of it at once and no end.
    let (_, time) = drip(&server, head.as_bytes(), b"").await;
    assert_about(time, limits::HEAD_TIME);
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn between_two_requests_there_is_as_much_time() {
    let server = null().await;
    let (said, time) = drip(&server, b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n", b"").await;
    assert_eq!(answer(&said).status, 200);
    assert_about(time, limits::HEAD_TIME);
}

#[tokio::test]
async fn a_body_has_its_time_and_is_answered() {
    let server = null().await;
    let spaces = " ".repeat(500);
    for path in ["/v1/chat/completions", "/v1/messages", "/api/chat", "/tokenize"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{");
        let (said, time) = drip(&server, head.as_bytes(), spaces.as_bytes()).await;
        let said = answer(&said);
        assert_eq!(said.status, 408, "{path}: {}", said.head);
        assert!(said.json()["error"].is_object() || said.json()["error"].is_string());
        assert_about(time, limits::BODY_TIME);
    }
    let chunked = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{   ";
    let (said, time) = drip(&server, chunked, b"").await;
    assert_eq!(answer(&said).status, 408);
    assert_about(time, limits::BODY_TIME);
}

/// Waits until what was sent and not read grows no more: the sender is held up. The model runs on a thread of its own, in real
/// time, so this waits in real time; meanwhile the clock stands still.
async fn until_full(stream: &TcpStream) {
    let (mut bytes, mut before, mut still) = (vec![0; 1 << 25], 0, 0);
    while still < 25 {
        let unread = stream.peek(&mut bytes).await.unwrap();
        still = if unread == before && unread > 1 << 16 { still + 1 } else { 0 };
        before = unread;
        tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(20))).await.unwrap();
    }
}

#[tokio::test]
async fn who_takes_no_answer_is_let_go() {
    let server = null().await;
    let body = json!({ "prompt": "a", "max_tokens": 200_000, "stream": true });
    let mut stream = server.begin("/v1/completions", &body).await;
    let mut said = vec![0; 1000];
    stream.read_exact(&mut said).await.unwrap();
    until_full(&stream).await;
    tokio::time::sleep(limits::WRITE_TIME + SECOND).await;
    let _ = stream.read_to_end(&mut said).await;
    assert!(!String::from_utf8_lossy(&said).contains("[DONE]"));
}

/// A stream up to its first text.
async fn until(stream: &mut TcpStream, mark: &str) -> String {
    let mut said = String::new();
    let mut bytes = vec![0; 1 << 16];
    loop {
        let n = stream.read(&mut bytes).await.unwrap();
        assert_ne!(n, 0, "{said}");
        let piece = String::from_utf8_lossy(&bytes[..n]);
        if said.len() < 4000 || piece.contains(mark) {
            said.push_str(&piece);
        }
        if piece.contains(mark) {
            return said;
        }
    }
}

#[tokio::test]
async fn streams_show_that_they_live_while_a_long_prompt_is_read() {
    let server = Server::start(Config { models: vec![slow_source()], ..Config::default() }).await;
    tokio::time::pause();
    let text = |i: usize| format!("{i} ").repeat(60);
    let chat = |i| json!([{ "role": "user", "content": text(i) }]);
    let cases: [(&str, Value, &str, &str); 4] = [
        ("/v1/completions", json!({ "prompt": text(1) }), ": keep-alive\n\n", "data: {"),
        ("/v1/chat/completions", json!({ "messages": chat(2) }), ": keep-alive\n\n", "\"content\":\""),
        (
            "/v1/messages",
            json!({ "model": "slow", "messages": chat(3) }),
            "event: ping\ndata: {\"type\":\"ping\"}\n\n",
            "text_delta",
        ),
        (
            "/api/generate",
            json!({ "prompt": text(4), "raw": true }),
            "\"response\":\"\",\"done\":false}\n",
            "\"done\":true",
        ),
    ];
    for (path, mut body, alive, mark) in cases {
        (body["max_tokens"], body["stream"]) = (1.into(), true.into());
        let mut stream = server.begin(path, &body).await;
        let said = until(&mut stream, mark).await;
        let before = said.split(mark).next().unwrap();
        assert!(before.contains(alive), "{path}: {before}");
    }
}
