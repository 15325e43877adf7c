//! Who is let in and how much each may ask, as the configuration says it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::limiter::Limits;

/// What happens while Redis or the database is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outage {
    /// Known keys go on; each instance counts limits by itself. Revocations and new keys come with the database.
    #[default]
    Open,
    /// Requests get 503 until it is back.
    Closed,
}

/// What signs the tokens. A token that says another algorithm is refused, whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSA, PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// What signatures are checked with.
#[derive(Clone)]
pub enum JwtKeys {
    /// The secret of HS256.
    Secret(String),
    /// A public key in PEM.
    Pem(PathBuf),
    /// A set of keys (JWKS) in a file, read again every few minutes.
    JwksFile(PathBuf),
    /// A set of keys from elsewhere. The function fetches its text, and may block.
    JwksUrl(fn(&str) -> Result<Vec<u8>, String>, String),
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret(..)"),
            Self::Pem(path) => f.debug_tuple("Pem").field(path).finish(),
            Self::JwksFile(path) => f.debug_tuple("JwksFile").field(path).finish(),
            Self::JwksUrl(_, url) => f.debug_tuple("JwksUrl").field(url).finish(),
        }
    }
}

/// How tokens (JWT) of an identity provider are checked.
#[derive(Debug, Clone)]
pub struct JwtConfig {
    /// The only algorithm that is taken.
    pub algorithm: JwtAlgorithm,
    /// What signatures are checked with.
    pub keys: JwtKeys,
    /// Who must have issued a token.
    pub issuer: Option<String>,
    /// Whom a token must be for.
    pub audience: Option<String>,
    /// Seconds by which clocks may differ.
    pub leeway: u64,
}

/// The limits of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// Of a key or a token's subject, where the key's own leave something open.
    pub default: Limits,
    /// Of each key for one model, beside those of the key.
    pub models: BTreeMap<String, Limits>,
    /// Requests a minute from one address, counted before it is known who asks.
    pub address: Option<u64>,
}

/// Everything about keys, limits and usage.
#[derive(Clone)]
pub struct AccessConfig {
    /// A file for SQLite, or the address of PostgreSQL.
    pub database: String,
    /// Where usage is written before it comes into the database.
    pub journal: PathBuf,
    /// Redis, when several instances share limits.
    pub redis: Option<String>,
    /// Tokens beside keys.
    pub jwt: Option<JwtConfig>,
    /// What is limited.
    pub limits: LimitSettings,
    /// While Redis or the database is gone.
    pub outage: Outage,
    /// Days for which single usage records are kept; `None` for ever. Sums per day are kept for ever.
    pub retention: Option<u32>,
    /// Proxies whose `X-Forwarded-For` says who asks.
    pub proxies: Vec<IpAddr>,
}

impl fmt::Debug for AccessConfig {
    /// Addresses of databases may hold passwords: they are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessConfig")
            .field("jwt", &self.jwt)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Reads the keys of tokens, as a server does at its start.
///
/// # Errors
/// What is wrong with them.
pub async fn check_jwt(config: &JwtConfig) -> Result<(), String> {
    super::Jwt::new(config).await.map(drop)
}

/// Why a secret for HS256 is too weak, if it is.
pub fn weak_secret(secret: &str) -> Option<String> {
    const BYTES: usize = 32;
    const DIFFERENT: usize = 10;
    let bytes = secret.as_bytes();
    if bytes.len() < BYTES {
        return Some(format!("it has {} bytes, and {BYTES} are the least", bytes.len()));
    }
    let mut different = bytes.to_vec();
    different.sort_unstable();
    different.dedup();
    if different.len() < DIFFERENT {
        return Some(format!("it is made of {} different characters only", different.len()));
    }
    let repeats = |period: usize| bytes.iter().zip(&bytes[period..]).all(|(a, b)| a == b);
    (1..=bytes.len() / 2)
        .find(|period| repeats(*period))
        .map(|period| format!("it repeats its first {period} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_secrets_are_told_from_strong_ones() {
        for weak in [
            "",
            "secret",
            "change-me-please",
            &"a".repeat(64),
            &"password".repeat(5),
            &"abcdefghijklmnop".repeat(2),
        ] {
            assert!(weak_secret(weak).is_some(), "{weak}");
        }
        for strong in ["kZ3q0eVxT8y1nB6mR4wL9sD2hF7jC5aU", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c"]
        {
            assert_eq!(weak_secret(strong), None);
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let config = AccessConfig {
            database: "postgres://user:hush@host/db".to_owned(),
            journal: PathBuf::new(),
            redis: Some("redis://:hush@host".to_owned()),
            jwt: Some(JwtConfig {
                algorithm: JwtAlgorithm::Hs256,
                keys: JwtKeys::Secret("hush".to_owned()),
                issuer: None,
                audience: None,
                leeway: 0,
            }),
            limits: LimitSettings::default(),
            outage: Outage::Open,
            retention: None,
            proxies: Vec::new(),
        };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
