//! Tokens (JWT): those that are right, and every way to be wrong that is known.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod access;
mod server;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use access::{ask, config, start};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use gateway::settings::{JwtAlgorithm, JwtConfig, JwtKeys};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{hmac, signature::KeyPair};
use serde_json::{Value, json};
use server::Server;

const SECRET: &str = "kZ3q0eVxT8y1nB6mR4wL9sD2hF7jC5aU";
const RSA: &[u8] = include_bytes!("keys/rsa.pk8");
const P256: &[u8] = include_bytes!("keys/p256.pk8");
const ED25519: &[u8] = include_bytes!("keys/ed25519.pk8");

/// What a signer does, written by hand: the server's own library checks.
enum Signer {
    Hs256(Vec<u8>),
    Rs256,
    Es256,
    EdDsa,
    Nobody,
}

impl Signer {
    fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Hs256(secret) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes()).as_ref().to_vec()
            }
            Self::Rs256 => {
                let key = RsaKeyPair::from_pkcs8(RSA).unwrap();
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Es256 => {
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, P256, &random).unwrap();
                key.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec()
            }
            Self::EdDsa => {
                let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(ED25519).unwrap();
                key.sign(message.as_bytes()).as_ref().to_vec()
            }
            Self::Nobody => Vec::new(),
        };
        format!("{message}.{}", BASE64.encode(signature))
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Claims that are right in everything.
fn claims() -> Value {
    json!({ "sub": "alice", "iss": "https://id.example", "aud": "edgellm", "exp": now() + 600, "nbf": now() - 5 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

async fn server(folder: &Path, algorithm: JwtAlgorithm, keys: JwtKeys) -> Server {
    let mut access = config(folder);
    access.jwt = Some(JwtConfig {
        algorithm,
        keys,
        issuer: Some("https://id.example".to_owned()),
        audience: Some("edgellm".to_owned()),
        leeway: 30,
    });
    start(access).await
}

async fn status(server: &Server, token: &str) -> u16 {
    ask(server, token, "GET", "/v1/models", "").await.status
}

fn pem(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name).with_extension("pem")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_right_in_everything_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), JwtAlgorithm::Hs256, JwtKeys::Secret(SECRET.to_owned())).await;
    let signer = Signer::Hs256(SECRET.into());
    let header = json!({ "alg": "HS256", "typ": "JWT" });
    for good in [
        claims(),
        with("aud", json!(["other", "edgellm"])),
        with("exp", json!(now() - 10)),
        with("nbf", json!(now() + 10)),
        without("nbf"),
    ] {
        assert_eq!(status(&server, &signer.token(&header, &good)).await, 200, "{good}");
    }
    for bad in [
        with("exp", json!(now() - 60)),
        with("exp", json!("tomorrow")),
        with("exp", json!(-1)),
        without("exp"),
        with("nbf", json!(now() + 60)),
        with("iss", json!("https://evil.example")),
        without("iss"),
        with("aud", json!("other")),
        with("aud", json!([])),
        without("aud"),
        with("sub", json!("")),
        with("sub", json!(7)),
        with("sub", json!("x".repeat(300))),
        without("sub"),
        with("role", json!("root")),
        json!([]),
    ] {
        assert_eq!(status(&server, &signer.token(&header, &bad)).await, 401, "{bad}");
    }
    let right = signer.token(&header, &claims());
    let parts: Vec<&str> = right.split('.').collect();
    let other_claims = BASE64.encode(with("role", json!("admin")).to_string());
    for forged in [
        Signer::Nobody.token(&json!({ "alg": "none" }), &claims()),
        Signer::Nobody.token(&json!({ "alg": "None", "typ": "JWT" }), &claims()),
        Signer::Nobody.token(&header, &claims()),
        Signer::Hs256(b"secret".to_vec()).token(&header, &claims()),
        Signer::Hs256(Vec::new()).token(&header, &claims()),
        signer.token(&json!({ "alg": "HS512" }), &claims()),
        signer.token(&json!({ "alg": "HS384" }), &claims()),
        signer.token(&json!({}), &claims()),
        format!("{}.{other_claims}.{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{right}.{}", parts[2]),
        format!("{right}A"),
        "..".to_owned(),
        ".".repeat(100),
        "a.b.c".to_owned(),
        signer.token(&header, &with("more", json!("x".repeat(20_000)))),
    ] {
        assert_eq!(status(&server, &forged).await, 401, "{forged:.80}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_comes_from_the_issuer_and_usage_goes_to_the_subject() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), JwtAlgorithm::Hs256, JwtKeys::Secret(SECRET.to_owned())).await;
    let signer = Signer::Hs256(SECRET.into());
    let user = signer.token(&json!({ "alg": "HS256" }), &claims());
    let admin = signer.token(&json!({ "alg": "HS256" }), &with("role", json!("admin")));
    assert_eq!(ask(&server, &user, "GET", "/api/admin/stats", "").await.status, 403);
    assert_eq!(access::chat(&server, &user).await.status, 200);
    let own = access::told(&server, &user, "/api/stats").await;
    assert_eq!((own["owner"].as_str(), own["requests"].as_i64()), (Some("alice"), Some(1)));
    let all = access::told(&server, &admin, "/api/admin/stats").await;
    assert_eq!(all["by_key"][0]["name"], "jwt:alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_check_their_own_algorithm_only() {
    let all = [
        (JwtAlgorithm::Rs256, "rsa", Signer::Rs256, "RS256"),
        (JwtAlgorithm::Es256, "p256", Signer::Es256, "ES256"),
        (JwtAlgorithm::EdDsa, "ed25519", Signer::EdDsa, "EdDSA"),
    ];
    for (algorithm, name, signer, text) in &all {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path(), *algorithm, JwtKeys::Pem(pem(name))).await;
        let token = signer.token(&json!({ "alg": text }), &claims());
        assert_eq!(status(&server, &token).await, 200, "{text}");
        // One changed bit of the signature.
        let (before, last) = token.split_at(token.len() - 10);
        let flipped = format!("{before}{}{}", if last.starts_with('A') { 'B' } else { 'A' }, &last[1..]);
        assert_eq!(status(&server, &flipped).await, 401, "{text}");
        // The public key as a secret, in every form that somebody could have.
        let file = std::fs::read(pem(name)).unwrap();
        let trimmed = file.strip_suffix(b"\n").unwrap().to_vec();
        for secret in [file, trimmed] {
            let swapped = Signer::Hs256(secret).token(&json!({ "alg": "HS256" }), &claims());
            assert_eq!(status(&server, &swapped).await, 401, "{text} for HS256");
        }
        for (_, _, other, other_text) in &all {
            if other_text != text {
                for said in [text, other_text] {
                    let token = other.token(&json!({ "alg": said }), &claims());
                    assert_eq!(status(&server, &token).await, 401, "{other_text} as {said} for {text}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_keys_knows_its_keys_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let ed = Ed25519KeyPair::from_pkcs8_maybe_unchecked(ED25519).unwrap();
    let own = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "sig", "x": BASE64.encode(ed.public_key()) });
    let other = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "two", "x": BASE64.encode([7; 32]) });
    let encrypts = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "three", "use": "enc", "x": own["x"] });
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, json!({ "keys": [own, other, encrypts] }).to_string()).unwrap();
    let server = server(folder.path(), JwtAlgorithm::EdDsa, JwtKeys::JwksFile(file)).await;
    let token = |kid: Value| {
        let mut header = json!({ "alg": "EdDSA" });
        if !kid.is_null() {
            header["kid"] = kid;
        }
        Signer::EdDsa.token(&header, &claims())
    };
    assert_eq!(status(&server, &token(json!("one"))).await, 200);
    for kid in [json!("two"), json!("three"), json!("unknown"), json!("../one"), Value::Null] {
        assert_eq!(status(&server, &token(kid.clone())).await, 401, "{kid}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_wrong_keys_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    for (algorithm, keys, problem) in [
        (JwtAlgorithm::Hs256, JwtKeys::Secret("secret".to_owned()), "weak"),
        (JwtAlgorithm::Rs256, JwtKeys::Secret(SECRET.to_owned()), "HS256"),
        (JwtAlgorithm::Rs256, JwtKeys::Pem(pem("p256")), "no RSA key"),
        (JwtAlgorithm::Hs256, JwtKeys::Pem(pem("rsa")), "no public key"),
        (JwtAlgorithm::Es256, JwtKeys::Pem("/nowhere.pem".into()), "nowhere"),
        (JwtAlgorithm::Es256, JwtKeys::JwksFile(pem("rsa")), "JWKS"),
    ] {
        let mut access = config(folder.path());
        access.jwt = Some(JwtConfig { algorithm, keys, issuer: None, audience: None, leeway: 0 });
        let config = gateway::Config {
            models: vec![server::null_source()],
            access: Some(access),
            ..Default::default()
        };
        let error = Server::start_loading(config).await.ended().await.unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}
