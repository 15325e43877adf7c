//! Everything behind a server that asks who is there: keys, tokens, limits, usage, and the database that they live in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{HeaderMap, header};

use crate::auth::settings::{AccessConfig, LimitSettings, Outage};
use crate::auth::{Identity, Jwt, Role};
use crate::error::ApiError;
use crate::ids;
use crate::keys::{Admin, Cache, Denied};
use crate::limiter::{Addresses, Limiter, Limits, Meter};
use crate::storage::Database;
use crate::usage::{Journal, Writer, forget, recall};

/// Between two looks at the database for keys that have changed. A revocation is seen everywhere within a second.
const LOOK: Duration = Duration::from_millis(300);
/// When the database has not answered for so long, it is gone.
const GONE: u64 = 2_000;
/// Between two looks for records that are too old.
const FORGET: Duration = Duration::from_secs(3600);
/// Counters of subjects of tokens, and of keys for single models, at a time.
const METERS: usize = 50_000;
/// What stands before the subject of a token where a key's id may stand too.
const JWT: &str = "jwt:";

/// See the module.
pub(crate) struct Access {
    pub(crate) database: Database,
    pub(crate) admin: Admin,
    pub(crate) limiter: Limiter,
    pub(crate) journal: Arc<Journal>,
    pub(crate) writer: Arc<Writer>,
    addresses: Option<Addresses>,
    keys: Cache,
    jwt: Option<Arc<Jwt>>,
    limits: RwLock<Arc<LimitSettings>>,
    meters: Mutex<HashMap<String, Arc<Meter>>>,
    outage: Outage,
    retention: Option<u32>,
    proxies: Vec<IpAddr>,
    /// When the database answered last, in milliseconds since 1970.
    seen: AtomicU64,
    ends: AtomicBool,
}

impl Access {
    /// Opens the database and the journal, reads keys, and recalls what was used.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) async fn open(config: &AccessConfig) -> Result<Arc<Self>, String> {
        let database = Database::open(&config.database).await.map_err(|error| error.to_string())?;
        let keys = Cache::default();
        keys.refresh(&database).await.map_err(|error| error.to_string())?;
        let journal = Journal::open(&config.journal)
            .map_err(|error| format!("the journal of usage in {}: {error}", config.journal.display()))?;
        let journal = Arc::new(journal);
        let jwt = match &config.jwt {
            Some(config) => Some(Arc::new(Jwt::new(config).await?)),
            None => None,
        };
        let access = Arc::new(Self {
            admin: Admin::new(database.clone()),
            limiter: Limiter::new(config.redis.as_deref(), config.outage)?,
            writer: Arc::new(Writer::new(journal.clone(), database.clone())),
            addresses: config.limits.address.map(Addresses::new),
            limits: RwLock::new(Arc::new(config.limits.clone())),
            meters: Mutex::default(),
            outage: config.outage,
            retention: config.retention,
            proxies: config.proxies.clone(),
            seen: AtomicU64::new(ids::now_millis()),
            ends: AtomicBool::new(false),
            database,
            keys,
            journal,
            jwt,
        });
        access.writer.flush().await.map_err(|error| error.to_string())?;
        if config.redis.is_none() {
            let rules = |key: Arc<Identity>| {
                let limits = access.limits_of(&key);
                let rules = limits.of_requests().into_iter().chain(limits.of_tokens()).collect();
                (key, rules)
            };
            let keys: Vec<_> = access.keys.all().into_iter().map(rules).collect();
            recall(&access.database, &keys).await.map_err(|error| error.to_string())?;
        }
        Ok(access)
    }

    /// Starts what goes on beside the requests.
    pub(crate) fn start(self: &Arc<Self>) {
        tokio::spawn(self.writer.clone().run());
        if let Some(jwt) = &self.jwt {
            tokio::spawn(jwt.clone().refresh());
        }
        let this = self.clone();
        tokio::spawn(async move {
            let mut forgot = None::<tokio::time::Instant>;
            while !this.ends.load(Ordering::Relaxed) {
                if this.keys.refresh(&this.database).await.is_ok() {
                    this.seen.store(ids::now_millis(), Ordering::Relaxed);
                    if let Some(days) = this.retention
                        && forgot.is_none_or(|last| last.elapsed() >= FORGET)
                    {
                        // What cannot be deleted now is deleted in an hour.
                        let _ = forget(&this.database, days).await;
                        forgot = Some(tokio::time::Instant::now());
                    }
                }
                this.limiter.look().await;
                tokio::time::sleep(LOOK).await;
            }
        });
    }

    /// Brings what was used into the database, and ends.
    pub(crate) async fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
        // What cannot be written now stays in the journal for the next start.
        let _ = self.writer.flush().await;
        self.database.close().await;
    }

    /// Whether the database answers.
    pub(crate) fn database_answers(&self) -> bool {
        ids::now_millis().saturating_sub(self.seen.load(Ordering::Relaxed)) < GONE
    }

    /// Looks at once for keys that have changed: whoever changed one need not wait.
    pub(crate) async fn refresh(&self) {
        // If it fails, the next look brings them.
        let _ = self.keys.refresh(&self.database).await;
    }

    /// Other limits from now on.
    pub(crate) fn set_limits(&self, limits: LimitSettings) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
    }

    /// The limits of all.
    pub(crate) fn limits(&self) -> Arc<LimitSettings> {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The limits of one.
    pub(crate) fn limits_of(&self, identity: &Identity) -> Limits {
        identity.limits.or(self.limits().default)
    }

    /// Counts a request of an address.
    ///
    /// # Errors
    /// 429.
    pub(crate) fn admit_address(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Result<(), ApiError> {
        let (Some(addresses), Some(peer)) = (&self.addresses, peer) else { return Ok(()) };
        let address = if self.proxies.contains(&peer) { forwarded(headers).unwrap_or(peer) } else { peer };
        Ok(addresses.take(address, ids::now_millis())?)
    }

    /// Who asks.
    ///
    /// # Errors
    /// 401 for whoever does not show it; 503 when it cannot be known and the configuration says to refuse then.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Result<Arc<Identity>, ApiError> {
        let text = credential(headers)?;
        if self.outage == Outage::Closed && !self.database_answers() {
            return Err(ApiError::unavailable("Keys cannot be checked: the database does not answer"));
        }
        // A token has two dots, a key none.
        if let (Some(jwt), true) = (&self.jwt, text.contains('.')) {
            let claims = jwt.check(text).ok_or_else(|| denied(Denied::Unknown))?;
            return Ok(self.token(&claims.sub, claims.role));
        }
        self.keys.find(text, ids::now_millis() as i64).map_err(denied)
    }

    /// Who had left something to be done, if he still may.
    pub(crate) fn identity_of(&self, subject: &str) -> Option<Arc<Identity>> {
        match subject.strip_prefix(JWT) {
            // Its token has ended meanwhile; what it began goes on with the rights of a user.
            Some(subject) => self.jwt.as_ref().map(|_| self.token(subject, Role::User)),
            None => self.keys.of_id(subject, ids::now_millis() as i64).ok(),
        }
    }

    fn token(&self, subject: &str, role: Role) -> Arc<Identity> {
        let name: Arc<str> = format!("{JWT}{subject}").into();
        let meter = self.meter(format!("key:{name}"));
        let limits = Limits::default();
        Arc::new(Identity { subject: name, owner: subject.into(), role, models: None, limits, meter })
    }

    /// The counters of this name.
    pub(crate) fn meter(&self, name: String) -> Arc<Meter> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        if meters.len() >= METERS {
            let now = ids::now_millis();
            meters.retain(|_, meter| Arc::strong_count(meter) > 1 || !meter.is_idle(now));
        }
        meters.entry(name.clone()).or_insert_with(|| Arc::new(Meter::new(name))).clone()
    }
}

