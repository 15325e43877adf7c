//! Several instances on one database, and a database that goes away.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod access;
mod server;
mod services;

use std::time::{Duration, Instant};

use access::{admin, ask, chat, config, key, start, told};
use gateway::settings::{AccessConfig, Outage};
use gateway::{Limits, Role};
use serde_json::json;
use server::Server;
use services::Postgres;

/// Both instances see what one of them did within a second.
async fn changes_are_seen_everywhere(one: AccessConfig, other: AccessConfig) {
    let (_, boss) = key(&admin(&one).await, "boss", Role::Admin, Limits::default()).await;
    let servers = [start(one).await, start(other).await];
    let sees = async |server: &Server, key: &str, wanted: u16| {
        let start = Instant::now();
        while chat(server, key).await.status != wanted {
            assert!(start.elapsed() < Duration::from_secs(1), "a second later it is not {wanted}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    for _ in 0..3 {
        let made =
            ask(&servers[0], &boss, "POST", "/api/keys", r#"{"name": "laptop", "owner": "alice"}"#).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let (id, text) =
            (made.json()["id"].as_str().unwrap().to_owned(), made.json()["key"].as_str().unwrap().to_owned());
        assert_eq!(chat(&servers[0], &text).await.status, 200, "at once where it was made");
        sees(&servers[1], &text, 200).await;
        let rotated = ask(&servers[1], &boss, "POST", &format!("/api/keys/{id}/rotate"), "").await.json();
        let second = rotated["key"].as_str().unwrap();
        assert_eq!(chat(&servers[1], &text).await.status, 401, "the old text, at once where it was rotated");
        sees(&servers[0], &text, 401).await;
        sees(&servers[0], second, 200).await;
        let gone = ask(&servers[0], &boss, "DELETE", &format!("/api/keys/{id}"), "").await;
        assert!(gone.json()["revoked_at"].is_u64());
        assert_eq!(chat(&servers[0], second).await.status, 401);
        sees(&servers[1], second, 401).await;
        let refused = chat(&servers[1], second).await.json();
        assert_eq!(refused["error"]["message"], "This API key has been revoked");
    }
    // What both have answered adds up.
    servers[1].get("/health").await;
    ask(&servers[1], &boss, "GET", "/api/stats", "").await;
    let stats = told(&servers[0], &boss, "/api/admin/stats").await;
    let by_key = stats["by_owner"].as_array().unwrap();
    let alice = by_key.iter().find(|part| part["name"] == "alice").unwrap();
    assert!(alice["requests"].as_i64().unwrap() >= 9 && alice["errors"] == 0, "{alice}");
    let log = told(&servers[0], &boss, "/api/admin/audit?limit=3").await;
    let actions: Vec<_> =
        log["data"].as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions, [json!("key.revoke"), json!("key.rotate"), json!("key.create")]);
    let (alice_sees, all) = (
        told(&servers[0], &boss, "/api/keys?owner=alice&limit=2").await,
        told(&servers[0], &boss, "/api/keys").await,
    );
    assert_eq!((alice_sees["data"].as_array().unwrap().len(), &alice_sees["has_more"]), (2, &json!(true)));
    assert_eq!(all["data"].as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_on_one_file_agree() {
    let folder = tempfile::tempdir().unwrap();
    changes_are_seen_everywhere(config(folder.path()), config(folder.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_on_postgresql_agree_and_lose_nothing_when_it_is_gone() {
    let Some(postgres) = Postgres::start() else { return };
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let on_postgres = |i: usize| {
        let mut access = config(folders[i].path());
        access.database = postgres.url();
        access
    };
    changes_are_seen_everywhere(on_postgres(0), on_postgres(1)).await;
    for outage in [Outage::Open, Outage::Closed] {
        let access = AccessConfig { outage, ..on_postgres(0) };
        let (_, text) =
            key(&admin(&access).await, &format!("{outage:?}"), Role::User, Limits::default()).await;
        let server = start(access).await;
        assert_eq!(chat(&server, &text).await.status, 200);
        postgres.stop();
        let mut answered = 1;
        if outage == Outage::Open {
            for _ in 0..20 {
                assert_eq!(chat(&server, &text).await.status, 200, "known keys go on");
                answered += 1;
            }
            assert_eq!(ask(&server, &text, "GET", "/api/stats", "").await.status, 503);
        } else {
            // Until it is noticed, keys are known; then nobody is let in.
            let start = Instant::now();
            loop {
                match chat(&server, &text).await.status {
                    200 => answered += 1,
                    status => break assert_eq!(status, 503),
                }
                assert!(start.elapsed() < Duration::from_secs(10));
            }
            assert_eq!(server.get("/health").await.json()["database"], "gone");
        }
        postgres.again();
        while server.get("/health").await.json()["database"] != "ok"
            || chat(&server, &text).await.status != 200
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        answered += 1;
        let stats = loop {
            let stats = ask(&server, &text, "GET", "/api/stats", "").await;
            if stats.status == 200 {
                break stats.json();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        // Some were let in beside those that were counted, while the return was waited for.
        let requests = stats["requests"].as_i64().unwrap();
        assert!(requests >= answered && stats["completion_tokens"] == requests, "{answered}: {stats}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_batches_belong_to_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let access = config(folder.path());
    let keys = admin(&access).await;
    let (_, alice) = key(&keys, "alice", Role::User, Limits::default()).await;
    let (_, second) = key(&keys, "alice", Role::User, Limits::default()).await;
    let (_, bob) = key(&keys, "bob", Role::User, Limits::default()).await;
    let server = start(access).await;
    let line = json!({ "custom_id": "a", "method": "POST", "url": "/v1/completions", "body": { "prompt": "x", "max_tokens": 5 } });
    let body = format!(
        "--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--x\r\ncontent-disposition: form-data; \
         name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{line}\r\n--x--\r\n"
    );
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: Bearer {alice}\r\ncontent-type: \
         multipart/form-data; boundary=x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let file = server.send(&head, body.as_bytes()).await.json();
    let file = file["id"].as_str().unwrap().to_owned();
    let request = json!({ "input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h" })
        .to_string();
    assert_eq!(ask(&server, &bob, "POST", "/v1/batches", &request).await.status, 400, "somebody else's file");
    let batch = ask(&server, &alice, "POST", "/v1/batches", &request).await.json();
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    let done = loop {
        let batch = told(&server, &second, &path).await;
        if batch["status"] == "completed" {
            break batch;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(done["request_counts"]["completed"], 1, "{done}");
    for of_alice in [
        path.clone(),
        format!("{path}/cancel"),
        format!("/v1/files/{file}"),
        format!("/v1/files/{file}/content"),
    ] {
        let method = if of_alice.ends_with("cancel") { "POST" } else { "GET" };
        assert_eq!(ask(&server, &bob, method, &of_alice, "").await.status, 404, "{of_alice}");
    }
    assert_eq!(ask(&server, &bob, "DELETE", &format!("/v1/files/{file}"), "").await.status, 404);
    assert_eq!(told(&server, &bob, "/v1/files").await["data"], json!([]));
    assert_eq!(told(&server, &alice, "/v1/files").await["data"].as_array().unwrap().len(), 2);
    let stats = told(&server, &alice, "/api/stats").await;
    assert_eq!(stats["completion_tokens"], 5, "the batch is on the account of who has asked for it: {stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_tell_who_used_what() {
    let folder = tempfile::tempdir().unwrap();
    let access = config(folder.path());
    let keys = admin(&access).await;
    let (id, alice) = key(&keys, "alice", Role::User, Limits::default()).await;
    let (_, bob) = key(&keys, "=bob,\"evil\"", Role::User, Limits::default()).await;
    let (_, boss) = key(&keys, "boss", Role::Admin, Limits::default()).await;
    let server = start(access).await;
    for _ in 0..3 {
        assert_eq!(chat(&server, &alice).await.status, 200);
    }
    assert_eq!(chat(&server, &bob).await.status, 200);
    assert_eq!(ask(&server, &bob, "POST", "/v1/completions", "{\"n\": 0}").await.status, 400);
    let own = told(&server, &alice, "/api/stats/detailed?days=1").await;
    assert_eq!((&own["totals"]["requests"], &own["by_model"][0]["name"]), (&json!(3), &json!("null")));
    assert_eq!(
        (&own["by_key"][0]["name"], &own["by_endpoint"][0]["name"]),
        (&json!(id), &json!("/v1/chat/completions"))
    );
    assert_eq!(own["by_day"].as_array().unwrap().len(), 1);
    let latency = &own["latency_ms"];
    assert!(
        latency["p50"].as_f64().unwrap() > 0.0 && latency["p50"].as_f64() <= latency["p99"].as_f64(),
        "{latency}"
    );
    let all = told(&server, &boss, "/api/admin/stats").await;
    assert_eq!((&all["totals"]["requests"], &all["totals"]["errors"]), (&json!(5), &json!(1)));
    assert_eq!((&all["by_owner"][0]["name"], &all["failures"][0]["status"]), (&json!("alice"), &json!(400)));
    let csv = ask(&server, &boss, "GET", "/api/admin/stats/export.csv", "").await.text();
    assert_eq!(csv.lines().count(), 6);
    assert!(csv.contains(",\"'=bob,\"\"evil\"\"\",null,/v1/chat/completions,200,"), "{csv}");
    let own = ask(&server, &alice, "GET", "/api/stats/export.csv", "").await.text();
    assert_eq!(own.lines().filter(|line| line.contains(&id)).count(), 3);
    assert_eq!(own.lines().count(), 4);
    let shown = told(&server, &alice, &format!("/api/keys/{id}")).await;
    assert!(shown["last_used_at"].is_u64(), "{shown}");
    assert_eq!(ask(&server, &alice, "GET", "/api/stats?days=0", "").await.status, 400);
}
