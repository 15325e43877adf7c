//! Counters that many instances share, in Redis. Each question is one script, so nobody comes between asking and counting.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, Script};
use tokio::sync::mpsc;

use super::Taken;
use super::rules::Rule;
use super::standing::{Full, Standing};
use crate::ids;

/// What stands in front of all keys.
const PREFIX: &str = "edgellm";
/// How long Redis may take to answer. After that it counts as gone.
const ANSWER: Duration = Duration::from_millis(250);
/// A place whose instance has died is free again after so long.
const LEASE: Duration = Duration::from_secs(60);
/// Leases that run are renewed this often.
const RENEW: Duration = Duration::from_secs(20);
/// Settlements on their way. When Redis is gone for long, those beyond are left out: what they took runs out by itself.
const WAITING: usize = 65_536;

/// Redis, and what is told to it in the background.
#[derive(Clone)]
pub(super) struct Shared(Arc<Inner>);

struct Inner {
    connection: ConnectionManager,
    take: Script,
    enter: Script,
    later: mpsc::Sender<Later>,
    leases: Mutex<HashMap<String, String>>,
    instance: String,
    next: AtomicU64,
}

/// What nobody waits for.
enum Later {
    Settle { keys: Vec<String>, spans: Vec<u64>, at: u64, taken: u64, actual: u64 },
    Leave { key: String, lease: String },
}

/// What counts of a request for one key and one kind. The braces keep all of a key on one node of a cluster.
fn key(name: &str, what: &str) -> String {
    format!("{PREFIX}:{{{name}}}:{what}")
}

impl Shared {
    /// Redis at this address. It need not be there yet.
    ///
    /// # Errors
    /// The address is none.
    pub(super) fn new(address: &str) -> Result<Self, String> {
        let wrong = |error: RedisError| format!("REDIS_URL: {}", error.category());
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_max_delay(ANSWER)
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER));
        let client = Client::open(address).map_err(wrong)?;
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)?;
        let (later, receiver) = mpsc::channel(WAITING);
        let shared = Self(Arc::new(Inner {
            connection,
            take: Script::new(include_str!("take.lua")),
            enter: Script::new(include_str!("enter.lua")),
            later,
            leases: Mutex::default(),
            instance: ids::new(""),
            next: AtomicU64::new(0),
        }));
        // The task ends when the last sender has gone; it holds none itself.
        tokio::spawn(work(shared.0.connection.clone(), Arc::downgrade(&shared.0), receiver));
        Ok(shared)
    }

    /// Whether it answers.
    pub(super) async fn answers(&self) -> bool {
        redis::cmd("PING").query_async::<String>(&mut self.0.connection.clone()).await.is_ok()
    }

    /// See [`super::Meter::take`].
    pub(super) async fn take(
        &self,
        name: &str,
        rules: &[Rule],
        cost: u64,
    ) -> Result<Result<Taken, Full>, RedisError> {
        self.take_at(0, name, rules, cost).await
    }

    /// The same at a time of ours; 0 for that of Redis.
    async fn take_at(
        &self,
        now: u64,
        name: &str,
        rules: &[Rule],
        cost: u64,
    ) -> Result<Result<Taken, Full>, RedisError> {
        let mut call = self.0.take.prepare_invoke();
        call.arg(now).arg(cost);
        for rule in rules {
            call.key(key(name, rule.kind.name())).arg(rule.limit).arg(rule.span);
        }
        let answer: Vec<i64> = call.invoke_async(&mut self.0.connection.clone()).await?;
        let at = |i: usize| answer.get(i).copied().and_then(|value| u64::try_from(value).ok());
        let standing = |rule: &Rule, used: Option<u64>, reset: Option<u64>| Standing {
            kind: rule.kind,
            limit: rule.limit,
            remaining: rule.limit.saturating_sub(used.unwrap_or(0)),
            reset: reset.unwrap_or(0),
        };
        if answer.first() == Some(&1) {
            let told = |(i, rule)| standing(rule, at(2 + 2 * i), at(3 + 2 * i));
            let standings = rules.iter().enumerate().map(told).collect();
            return Ok(Ok(Taken { at: at(1).unwrap_or(0), cost, is_shared: true, standings }));
        }
        let number = at(2).and_then(|number| usize::try_from(number).ok()).unwrap_or(1);
        let Some(rule) = rules.get(number.saturating_sub(1)) else {
            return Err(RedisError::from((redis::ErrorKind::UnexpectedReturnType, "no answer of ours")));
        };
        Ok(Err(Full::rule(rule, cost, standing(rule, at(3), at(4)), at(5))))
    }

    /// What was taken turned out to be `actual`.
    pub(super) fn settle(&self, name: &str, rules: &[Rule], taken: &Taken, actual: u64) {
        let keys = rules.iter().map(|rule| key(name, rule.kind.name())).collect();
        let spans = rules.iter().map(|rule| rule.span).collect();
        // See WAITING.
        let _ = self.0.later.try_send(Later::Settle { keys, spans, at: taken.at, taken: taken.cost, actual });
    }

    /// Takes one of so many places; the name of its lease, or `None` when all are taken.
    pub(super) async fn enter(&self, name: &str, places: u64) -> Result<Option<String>, RedisError> {
        let lease = format!("{}-{}", self.0.instance, self.0.next.fetch_add(1, Ordering::Relaxed));
        let key = key(name, "places");
        let mut call = self.0.enter.prepare_invoke();
        call.key(&key).arg(places).arg(&lease).arg(LEASE.as_millis() as u64);
        let entered: i64 = call.invoke_async(&mut self.0.connection.clone()).await?;
        if entered == 0 {
            return Ok(None);
        }
        self.0.leases().insert(lease.clone(), key);
        Ok(Some(lease))
    }

    /// Leaves the place of a lease.
    pub(super) fn leave(&self, lease: String) {
        if let Some(key) = self.0.leases().remove(&lease) {
            // A place that cannot be told of is free when its lease ends.
            let _ = self.0.later.try_send(Later::Leave { key, lease });
        }
    }
}

