//! Every route and everybody who may come: nobody, strangers, those who may not any more, users, admins.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod access;
mod server;

use std::collections::BTreeSet;

use access::{admin, ask, config, key, start};
use gateway::keys::NewKey;
use gateway::{Limits, Role};

/// To whom a route is open.
#[derive(Debug, Clone, Copy, PartialEq)]
enum For {
    Everybody,
    Known,
    Admins,
    Monitors,
}

use For::{Admins, Everybody, Known, Monitors};

/// All routes. One that is missing here fails the test.
const ROUTES: &[(&str, &str, For)] = &[
    ("GET", "/", Everybody),
    ("GET", "/health", Everybody),
    ("GET", "/live", Everybody),
    ("GET", "/ready", Everybody),
    ("GET", "/ui", Everybody),
    ("GET", "/ui/", Everybody),
    ("GET", "/ui/{*path}", Everybody),
    ("GET", "/v1/health", Known),
    ("GET", "/metrics", Monitors),
    ("GET", "/openapi.json", Known),
    ("GET", "/docs", Known),
    ("GET", "/v1/files", Known),
    ("POST", "/v1/files", Known),
    ("GET", "/v1/files/{id}", Known),
    ("DELETE", "/v1/files/{id}", Known),
    ("GET", "/v1/files/{id}/content", Known),
    ("GET", "/v1/batches", Known),
    ("POST", "/v1/batches", Known),
    ("GET", "/v1/batches/{id}", Known),
    ("POST", "/v1/batches/{id}/cancel", Known),
    ("GET", "/v1/models", Known),
    ("GET", "/v1/models/{*id}", Known),
    ("GET", "/models", Known),
    ("POST", "/v1/chat/completions", Known),
    ("POST", "/chat/completions", Known),
    ("POST", "/v1/completions", Known),
    ("POST", "/v1/embeddings", Known),
    ("POST", "/v1/responses", Known),
    ("POST", "/tokenize", Known),
    ("POST", "/detokenize", Known),
    ("POST", "/v1/messages", Known),
    ("POST", "/v1/messages/count_tokens", Known),
    ("POST", "/apply-template", Known),
    ("POST", "/chat/completions/input_tokens", Known),
    ("POST", "/v1/chat/completions/input_tokens", Known),
    ("POST", "/embeddings", Known),
    ("POST", "/responses", Known),
    ("GET", "/props", Known),
    ("GET", "/api/tags", Known),
    ("GET", "/api/ps", Known),
    ("GET", "/api/version", Known),
    ("GET", "/api/models", Known),
    ("POST", "/api/generate", Known),
    ("POST", "/api/chat", Known),
    ("POST", "/api/embed", Known),
    ("POST", "/api/embeddings", Known),
    ("POST", "/api/show", Known),
    ("GET", "/api/keys", Known),
    ("POST", "/api/keys", Admins),
    ("GET", "/api/keys/{id}", Known),
    ("DELETE", "/api/keys/{id}", Admins),
    ("POST", "/api/keys/{id}/rotate", Admins),
    ("GET", "/api/stats", Known),
    ("GET", "/api/stats/detailed", Known),
    ("GET", "/api/stats/export.csv", Known),
    ("GET", "/api/admin/stats", Admins),
    ("GET", "/api/admin/stats/export.csv", Admins),
    ("GET", "/api/admin/audit", Admins),
    ("GET", "/v1/ws", Known),
];

/// Methods and paths of the router's page.
fn routes() -> BTreeSet<(String, String)> {
    let page = include_str!("../src/router.rs").split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    for route in page.split(".route(").skip(1) {
        let path = route.split('"').nth(1).unwrap();
        let rest = route.split(".route(").next().unwrap().split(".layer(from_fn").next().unwrap();
        for method in ["get", "post", "put", "delete", "patch", "any"] {
            if rest.contains(&format!(" {method}(")) || rest.contains(&format!(".{method}(")) {
                found.insert((method.to_uppercase(), path.to_owned()));
            }
        }
    }
    found
}

#[test]
fn the_table_names_every_route() {
    let table: BTreeSet<_> = ROUTES.iter().map(|(m, p, _)| ((*m).to_owned(), (*p).to_owned())).collect();
    assert_eq!(table, routes());
    assert_eq!(table.len(), ROUTES.len(), "a route stands there twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let access = config(folder.path());
    let keys = admin(&access).await;
    let (_, user) = key(&keys, "alice", Role::User, Limits::default()).await;
    let (other, _) = key(&keys, "bob", Role::User, Limits::default()).await;
    let (_, boss) = key(&keys, "boss", Role::Admin, Limits::default()).await;
    let (_, monitor) = key(&keys, "prometheus", Role::Monitor, Limits::default()).await;
    let (gone, revoked) = key(&keys, "gone", Role::Admin, Limits::default()).await;
    keys.revoke(&gone, "test").await.unwrap();
    let soon =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64 + 1;
    let new = NewKey { name: "old".to_owned(), role: Role::Admin, expires: Some(soon), ..NewKey::default() };
    let (_, expired) = keys.create(new, "test").await.unwrap();
    let server = start(access).await;
    let strangers = [
        ("nobody", String::new()),
        ("a word", "secret".to_owned()),
        ("a key that is none", user.replace(&user[22..26], "aaaa")),
        ("a token where there are none", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.".to_owned()),
        ("expired", expired),
        ("revoked", revoked),
    ];
    for (method, path, open) in ROUTES {
        // An id of somebody else wherever there is one.
        let path = path.replace("{id}", &other).replace("{*id}", "null").replace("{*path}", "style.css");
        let status = async |key: &str| ask(&server, key, method, &path, "{}").await.status;
        for (who, key) in &strangers {
            let status = status(key).await;
            assert_eq!(status == 401, *open != Everybody, "{method} {path} for {who}: {status}");
        }
        let refused = async |key: &str| [401, 403].contains(&status(key).await);
        assert_eq!(refused(&user).await, matches!(open, Admins | Monitors), "{method} {path} for a user");
        assert_eq!(refused(&monitor).await, matches!(open, Admins | Known), "{method} {path} for a monitor");
        if path.starts_with("/api/keys/")
            || path.starts_with("/v1/files/")
            || path.starts_with("/v1/batches/")
        {
            let wanted = if *open == Admins { 403 } else { 404 };
            assert_eq!(status(&user).await, wanted, "{method} {path}, which is somebody else's");
        }
        // Last: it revokes the key of somebody else.
        assert!(!refused(&boss).await, "{method} {path} for an admin");
    }
    for path in ["/nothing", "/v1/", "//", "/UI", "/health/", "/%2e%2e/metrics", "/api/keys/"] {
        assert_eq!(ask(&server, "", "GET", path, "").await.status, 401, "{path}");
    }
    for method in ["PUT", "PATCH", "HEAD", "BREW"] {
        assert_eq!(ask(&server, "", method, "/v1/models", "").await.status, 401, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_speak_as_their_interface_does() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(config(folder.path())).await;
    let answer = async |path: &str| ask(&server, "wrong", "POST", path, "{}").await;
    let openai = answer("/v1/chat/completions").await;
    assert_eq!(openai.json()["error"]["code"], "invalid_api_key");
    assert!(openai.head.contains("www-authenticate: bearer"));
    let anthropic = answer("/v1/messages").await.json();
    assert_eq!(anthropic["type"], "error");
    assert_eq!(anthropic["error"]["type"], "authentication_error");
    assert!(answer("/api/chat").await.json()["error"].is_string());
}
