//! Tokens (JWT) of an identity provider. The configuration says the algorithm; a token only says that it has it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet, PublicKeyUse};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use tokio::sync::Notify;

use super::identity::Role;
use super::settings::{JwtAlgorithm, JwtConfig, JwtKeys, weak_secret};
use super::signatures::{install, public_key};

/// Bytes of a token at most.
const TOKEN: usize = 8192;
/// Bytes of a subject at most: it stands in usage records.
const SUBJECT: usize = 256;
/// A set of keys is read again this often,
const REFRESH: Duration = Duration::from_secs(300);
/// and no sooner than this when a token names a key that is not in it.
const SOONEST: Duration = Duration::from_secs(10);

/// Checks tokens.
pub(crate) struct Jwt {
    algorithm: JwtAlgorithm,
    validation: Validation,
    keys: RwLock<Vec<Known>>,
    source: JwtKeys,
    unknown: Notify,
}

/// A key, and its name in a set.
struct Known {
    id: Option<String>,
    key: DecodingKey,
}

/// Who a token is for.
#[derive(Debug, Deserialize)]
pub(crate) struct Claims {
    pub(crate) sub: String,
    #[serde(default)]
    pub(crate) role: Role,
}

impl Jwt {
    /// Reads the keys.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) async fn new(config: &JwtConfig) -> Result<Self, String> {
        install();
        let mut validation = Validation::new(config.algorithm.of_tokens());
        let mut required = vec!["exp", "sub"];
        validation.validate_nbf = true;
        validation.leeway = config.leeway;
        if let Some(issuer) = &config.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        // Without one, a token that is for somebody in particular is for somebody else.
        if let Some(audience) = &config.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        let keys = read(config.keys.clone(), config.algorithm).await?;
        let source = config.keys.clone();
        Ok(Self {
            algorithm: config.algorithm,
            validation,
            keys: RwLock::new(keys),
            source,
            unknown: Notify::new(),
        })
    }

    /// The claims of a token that is right in everything.
    pub(crate) fn check(&self, token: &str) -> Option<Claims> {
        if token.len() > TOKEN {
            return None;
        }
        let header = decode_header(token).ok()?;
        if header.alg != self.algorithm.of_tokens() {
            return None;
        }
        let key = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            let found = match (&header.kid, keys.as_slice()) {
                // The only key needs no name, whatever the token says where keys have none.
                (None, [only]) | (Some(_), [only @ Known { id: None, .. }]) => Some(only),
                (Some(id), all) => all.iter().find(|key| key.id.as_ref() == Some(id)),
                (None, _) => None,
            };
            found.map(|known| known.key.clone())
        };
        let Some(key) = key else {
            self.unknown.notify_one();
            return None;
        };
        let claims = decode::<Claims>(token, &key, &self.validation).ok()?.claims;
        (!claims.sub.is_empty() && claims.sub.len() <= SUBJECT).then_some(claims)
    }

    /// Reads a set of keys again from time to time, and soon when one is missing. What cannot be read leaves the keys as
    /// they are.
    pub(crate) async fn refresh(self: Arc<Self>) {
        if matches!(self.source, JwtKeys::Secret(_) | JwtKeys::Pem(_)) {
            return;
        }
        loop {
            tokio::time::sleep(SOONEST).await;
            let _ = tokio::time::timeout(REFRESH, self.unknown.notified()).await;
            if let Ok(keys) = read(self.source.clone(), self.algorithm).await {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
            }
        }
    }
}

async fn read(source: JwtKeys, algorithm: JwtAlgorithm) -> Result<Vec<Known>, String> {
    let read = move || match source {
        JwtKeys::Secret(secret) => {
            if algorithm != JwtAlgorithm::Hs256 {
                return Err("a secret is for HS256 only".to_owned());
            }
            match weak_secret(&secret) {
                Some(why) => Err(format!("JWT_SECRET is weak: {why}")),
                None => Ok(vec![Known { id: None, key: DecodingKey::from_secret(secret.as_bytes()) }]),
            }
        }
        JwtKeys::Pem(path) => {
            let name = path.display().to_string();
            let pem = std::fs::read(&path).map_err(|error| format!("{name}: {error}"))?;
            let key = public_key(&pem, algorithm).map_err(|problem| format!("{name}: {problem}"))?;
            Ok(vec![Known { id: None, key }])
        }
        JwtKeys::JwksFile(path) => {
            let name = path.display().to_string();
            let text = std::fs::read(&path).map_err(|error| format!("{name}: {error}"))?;
            set(&text, algorithm).map_err(|problem| format!("{name}: {problem}"))
        }
        JwtKeys::JwksUrl(fetch, url) => {
            let text = fetch(&url).map_err(|problem| format!("{url}: {problem}"))?;
            set(&text, algorithm).map_err(|problem| format!("{url}: {problem}"))
        }
    };
    tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?
}

/// The keys of a set that are for this algorithm.
fn set(text: &[u8], algorithm: JwtAlgorithm) -> Result<Vec<Known>, String> {
    let set: JwkSet =
        serde_json::from_slice(text).map_err(|error| format!("no set of keys (JWKS): {error}"))?;
    let fits = |parameters: &AlgorithmParameters| match (algorithm, parameters) {
        (JwtAlgorithm::Rs256, AlgorithmParameters::RSA(_)) => true,
        (JwtAlgorithm::Es256, AlgorithmParameters::EllipticCurve(key)) => key.curve == EllipticCurve::P256,
        (JwtAlgorithm::EdDsa, AlgorithmParameters::OctetKeyPair(key)) => key.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    let usable = set.keys.iter().filter(|key| {
        let for_signatures = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
        for_signatures && fits(&key.algorithm)
    });
    let known = |key| {
        let known =
            Known { id: jsonwebtoken::jwk::Jwk::clone(key).common.key_id, key: DecodingKey::from_jwk(key)? };
        Ok::<_, jsonwebtoken::errors::Error>(known)
    };
    let keys: Vec<Known> = usable.map(known).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if keys.is_empty() { Err(format!("there is no key for {algorithm:?} in it")) } else { Ok(keys) }
}
