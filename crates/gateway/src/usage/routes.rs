//! `/api/stats` and what is below it, `/api/admin/stats`.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::csv;
use super::record::DAY;
use super::statistics::{By, Failure, Latency, Part, Question, Totals};
use crate::access::Access;
use crate::body;
use crate::error::ApiError;
use crate::ids;
use crate::keys::routes::asked;
use crate::limiter::Limits;
use crate::state::App;
use crate::storage::StorageError;

/// Days that are told where the request says nothing, and at most.
const DAYS: i64 = 30;
const MOST_DAYS: i64 = 3660;

/// Since when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatsQuery {
    /// Today and the days before it, so many in all.
    #[param(minimum = 1, maximum = 3660)]
    days: Option<i64>,
}

/// What the own keys have used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnStats {
    /// Whose.
    owner: String,
    days: i64,
    #[serde(flatten)]
    totals: Totals,
    /// The limits of the key that asks.
    limits: Limits,
}

/// The same in detail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DetailedStats {
    owner: String,
    days: i64,
    totals: Totals,
    by_model: Vec<Part>,
    by_endpoint: Vec<Part>,
    by_day: Vec<Part>,
    by_key: Vec<Part>,
    /// Milliseconds from the arrival of a request to the end of its answer.
    latency_ms: Latency,
}

/// What all keys have used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdminStats {
    days: i64,
    totals: Totals,
    by_model: Vec<Part>,
    by_endpoint: Vec<Part>,
    by_day: Vec<Part>,
    /// Keys, those that used most first.
    by_key: Vec<Part>,
    /// Owners of keys, those that used most first.
    by_owner: Vec<Part>,
    latency_ms: Latency,
    /// The newest failures.
    failures: Vec<Failure>,
    live: Live,
}

/// What is going on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Live {
    /// Requests that are being answered.
    requests: usize,
    /// Sequences that run, and that wait.
    running: usize,
    waiting: usize,
    /// Records on their way to the database.
    usage_pending: usize,
    /// Records that were written since the start.
    usage_written: u64,
    /// Records that the disk did not take since the start.
    usage_lost: u64,
}

impl StatsQuery {
    /// The number of days, and the first of them since 1970.
    fn days(&self) -> Result<(i64, i64), ApiError> {
        let days = self.days.unwrap_or(DAYS);
        if !(1..=MOST_DAYS).contains(&days) {
            return Err(ApiError::param("days", format!("{days} is not in 1..={MOST_DAYS}")));
        }
        Ok((days, ids::now_millis() as i64 / DAY + 1 - days))
    }
}

/// What has come so far is told too.
async fn bring_up_to_date(access: &Access) -> Result<(), StorageError> {
    access.writer.flush().await
}

/// What the keys of whoever asks have used.
pub(crate) async fn own(
    State(app): State<App>,
    body::Query(query): body::Query<StatsQuery>,
) -> Result<Json<OwnStats>, ApiError> {
    let (access, identity) = asked(&app)?;
    let (days, day) = query.days()?;
    bring_up_to_date(&access).await?;
    let owner = identity.owner.to_string();
    let totals = Question { database: &access.database, owner: owner.clone(), day }.totals().await?;
    Ok(Json(OwnStats { owner, days, totals, limits: access.limits_of(&identity) }))
}

/// The same by model, route, day and key, and how long it took.
pub(crate) async fn detailed(
    State(app): State<App>,
    body::Query(query): body::Query<StatsQuery>,
) -> Result<Json<DetailedStats>, ApiError> {
    let (access, identity) = asked(&app)?;
    let (days, day) = query.days()?;
    bring_up_to_date(&access).await?;
    let owner = identity.owner.to_string();
    let question = Question { database: &access.database, owner: owner.clone(), day };
    Ok(Json(DetailedStats {
        owner,
        days,
        totals: question.totals().await?,
        by_model: question.parts(By::Model).await?,
        by_endpoint: question.parts(By::Endpoint).await?,
        by_day: question.parts(By::Day).await?,
        by_key: question.parts(By::Key).await?,
        latency_ms: question.latency().await?,
    }))
}

/// What all keys have used.
pub(crate) async fn all(
    State(app): State<App>,
    body::Query(query): body::Query<StatsQuery>,
) -> Result<Json<AdminStats>, ApiError> {
    let (access, _) = asked(&app)?;
    let (days, day) = query.days()?;
    bring_up_to_date(&access).await?;
    let question = Question { database: &access.database, owner: String::new(), day };
    Ok(Json(AdminStats {
        days,
        totals: question.totals().await?,
        by_model: question.parts(By::Model).await?,
        by_endpoint: question.parts(By::Endpoint).await?,
        by_day: question.parts(By::Day).await?,
        by_key: question.parts(By::Key).await?,
        by_owner: question.parts(By::Owner).await?,
        latency_ms: question.latency().await?,
        failures: question.failures().await?,
        live: live(&app, &access),
    }))
}

fn live(app: &App, access: &Access) -> Live {
    let handles: Vec<_> = app.models.slots().iter().filter_map(|slot| slot.loaded()).collect();
    let sum = |gauge: fn(&crate::engine_thread::Gauges) -> &std::sync::atomic::AtomicUsize| {
        handles.iter().map(|handle| gauge(&handle.gauges).load(std::sync::atomic::Ordering::Relaxed)).sum()
    };
    Live {
        requests: app.in_flight.now(),
        running: sum(|gauges| &gauges.running),
        waiting: sum(|gauges| &gauges.waiting),
        usage_pending: access.journal.pending(),
        usage_written: access.writer.written(),
        usage_lost: access.journal.lost(),
    }
}

/// The own records as CSV.
pub(crate) async fn own_csv(
    State(app): State<App>,
    body::Query(query): body::Query<StatsQuery>,
) -> Result<Response, ApiError> {
    let (access, identity) = asked(&app)?;
    export(&access, identity.owner.to_string(), &query).await
}

/// All records as CSV.
pub(crate) async fn all_csv(
    State(app): State<App>,
    body::Query(query): body::Query<StatsQuery>,
) -> Result<Response, ApiError> {
    let (access, _) = asked(&app)?;
    export(&access, String::new(), &query).await
}

async fn export(access: &Access, owner: String, query: &StatsQuery) -> Result<Response, ApiError> {
    let (_, day) = query.days()?;
    bring_up_to_date(access).await?;
    Ok(csv::respond(access.database.clone(), owner, day * DAY).await?)
}
