//! `/api/keys` and `/api/admin/audit`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::audit::{AuditEntry, AuditQuery};
use super::{KeyRecord, NewKey};
use crate::access::Access;
use crate::auth::{Identity, Role, current, secret};
use crate::error::ApiError;
use crate::limiter::Limits;
use crate::state::App;
use crate::storage::StorageError;
use crate::{body, ids};

/// Keys of a page at most, and where the request says nothing.
const PAGE: u32 = 100;
/// Entries of the log at most.
const AUDIT_PAGE: u32 = 1000;

/// What is asked of a new key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRequest {
    /// What it is called.
    name: String,
    /// Whose it is; a name of its own when left out.
    owner: Option<String>,
    #[serde(default)]
    role: Role,
    /// Seconds since 1970.
    expires_at: Option<u64>,
    /// Seconds from now.
    expires_in: Option<u64>,
    /// The models that it may ask; all when left out.
    models: Option<Vec<String>>,
    #[serde(default)]
    limits: Limits,
}

/// A key, without its text. Times are seconds since 1970.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyObject {
    id: String,
    object: &'static str,
    name: String,
    owner: String,
    role: Role,
    /// How its text begins.
    prefix: String,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    /// By the usage that has been written.
    last_used_at: Option<i64>,
    /// `null` for all.
    models: Option<Vec<String>>,
    limits: Limits,
}

/// A key that was made just now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewKeyObject {
    #[serde(flatten)]
    object: KeyObject,
    /// Its text. It is shown here and never again.
    key: String,
}

/// Keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    object: &'static str,
    data: Vec<KeyObject>,
    has_more: bool,
}

/// What admins did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditLog {
    object: &'static str,
    data: Vec<AuditEntry>,
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyQuery {
    /// At most so many.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those after this one.
    after: Option<String>,
    /// Those of this owner; admins see all others too.
    owner: Option<String>,
}

impl From<KeyRecord> for KeyObject {
    fn from(key: KeyRecord) -> Self {
        let seconds = |time: Option<i64>| time.map(|millis| millis / 1000);
        Self {
            prefix: secret::shown(&key.id),
            id: key.id,
            object: "api_key",
            name: key.name,
            owner: key.owner,
            role: key.role,
            created_at: key.created / 1000,
            expires_at: seconds(key.expires),
            revoked_at: seconds(key.revoked),
            last_used_at: seconds(key.used),
            models: key.models,
            limits: key.limits,
        }
    }
}

impl From<StorageError> for ApiError {
    /// The database's own words are for whoever runs the server, not for clients.
    fn from(_: StorageError) -> Self {
        Self::unavailable("The database does not answer")
    }
}

/// What keeps keys, and who asks.
///
/// # Errors
/// 400 on a server without keys.
pub(crate) fn asked(app: &App) -> Result<(Arc<Access>, Arc<Identity>), ApiError> {
    let (Some(access), Some(call)) = (&app.access, current()) else {
        return Err(ApiError::bad_request("This server answers everybody: it has no keys (--no-auth)"));
    };
    Ok((access.clone(), call.identity.clone()))
}

impl KeyRequest {
    fn check(self) -> Result<NewKey, ApiError> {
        let expires = match (self.expires_at, self.expires_in) {
            (Some(_), Some(_)) => {
                return Err(ApiError::param("expires_in", "not together with 'expires_at'"));
            }
            (at, within) => at.or(within.map(|seconds| ids::now().saturating_add(seconds))),
        };
        let new = NewKey {
            name: self.name,
            owner: self.owner,
            role: self.role,
            models: self.models,
            limits: self.limits,
            expires: expires.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)),
        };
        new.fault().map_or(Ok(new), |fault| Err(ApiError::bad_request(fault)))
    }
}

/// Makes a key.
pub(crate) async fn create(
    State(app): State<App>,
    body::Json(request): body::Json<KeyRequest>,
) -> Result<Response, ApiError> {
    let (access, identity) = asked(&app)?;
    let (record, key) = access.admin.create(request.check()?, &identity.subject).await?;
    access.refresh().await;
    Ok((StatusCode::CREATED, Json(NewKeyObject { object: record.into(), key })).into_response())
}

/// Lists keys, the newest first: all for admins, the own ones for others.
pub(crate) async fn list(
    State(app): State<App>,
    body::Query(query): body::Query<KeyQuery>,
) -> Result<Json<KeyList>, ApiError> {
    let (access, identity) = asked(&app)?;
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=PAGE).contains(&limit) {
        return Err(ApiError::param("limit", format!("{limit} is not in 1..={PAGE}")));
    }
    let owner = if identity.is_admin() { query.owner.as_deref() } else { Some(&*identity.owner) };
    let mut found = access.admin.list(owner, clean(query.after.as_deref()), limit + 1).await?;
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    Ok(Json(KeyList { object: "list", data: found.into_iter().map(KeyObject::from).collect(), has_more }))
}

/// Describes a key. That of somebody else is not there.
pub(crate) async fn get(
    State(app): State<App>,
    body::Path(id): body::Path,
) -> Result<Json<KeyObject>, ApiError> {
    let (access, identity) = asked(&app)?;
    let record = match clean(Some(&id)) {
        Some(id) => access.admin.get(id).await?,
        None => None,
    };
    let visible = record.filter(|key| identity.is_admin() || *key.owner == *identity.owner);
    visible.map(|key| Json(key.into())).ok_or_else(none)
}

/// Revokes a key, on every instance within a second.
pub(crate) async fn revoke(
    State(app): State<App>,
    body::Path(id): body::Path,
) -> Result<Json<KeyObject>, ApiError> {
    let (access, identity) = asked(&app)?;
    let id = clean(Some(&id)).ok_or_else(none)?;
    let record = access.admin.revoke(id, &identity.subject).await?.ok_or_else(none)?;
    access.refresh().await;
    Ok(Json(record.into()))
}

/// Gives a key another text.
pub(crate) async fn rotate(
    State(app): State<App>,
    body::Path(id): body::Path,
) -> Result<Json<NewKeyObject>, ApiError> {
    let (access, identity) = asked(&app)?;
    let id = clean(Some(&id)).ok_or_else(none)?;
    let (record, key) = access.admin.rotate(id, &identity.subject).await?.ok_or_else(none)?;
    access.refresh().await;
    Ok(Json(NewKeyObject { object: record.into(), key }))
}

/// What admins did, the newest first.
pub(crate) async fn audit(
    State(app): State<App>,
    body::Query(query): body::Query<AuditQuery>,
) -> Result<Json<AuditLog>, ApiError> {
    let (access, _) = asked(&app)?;
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=AUDIT_PAGE).contains(&limit) {
        return Err(ApiError::param("limit", format!("{limit} is not in 1..={AUDIT_PAGE}")));
    }
    let data = AuditEntry::list(&access.database, clean(query.before.as_deref()), limit).await?;
    Ok(Json(AuditLog { object: "list", data }))
}

/// A name as it could be one of ours; PostgreSQL takes no others.
fn clean(id: Option<&str>) -> Option<&str> {
    id.filter(|id| id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_graphic()))
}

fn none() -> ApiError {
    ApiError::not_found("There is no such key")
}