/// `Authorization: Bearer …` or `x-api-key: …`.
fn credential(headers: &HeaderMap) -> Result<&str, ApiError> {
    let missing = || {
        ApiError::unauthorized(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer \
             auth (i.e. Authorization: Bearer YOUR_KEY), or in the header x-api-key",
        )
    };
    let (value, is_bearer) = match (headers.get(header::AUTHORIZATION), headers.get("x-api-key")) {
        (Some(value), _) => (value, true),
        (None, Some(value)) => (value, false),
        (None, None) => return Err(missing()),
    };
    let text = value.to_str().map_err(|_| denied(Denied::Unknown))?.trim();
    let text = match (is_bearer, text.split_once(' ')) {
        (false, _) => text,
        (true, Some((scheme, key))) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        (true, _) => return Err(missing()),
    };
    if text.is_empty() { Err(missing()) } else { Ok(text) }
}

/// What is not told: which part of a text is wrong.
fn denied(why: Denied) -> ApiError {
    match why {
        Denied::Unknown => ApiError::unauthorized("Incorrect API key provided"),
        Denied::Revoked => ApiError::unauthorized("This API key has been revoked"),
        Denied::Expired => ApiError::unauthorized("This API key has expired"),
    }
}

/// The address that the proxy next to us has seen.
fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_from_both_headers() {
        let headers = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, axum::http::HeaderValue::from_static(value));
            headers
        };
        assert_eq!(credential(&headers("authorization", "bearer  abc ")).unwrap(), "abc");
        assert_eq!(credential(&headers("x-api-key", "abc")).unwrap(), "abc");
        for bad in ["Basic abc", "abc", "Bearer", "Bearer "] {
            assert!(credential(&headers("authorization", bad)).is_err(), "{bad}");
        }
        assert!(credential(&HeaderMap::new()).is_err());
    }

    #[test]
    fn the_nearest_proxy_is_believed_and_no_other() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", axum::http::HeaderValue::from_static("1.1.1.1, 2.2.2.2"));
        assert_eq!(forwarded(&headers), Some("2.2.2.2".parse().unwrap()));
    }
}
