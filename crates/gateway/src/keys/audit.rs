//! What admins did.

use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Row};
use utoipa::{IntoParams, ToSchema};

use crate::ids;
use crate::storage::{Database, StorageError};

/// Something that an admin did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    id: String,
    /// Seconds since 1970.
    at: i64,
    /// Who: a key's id, `jwt:` and a subject, or `command line`.
    actor: String,
    /// `key.create`, `key.revoke`, `key.rotate`.
    action: String,
    /// To what: a key's id.
    target: String,
    detail: String,
}

/// Which part of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<u32>,
    /// Those before this one.
    pub(crate) before: Option<String>,
}

/// Writes what is done, together with it.
pub(super) async fn note(
    connection: &mut AnyConnection,
    actor: &str,
    action: &str,
    target: &str,
    detail: &str,
) -> Result<(), StorageError> {
    sqlx::query("INSERT INTO audit (id, at, actor, action, target, detail) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(ids::new("audit_"))
        .bind(ids::now_millis() as i64)
        .bind(actor)
        .bind(action)
        .bind(target)
        .bind(detail)
        .execute(connection)
        .await?;
    Ok(())
}

impl AuditEntry {
    /// The newest entries first.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn list(
        database: &Database,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Self>, StorageError> {
        let sql = "SELECT id, at, actor, action, target, detail FROM audit WHERE ($1 = '' OR (at, id) < \
                   (SELECT at, id FROM audit WHERE id = $1)) ORDER BY at DESC, id DESC LIMIT $2";
        let rows = sqlx::query(sql)
            .bind(before.unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(database.pool())
            .await?;
        let entry = |row: &sqlx::any::AnyRow| {
            Ok(Self {
                id: row.try_get(0)?,
                at: row.try_get::<i64, _>(1)? / 1000,
                actor: row.try_get(2)?,
                action: row.try_get(3)?,
                target: row.try_get(4)?,
                detail: row.try_get(5)?,
            })
        };
        rows.iter().map(entry).collect()
    }
}
