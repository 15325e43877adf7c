//! A server that asks who is there, and keys for it.
#![allow(dead_code, reason = "each test uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

use std::path::Path;

use gateway::keys::{Admin, NewKey};
use gateway::settings::{AccessConfig, LimitSettings, Outage};
use gateway::storage::Database;
use gateway::{Config, Limits, Role};
use serde_json::Value;

use crate::server::{Answer, Server, null_source};

/// Keys in `folder`, and nothing else.
pub(crate) fn config(folder: &Path) -> AccessConfig {
    AccessConfig {
        database: folder.join("gateway.db").to_str().unwrap().to_owned(),
        journal: folder.join("journal"),
        redis: None,
        jwt: None,
        limits: LimitSettings::default(),
        outage: Outage::Open,
        retention: None,
        proxies: Vec::new(),
    }
}

/// A server on the null model.
pub(crate) async fn start(access: AccessConfig) -> Server {
    let data = access.journal.with_file_name("data");
    Server::start(Config {
        models: vec![null_source()],
        access: Some(access),
        data: Some(data),
        ..Config::default()
    })
    .await
}

/// The admin of a database.
pub(crate) async fn admin(access: &AccessConfig) -> Admin {
    Admin::new(Database::open(&access.database).await.unwrap())
}

/// A new key of this role; the server must know it already or be told.
pub(crate) async fn key(admin: &Admin, owner: &str, role: Role, limits: Limits) -> (String, String) {
    let new =
        NewKey { name: owner.to_owned(), owner: Some(owner.to_owned()), role, limits, ..NewKey::default() };
    let (record, text) = admin.create(new, "test").await.unwrap();
    (record.id, text)
}

/// Asks with a key, or without for an empty one.
pub(crate) async fn ask(server: &Server, key: &str, method: &str, path: &str, body: &str) -> Answer {
    let authorization =
        if key.is_empty() { String::new() } else { format!("authorization: Bearer {key}\r\n") };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{authorization}content-type: \
         application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    server.send(&head, body.as_bytes()).await
}

/// A chat of one token on the null model.
pub(crate) async fn chat(server: &Server, key: &str) -> Answer {
    let body = r#"{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}"#;
    ask(server, key, "POST", "/v1/chat/completions", body).await
}

/// What a route answers to an admin.
pub(crate) async fn told(server: &Server, key: &str, path: &str) -> Value {
    let answer = ask(server, key, "GET", path, "").await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}
