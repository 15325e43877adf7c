//! Requests that nobody should send.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod server;

use gateway::Config;
use server::{Server, null_source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn null() -> Server {
    Server::start(Config { models: vec![null_source()], ..Config::default() }).await
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let server = null().await;
    let deep = "[".repeat(100_000);
    let nested = format!("{{\"messages\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    for body in [
        &b""[..],
        b"{",
        b"\xff\xfe{}",
        b"{\"messages\":\"\xff\"}",
        b"{} {}",
        deep.as_bytes(),
        nested.as_bytes(),
    ] {
        for path in ["/v1/chat/completions", "/v1/completions", "/api/chat", "/tokenize"] {
            let answer = server.post_bytes(path, body).await;
            assert_eq!(
                answer.status,
                400,
                "{path}: {}",
                String::from_utf8_lossy(&body[..body.len().min(40)])
            );
            assert!(answer.json()["error"].is_object() || answer.json()["error"].is_string());
        }
    }
}

#[tokio::test]
async fn a_huge_body_is_refused_before_it_has_come() {
    let server = null().await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 99999999999\r\n\r\n";
    assert_eq!(server.send(head, b"{").await.status, 413);
    let big = vec![b' '; (16 << 20) + 1];
    assert_eq!(server.post_bytes("/v1/completions", &big).await.status, 413);
}

#[tokio::test]
async fn two_lengths_smuggle_nothing() {
    let server = null().await;
    let body = b"0\r\n\r\nGET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    for head in [
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = stream.write_all(body).await;
        stream.shutdown().await.ok();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8_lossy(&bytes);
        // What was smuggled behind the body must not be answered as a request of its own.
        assert!(!text.contains("{\"status\":\"ok\"}"), "{head}: {text}");
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = null().await;
    let long = format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(1 << 20));
    let answer = server.send(&long, b"").await;
    assert!([0, 400, 431].contains(&answer.status), "{}", answer.status);
    let many = format!("GET /health HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(5000));
    let answer = server.send(&many, b"").await;
    assert!([0, 400, 431].contains(&answer.status), "{}", answer.status);
    assert_eq!(server.send("NONSENSE\r\n\r\n", b"").await.status, 400);
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn paths_of_the_page_stay_inside() {
    let server = null().await;
    for path in ["/ui/../Cargo.toml", "/ui/%2e%2e/Cargo.toml", "/ui//etc/passwd", "/ui/nothing.js"] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    let page = server.get("/ui/").await;
    assert!(page.status == 200 && page.head.contains("content-security-policy"));
}