impl Inner {
    fn leases(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Settles, and keeps leases alive.
async fn work(
    mut connection: ConnectionManager,
    shared: std::sync::Weak<Inner>,
    mut later: mpsc::Receiver<Later>,
) {
    let (settle, renew) = (Script::new(include_str!("settle.lua")), Script::new(include_str!("renew.lua")));
    let mut tick = tokio::time::interval(RENEW);
    loop {
        let result: Result<(), RedisError> = tokio::select! {
            message = later.recv() => match message {
                None => return,
                Some(Later::Settle { keys, spans, at, taken, actual }) => {
                    let mut call = settle.prepare_invoke();
                    call.arg(at).arg(taken).arg(actual);
                    for (key, span) in keys.iter().zip(spans) {
                        call.key(key).arg(span);
                    }
                    call.invoke_async(&mut connection).await
                }
                Some(Later::Leave { key, lease }) => {
                    redis::cmd("ZREM").arg(key).arg(lease).query_async(&mut connection).await
                }
            },
            _ = tick.tick() => {
                let Some(shared) = shared.upgrade() else { return };
                let leases: Vec<(String, String)> =
                    shared.leases().iter().map(|(lease, key)| (lease.clone(), key.clone())).collect();
                let mut result = Ok(());
                for part in leases.chunks(500) {
                    let mut call = renew.prepare_invoke();
                    call.arg(LEASE.as_millis() as u64);
                    for (lease, key) in part {
                        call.key(key).arg(lease);
                    }
                    result = call.invoke_async(&mut connection).await;
                }
                result
            }
        };
        // What Redis did not hear runs out by itself: windows slide on, leases end.
        drop(result);
    }
}
