//! Brings records into the database, with their sums.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::{AnyConnection, AssertSqlSafe, Row};
use tokio::sync::Mutex;

use super::histogram::bucket;
use super::journal::Journal;
use super::record::{DAY, UsageRecord};
use crate::auth::Identity;
use crate::ids;
use crate::limiter::{Kind, Rule};
use crate::storage::{Database, StorageError};

/// Between two looks at what has come.
const PAUSE: Duration = Duration::from_millis(200);
/// After a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Records of one statement.
const AT_ONCE: usize = 50;
/// Columns of a record.
const COLUMNS: usize = 11;

/// Writes what the journal holds.
pub(crate) struct Writer {
    journal: Arc<Journal>,
    database: Database,
    /// One at a time writes.
    turn: Mutex<()>,
    /// Records that were written since the start.
    written: AtomicU64,
}

/// What is summed up: day, subject, owner, model.
type Of = (i64, Arc<str>, Arc<str>, Arc<str>);

/// The sums of a day for one key, model and route.
#[derive(Default)]
struct Sums {
    requests: i64,
    errors: i64,
    prompt_tokens: i64,
    cached_tokens: i64,
    completion_tokens: i64,
}

impl Writer {
    pub(crate) fn new(journal: Arc<Journal>, database: Database) -> Self {
        Self { journal, database, turn: Mutex::default(), written: AtomicU64::new(0) }
    }

