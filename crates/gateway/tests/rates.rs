//! Limits hold exactly, whoever asks at the same time and wherever.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod access;
mod server;
mod services;

use access::{admin, ask, chat, config, key, start, told};
use gateway::settings::Outage;
use gateway::{Limits, Role};
use server::Server;
use services::Redis;

/// Clients at once, and how often.
const CLIENTS: usize = 64;
const RUNS: usize = 20;

fn per_minute(requests: u64) -> Limits {
    Limits { requests_per_minute: Some(requests), ..Limits::default() }
}

/// Statuses of 64 clients at once, in turn on each of the servers.
async fn rush(servers: &[Server], key: &str) -> Vec<u16> {
    let asked = (0..CLIENTS).map(|i| async move { chat(&servers[i % servers.len()], key).await.status });
    futures_util::future::join_all(asked).await
}

async fn exactly_ten(servers: &[Server], admin: &gateway::keys::Admin) {
    let mut keys = Vec::new();
    for run in 0..RUNS {
        keys.push(key(admin, &format!("run {run}"), Role::User, per_minute(10)).await.1);
    }
    // All instances know the last key, so they know all.
    for server in servers {
        while ask(server, &keys[RUNS - 1], "GET", "/v1/models", "").await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    for (run, key) in keys.iter().enumerate() {
        let statuses = rush(servers, key).await;
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "run {run}: {statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 429).count(), CLIENTS - 10, "run {run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_admits_exactly_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let access = config(folder.path());
    let admin = admin(&access).await;
    exactly_ten(&[start(access).await], &admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_with_one_redis_admit_exactly_the_limit() {
    let Some(redis) = Redis::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut access = config(folder.path());
    access.redis = Some(redis.url());
    let admin = admin(&access).await;
    let servers = [start(access.clone()).await, start(access).await];
    exactly_ten(&servers, &admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_told_as_openai_tells_it_and_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let access = config(folder.path());
    let limits =
        Limits { requests_per_minute: Some(3), tokens_per_minute: Some(10_000), ..Limits::default() };
    let (_, text) = key(&admin(&access).await, "alice", Role::User, limits).await;
    let mut server = start(access.clone()).await;
    let first = chat(&server, &text).await;
    assert_eq!(first.status, 200);
    for header in [
        "x-ratelimit-limit-requests: 3",
        "x-ratelimit-remaining-requests: 2",
        "x-ratelimit-limit-tokens: 10000",
        "x-ratelimit-reset-requests: 1m",
        "x-ratelimit-remaining-tokens: 99",
    ] {
        assert!(first.head.contains(header), "{header} in {}", first.head);
    }
    chat(&server, &text).await;
    // What the instance before it has counted, the next one knows.
    server.signal();
    server.ended().await.unwrap();
    let server = start(access).await;
    assert_eq!(chat(&server, &text).await.status, 200);
    let refused = chat(&server, &text).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
    assert!(refused.head.contains("x-ratelimit-remaining-requests: 0"), "{}", refused.head);
    let wait = refused.head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!((1..=61).contains(&wait.parse::<u32>().unwrap()), "{wait}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_taken_before_and_settled_after() {
    let folder = tempfile::tempdir().unwrap();
    let access = config(folder.path());
    let admin = admin(&access).await;
    let limits = Limits { tokens_per_minute: Some(100), token_budget: Some(1000), ..Limits::default() };
    let (_, text) = key(&admin, "alice", Role::User, limits).await;
    let server = start(access).await;
    let ask_for = async |tokens: u64| {
        let body = format!(r#"{{"prompt": [1, 2, 3], "max_tokens": {tokens}, "stream": false}}"#);
        ask(&server, &text, "POST", "/v1/completions", &body).await
    };
    let too_large = ask_for(98).await;
    assert_eq!(too_large.status, 429);
    assert!(too_large.head.contains("x-should-retry: false"), "it would never fit: {}", too_large.head);
    assert_eq!(ask_for(57).await.status, 200);
    let refused = ask_for(38).await;
    assert_eq!(refused.status, 429, "60 of 100 are used");
    assert!(refused.head.contains("x-ratelimit-remaining-tokens: 40"), "{}", refused.head);
    assert_eq!(ask_for(37).await.status, 200);
    let stats = told(&server, &text, "/api/stats").await;
    assert_eq!((stats["prompt_tokens"].as_i64(), stats["completion_tokens"].as_i64()), (Some(6), Some(94)));
    assert_eq!((stats["requests"].as_i64(), stats["errors"].as_i64()), (Some(4), Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_open_length_is_charged_for_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let access = config(folder.path());
    let limits = Limits { tokens_per_minute: Some(2000), ..Limits::default() };
    let (_, text) = key(&admin(&access).await, "alice", Role::User, limits).await;
    let server = start(access).await;
    // The null model answers with 16 tokens where nothing is said: 1024 are taken for them.
    for i in 0..5 {
        let body = r#"{"messages": [{"role": "user", "content": "Hi"}]}"#;
        let answer = ask(&server, &text, "POST", "/v1/chat/completions", body).await;
        assert_eq!(answer.status, 200, "{i}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_addresses_and_places_are_limited_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut access = config(folder.path());
    access.limits.models.insert("null".to_owned(), per_minute(2));
    access.limits.address = Some(8);
    let admin = admin(&access).await;
    let (_, alice) = key(&admin, "alice", Role::User, Limits::default()).await;
    let (_, bob) =
        key(&admin, "bob", Role::User, Limits { parallel_requests: Some(0), ..Limits::default() }).await;
    let server = start(access).await;
    let statuses = [
        chat(&server, &alice).await.status,
        chat(&server, &alice).await.status,
        chat(&server, &alice).await.status,
    ];
    assert_eq!(statuses, [200, 200, 429], "the model's");
    assert_eq!(chat(&server, &bob).await.status, 429, "no place");
    for _ in 0..4 {
        assert_eq!(ask(&server, "wrong", "GET", "/v1/models", "").await.status, 401);
    }
    let refused = ask(&server, &alice, "GET", "/v1/models", "").await;
    assert_eq!(refused.status, 429, "the address's, though the key is right");
    assert_eq!(ask(&server, "", "GET", "/health", "").await.status, 200, "what is open is not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_gone_the_setting_decides_and_its_return_is_noticed() {
    let Some(mut redis) = Redis::start() else { return };
    for outage in [Outage::Open, Outage::Closed] {
        let folder = tempfile::tempdir().unwrap();
        let mut access = config(folder.path());
        (access.redis, access.outage) = (Some(redis.url()), outage);
        let (_, text) = key(&admin(&access).await, "alice", Role::User, per_minute(1000)).await;
        let server = start(access).await;
        assert_eq!(chat(&server, &text).await.status, 200);
        redis.stop();
        let wanted = if outage == Outage::Open { 200 } else { 503 };
        for _ in 0..3 {
            assert_eq!(chat(&server, &text).await.status, wanted);
        }
        redis.again();
        while chat(&server, &text).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}
