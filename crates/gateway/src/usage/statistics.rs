//! Answers to questions about usage, from the sums of days: their time does not grow with the number of requests.

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};
use utoipa::ToSchema;

use super::histogram::percentiles;
use crate::storage::{Database, StorageError};

/// Entries of a list at most.
const MOST: i64 = 100;

/// What was used in all.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct Totals {
    pub(crate) requests: i64,
    /// Those of them that were refused or failed.
    pub(crate) errors: i64,
    pub(crate) prompt_tokens: i64,
    /// Tokens of prompts that were known already.
    pub(crate) cached_tokens: i64,
    pub(crate) completion_tokens: i64,
    pub(crate) total_tokens: i64,
}

/// What was used of one model, at one route, on one day, by one key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsagePart)]
pub(crate) struct Part {
    /// Which.
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) totals: Totals,
}

/// How long answers took, in milliseconds.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct Latency {
    p50: f64,
    p90: f64,
    p95: f64,
    p99: f64,
}

/// A request that failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failure {
    /// Seconds since 1970.
    at: i64,
    key: String,
    endpoint: String,
    model: String,
    status: i64,
}

/// By what usage is told apart.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By {
    Model,
    Endpoint,
    Day,
    Key,
    Owner,
}

impl By {
    fn column(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Endpoint => "endpoint",
            Self::Day => "day",
            Self::Key => "subject",
            Self::Owner => "owner",
        }
    }
}

/// Whose usage, and since when.
#[derive(Debug, Clone)]
pub(crate) struct Question<'d> {
    pub(crate) database: &'d Database,
    /// Of this owner; of all for an empty name.
    pub(crate) owner: String,
    /// From this day since 1970 on.
    pub(crate) day: i64,
}

const SUMS: &str = "CAST(COALESCE(SUM(requests), 0) AS BIGINT), CAST(COALESCE(SUM(errors), 0) AS BIGINT), \
                    CAST(COALESCE(SUM(prompt_tokens), 0) AS BIGINT), CAST(COALESCE(SUM(cached_tokens), 0) AS BIGINT), \
                    CAST(COALESCE(SUM(completion_tokens), 0) AS BIGINT)";

impl Totals {
    /// From the columns of [`SUMS`], the first of which is `first`.
    fn of(row: &AnyRow, first: usize) -> Result<Self, StorageError> {
        let at = |i: usize| row.try_get::<i64, _>(first + i);
        let (prompt_tokens, completion_tokens) = (at(2)?, at(4)?);
        Ok(Self {
            requests: at(0)?,
            errors: at(1)?,
            prompt_tokens,
            cached_tokens: at(3)?,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
        })
    }
}

impl Question<'_> {
    async fn rows(&self, sql: String) -> Result<Vec<AnyRow>, StorageError> {
        // Made of constants; what comes from outside is bound.
        let query = sqlx::query(AssertSqlSafe(sql)).bind(self.day).bind(&self.owner);
        Ok(query.fetch_all(self.database.pool()).await?)
    }

    /// All together.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn totals(&self) -> Result<Totals, StorageError> {
        let sql = format!("SELECT {SUMS} FROM usage_days WHERE day >= $1 AND ($2 = '' OR owner = $2)");
        self.rows(sql).await?.first().map_or_else(|| Ok(Totals::default()), |row| Totals::of(row, 0))
    }

    /// Told apart: days in their order, else who used most first, a hundred at most.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn parts(&self, by: By) -> Result<Vec<Part>, StorageError> {
        let column = by.column();
        let (order, most) = match by {
            By::Day => ("1", i64::from(u16::MAX)),
            _ => ("SUM(prompt_tokens) + SUM(completion_tokens) DESC, SUM(requests) DESC, 1", MOST),
        };
        let sql = format!(
            "SELECT {column}, {SUMS} FROM usage_days WHERE day >= $1 AND ($2 = '' OR owner = $2) GROUP BY {column} \
             ORDER BY {order} LIMIT {most}"
        );
        let part = |row: &AnyRow| {
            let name = match by {
                By::Day => date(row.try_get(0)?),
                _ => row.try_get(0)?,
            };
            Ok(Part { name, totals: Totals::of(row, 1)? })
        };
        self.rows(sql).await?.iter().map(part).collect()
    }

    /// How long answers took that were no errors.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn latency(&self) -> Result<Latency, StorageError> {
        let sql = "SELECT bucket, CAST(SUM(requests) AS BIGINT) FROM usage_latency WHERE day >= $1 AND \
                   ($2 = '' OR owner = $2) GROUP BY bucket ORDER BY bucket";
        let count = |row: &AnyRow| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?));
        let counts: Vec<(i64, i64)> =
            self.rows(sql.to_owned()).await?.iter().map(count).collect::<Result<_, _>>()?;
        let [p50, p90, p95, p99] = percentiles(&counts, [0.5, 0.9, 0.95, 0.99]);
        Ok(Latency { p50, p90, p95, p99 })
    }

    /// The newest failures, as long as single records are kept.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn failures(&self) -> Result<Vec<Failure>, StorageError> {
        let sql = "SELECT at, subject, endpoint, model, status FROM usage_records WHERE status >= 400 AND \
                   at >= $1 * 86400000 AND ($2 = '' OR owner = $2) ORDER BY at DESC LIMIT 50";
        let failure = |row: &AnyRow| {
            Ok(Failure {
                at: row.try_get::<i64, _>(0)? / 1000,
                key: row.try_get(1)?,
                endpoint: row.try_get(2)?,
                model: row.try_get(3)?,
                status: row.try_get(4)?,
            })
        };
        self.rows(sql.to_owned()).await?.iter().map(failure).collect()
    }
}

/// A day since 1970 as `2026-11-21`.
fn date(day: i64) -> String {
    chrono::DateTime::from_timestamp(day * 86_400, 0).unwrap_or_default().date_naive().to_string()
}
