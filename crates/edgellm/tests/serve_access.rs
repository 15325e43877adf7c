//! `edgellm serve` with keys, as a process: when it refuses to start, what a kill leaves, what nobody may read.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod guarded;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use guarded::{Server, ask, chat, edgellm, new_key};
use predicates::str::contains;
use serde_json::{Value, json};

/// A secret that is strong enough, and a token that it signs: subject carol, until the year 2100.
const SECRET: &str = "kZ3q0eVxT8y1nB6mR4wL9sD2hF7jC5aU";
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYXJvbCIsImV4cCI6NDEwMjQ0NDgwMH0.Pb49F7yR1mFqDd8ZLX0u5Zxn0kWMR9M4SnTsT6O2F6U";

#[test]
fn a_server_that_would_be_open_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    for (args, env, problem) in [
        (&["--host", "0.0.0.0", "--no-auth"][..], None, "without keys everybody who reaches 0.0.0.0"),
        (&["--host", "::", "--no-auth"][..], None, "edgellm keys create"),
        (&["--host", "0.0.0.0"][..], Some("secret"), "JWT_SECRET is weak: it has 6 bytes"),
        (&[][..], Some("passwordpasswordpasswordpasswordpassword"), "openssl rand"),
        (&["--jwks", "https://id.example/jwks"][..], None, "--jwt-algorithm"),
        (&["--jwt-algorithm", "rs256", "--jwt-key", "/nowhere.pem"][..], None, "/nowhere.pem"),
    ] {
        let mut command = assert_cmd::Command::from_std(edgellm(folder.path()));
        command.args(["serve", "--model", "null", "--port", "0"]).args(args);
        if let Some(secret) = env {
            command.env("JWT_SECRET", secret);
        }
        command.timeout(Duration::from_secs(60)).assert().code(1).stderr(contains(problem));
    }
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let admin = new_key(folder.path(), &["--name", "admin", "--role", "admin"]);
    let output = edgellm(folder.path())
        .args([
            "keys",
            "create",
            "--json",
            "--owner",
            "alice",
            "--models",
            "null,other",
            "--requests-per-minute",
            "5",
        ])
        .output()
        .unwrap();
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&made["owner"], &made["limits"]["requests_per_minute"]), (&json!("alice"), &json!(5)));
    let key = made["key"].as_str().unwrap();
    let list =
        || String::from_utf8(edgellm(folder.path()).args(["keys", "list"]).output().unwrap().stdout).unwrap();
    assert_eq!(list().lines().count(), 2);
    assert!(!list().contains(key) && list().contains("\tlive\tadmin\t"));
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.ask(key, "POST", "/v1/chat/completions", Some(&chat())).unwrap().0, 200);
    let revoked = edgellm(folder.path()).args(["keys", "revoke", key]).status().unwrap();
    assert!(revoked.success());
    let start = Instant::now();
    while server.ask(key, "GET", "/v1/models", None).unwrap().0 != 401 {
        assert!(start.elapsed() < Duration::from_secs(1), "a second after it was revoked");
    }
    assert!(list().contains("\trevoked\tuser\talice\t"));
    let (_, log) = server.ask(&admin, "GET", "/api/admin/audit", None).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&log).unwrap()["data"][0]["action"], "key.revoke");
    assert!(!edgellm(folder.path()).args(["keys", "revoke", "nobody"]).status().unwrap().success());
    server.kill();
}