    /// Records that were written since the start.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Writes what comes, until the writer is not needed any more.
    pub(crate) async fn run(self: Arc<Self>) {
        let this = Arc::downgrade(&self);
        drop(self);
        loop {
            let Some(writer) = this.upgrade() else { return };
            let pause = if writer.flush().await.is_ok() { PAUSE } else { AFTER_FAILURE };
            drop(writer);
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes all that was appended before.
    ///
    /// # Errors
    /// The database's; what was not written stays in the journal.
    pub(crate) async fn flush(&self) -> Result<(), StorageError> {
        let _one_at_a_time = self.turn.lock().await;
        let wrong = |error: std::io::Error| StorageError::Content(format!("the journal of usage: {error}"));
        self.journal.rotate().map_err(wrong)?;
        while let Some(records) = self.journal.oldest().map_err(wrong)? {
            let n = records.len() as u64;
            self.write(&records).await?;
            self.journal.done();
            self.written.fetch_add(n, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes records and what they add up to; those that are there already change nothing.
    async fn write(&self, records: &[UsageRecord]) -> Result<(), StorageError> {
        let mut change = self.database.begin().await?;
        let mut new = Vec::with_capacity(records.len());
        for part in records.chunks(AT_ONCE) {
            let fresh = insert(&mut change, part, self.database.numbers_parameters()).await?;
            new.extend(part.iter().filter(|record| fresh.contains(&record.id)));
        }
        let mut sums: BTreeMap<(Of, Arc<str>), Sums> = BTreeMap::new();
        let mut latencies: BTreeMap<(Of, i64), i64> = BTreeMap::new();
        let mut used: BTreeMap<Arc<str>, i64> = BTreeMap::new();
        for record in new {
            let of = (record.day(), record.subject.clone(), record.owner.clone(), record.model.clone());
            let sum = sums.entry((of.clone(), record.endpoint.clone())).or_default();
            sum.requests += 1;
            sum.errors += i64::from(record.is_error());
            sum.prompt_tokens += record.prompt_tokens as i64;
            sum.cached_tokens += record.cached_tokens as i64;
            sum.completion_tokens += record.completion_tokens as i64;
            if !record.is_error() {
                *latencies.entry((of, bucket(record.micros))).or_default() += 1;
            }
            let last = used.entry(record.subject.clone()).or_default();
            *last = record.at.max(*last);
        }
        for ((of, endpoint), sums) in &sums {
            add_sums(&mut change, of, endpoint, sums).await?;
        }
        for ((of, bucket), requests) in &latencies {
            add_latency(&mut change, of, *bucket, *requests).await?;
        }
        for (subject, at) in &used {
            let sql = "UPDATE keys SET used = $2 WHERE id = $1 AND (used IS NULL OR used < $2)";
            sqlx::query(sql).bind(&**subject).bind(*at).execute(&mut *change).await?;
        }
        change.commit().await?;
        Ok(())
    }
}

/// Inserts records; gives the ids of those that were not there.
async fn insert(
    connection: &mut AnyConnection,
    records: &[UsageRecord],
    numbers: bool,
) -> Result<HashSet<String>, StorageError> {
    let mut sql =
        "INSERT INTO usage_records (id, at, subject, owner, model, endpoint, status, prompt_tokens, \
                   cached_tokens, completion_tokens, micros) VALUES "
            .to_owned();
    for row in 0..records.len() {
        let place = |column| if numbers { format!("${}", row * COLUMNS + column) } else { "?".to_owned() };
        let places: Vec<String> = (1..=COLUMNS).map(place).collect();
        sql.push_str(if row == 0 { "(" } else { ", (" });
        sql.push_str(&places.join(", "));
        sql.push(')');
    }
    sql.push_str(" ON CONFLICT (id) DO NOTHING RETURNING id");
    // Statements of every length would fill the cache of prepared ones.
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(records.len() == AT_ONCE);
    for record in records {
        query = query
            .bind(record.id.as_str())
            .bind(record.at)
            .bind(&*record.subject)
            .bind(&*record.owner)
            .bind(&*record.model)
            .bind(&*record.endpoint)
            .bind(i64::from(record.status))
            .bind(record.prompt_tokens as i64)
            .bind(record.cached_tokens as i64)
            .bind(record.completion_tokens as i64)
            .bind(record.micros as i64);
    }
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn add_sums(
    connection: &mut AnyConnection,
    (day, subject, owner, model): &Of,
    endpoint: &str,
    sums: &Sums,
) -> Result<(), StorageError> {
    let sql = "INSERT INTO usage_days (day, subject, owner, model, endpoint, requests, errors, prompt_tokens, \
               cached_tokens, completion_tokens) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
               ON CONFLICT (day, subject, owner, model, endpoint) DO UPDATE SET \
               requests = usage_days.requests + excluded.requests, errors = usage_days.errors + excluded.errors, \
               prompt_tokens = usage_days.prompt_tokens + excluded.prompt_tokens, \
               cached_tokens = usage_days.cached_tokens + excluded.cached_tokens, \
               completion_tokens = usage_days.completion_tokens + excluded.completion_tokens";
    sqlx::query(sql)
        .bind(*day)
        .bind(&**subject)
        .bind(&**owner)
        .bind(&**model)
        .bind(endpoint)
        .bind(sums.requests)
        .bind(sums.errors)
        .bind(sums.prompt_tokens)
        .bind(sums.cached_tokens)
        .bind(sums.completion_tokens)
        .execute(connection)
        .await?;
    Ok(())
}

async fn add_latency(
    connection: &mut AnyConnection,
    (day, subject, owner, model): &Of,
    bucket: i64,
    requests: i64,
) -> Result<(), StorageError> {
    let sql = "INSERT INTO usage_latency (day, subject, owner, model, bucket, requests) VALUES ($1, $2, $3, $4, $5, $6) \
               ON CONFLICT (day, subject, owner, model, bucket) DO UPDATE SET \
               requests = usage_latency.requests + excluded.requests";
    sqlx::query(sql)
        .bind(*day)
        .bind(&**subject)
        .bind(&**owner)
        .bind(&**model)
        .bind(bucket)
        .bind(requests)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes records that are older than so many days. Their sums stay.
///
/// # Errors
/// The database's.
pub(crate) async fn forget(database: &Database, days: u32) -> Result<u64, StorageError> {
    let before = ids::now_millis() as i64 - i64::from(days) * DAY;
    let deleted =
        sqlx::query("DELETE FROM usage_records WHERE at < $1").bind(before).execute(database.pool()).await?;
    Ok(deleted.rows_affected())
}

/// Counts under the limits of keys what was used before this start.
///
/// # Errors
/// The database's.
pub(crate) async fn recall(
    database: &Database,
    keys: &[(Arc<Identity>, Vec<Rule>)],
) -> Result<(), StorageError> {
    let now = ids::now_millis() as i64;
    for (key, rules) in keys {
        for rule in rules {
            // A sixtieth of the window at a time, as the window itself counts. Single records may be gone before a budget
            // ends: it is recalled from the sums of its days.
            let is_budget = rule.kind == Kind::Budget;
            let length = if is_budget { DAY } else { (rule.span / 60).max(1) as i64 };
            let sql = if is_budget {
                "SELECT day, CAST(SUM(requests) AS BIGINT), CAST(SUM(prompt_tokens + completion_tokens) AS BIGINT) \
                 FROM usage_days WHERE day > $2 / $1 AND subject = $3 GROUP BY day ORDER BY day"
            } else {
                "SELECT at / $1, COUNT(*), CAST(SUM(prompt_tokens + completion_tokens) AS BIGINT) \
                 FROM usage_records WHERE at > $2 AND subject = $3 GROUP BY at / $1 ORDER BY 1"
            };
            let query = sqlx::query(sql).bind(length).bind(now - rule.span as i64).bind(&*key.subject);
            for row in query.fetch_all(database.pool()).await? {
                let end = (row.try_get::<i64, _>(0)? + 1) * length - 1;
                let cost: i64 = row.try_get(if rule.kind.counts_tokens() { 2 } else { 1 })?;
                key.meter.remember(rule, end.min(now) as u64, cost.max(0) as u64);
            }
        }
    }
    Ok(())
}