#[test]
fn fifty_kills_lose_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let admin = new_key(folder.path(), &["--role", "admin"]);
    let user = new_key(folder.path(), &["--owner", "user"]);
    let (mut made, mut revoked) = (HashMap::new(), HashSet::new());
    let answered = AtomicU64::new(0);
    for round in 0..50u64 {
        let server = Server::start(folder.path(), &[]);
        let ends = AtomicBool::new(false);
        let url = &server.url.clone();
        std::thread::scope(|scope| {
            let chats = scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    if ask(url, &user, "POST", "/v1/chat/completions", Some(&chat()))
                        .is_some_and(|(s, _)| s == 200)
                    {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            let keys = scope.spawn(|| {
                let mut done = Vec::new();
                while !ends.load(Ordering::Relaxed) {
                    let body = json!({ "name": format!("round {round}") });
                    let Some((201, text)) = ask(url, &admin, "POST", "/api/keys", Some(&body)) else {
                        continue;
                    };
                    let key: Value = serde_json::from_str(&text).unwrap();
                    let id = key["id"].as_str().unwrap().to_owned();
                    let gone = done.len() % 2 == 1
                        && ask(url, &admin, "DELETE", &format!("/api/keys/{id}"), None)
                            .is_some_and(|(s, _)| s == 200);
                    done.push((id, key["key"].as_str().unwrap().to_owned(), gone));
                }
                done
            });
            // A different moment each time.
            std::thread::sleep(Duration::from_millis(20 + round * 37 % 90));
            server.kill();
            ends.store(true, Ordering::Relaxed);
            chats.join().unwrap();
            for (id, text, gone) in keys.join().unwrap() {
                if gone {
                    revoked.insert(id.clone());
                }
                made.insert(id, text);
            }
        });
    }
    assert!(
        made.len() > 50 && revoked.len() > 10 && answered.load(Ordering::Relaxed) > 50,
        "too little happened"
    );
    let server = Server::start(folder.path(), &[]);
    for (id, text) in &made {
        let (status, body) = server.ask(&admin, "GET", &format!("/api/keys/{id}"), None).unwrap();
        assert_eq!(status, 200, "key {id} is lost");
        let is_live = serde_json::from_str::<Value>(&body).unwrap()["revoked_at"].is_null();
        // One whose revocation was not acknowledged may be either.
        if revoked.contains(id) {
            assert!(!is_live, "the revocation of {id} is lost");
        }
        let lets_in = server.ask(text, "GET", "/v1/models", None).unwrap().0 == 200;
        assert_eq!(lets_in, is_live, "{id}");
    }
    let (_, stats) = server.ask(&user, "GET", "/api/stats", None).unwrap();
    let stats: Value = serde_json::from_str(&stats).unwrap();
    let good = stats["requests"].as_u64().unwrap() - stats["errors"].as_u64().unwrap();
    // One a round may have been answered without that its client heard of it.
    let answered = answered.load(Ordering::Relaxed);
    assert!((answered..=answered + 50).contains(&good), "{good} records of {answered} answers");
    assert_eq!(stats["completion_tokens"].as_u64().unwrap(), 3 * good, "and no half ones");
    server.kill();
}

#[test]
fn no_secret_is_written_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let admin = new_key(folder.path(), &["--role", "admin"]);
    let key = new_key(folder.path(), &["--owner", "alice"]);
    let server = Server::start(folder.path(), &[("JWT_SECRET", SECRET), ("LOG_LEVEL", "debug")]);
    let mut told = String::new();
    let (_, made) = server.ask(&admin, "POST", "/api/keys", Some(&json!({ "name": "third" }))).unwrap();
    let third = serde_json::from_str::<Value>(&made).unwrap()["key"].as_str().unwrap().to_owned();
    for caller in [&admin, &key, &third, TOKEN, &format!("{key}x"), &key[..30], ""] {
        for (method, path) in [
            ("POST", "/v1/chat/completions"),
            ("POST", "/v1/messages"),
            ("POST", "/api/chat"),
            ("GET", "/api/keys"),
            ("GET", "/api/stats/detailed"),
            ("GET", "/api/admin/stats"),
            ("GET", "/api/admin/stats/export.csv"),
            ("GET", "/api/admin/audit"),
            ("GET", "/metrics"),
            ("GET", "/v1/nothing"),
        ] {
            let body = (method == "POST").then(chat);
            told += &server.ask(caller, method, path, body.as_ref()).unwrap().1;
        }
    }
    assert!(told.contains("carol"), "the token was taken");
    std::thread::sleep(Duration::from_millis(400));
    let log = server.log.clone();
    server.kill();
    told += &log.lock().unwrap();
    let mut stored = Vec::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                stored.extend(std::fs::read(path).unwrap());
            }
        }
    }
    let has = |needle: &str| {
        stored.windows(needle.len()).any(|window| window == needle.as_bytes()) || told.contains(needle)
    };
    let id = key.split('_').nth(1).unwrap();
    assert!(has(id) && has("alice"), "the search finds what is there");
    for secret in [&admin, &key, &third] {
        let hidden = secret.rsplit('_').next().unwrap();
        assert!(!has(hidden) && !has(&hidden[..16]), "a key's secret");
    }
    assert!(!has(SECRET) && !has(TOKEN) && !has(TOKEN.rsplit('.').next().unwrap()), "of tokens");
    assert!(!has("a very private prompt"), "a prompt");
}
