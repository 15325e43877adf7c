//! Making, listing and revoking keys: for the routes, and for the command line.

use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Transaction};

use super::audit::note;
use super::store::{COLUMNS, KeyRecord, next_revision};
use crate::auth::Role;
use crate::auth::secret::{Hash, Secret};
use crate::ids;
use crate::limiter::Limits;
use crate::storage::{Database, StorageError};

/// What is asked of a new key.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// What it is called.
    pub name: String,
    /// Whose it is; the key's own id for `None`.
    pub owner: Option<String>,
    /// What it may do.
    pub role: Role,
    /// The models that it may ask; all for `None`.
    pub models: Option<Vec<String>>,
    /// Its limits.
    pub limits: Limits,
    /// Milliseconds since 1970 when it ends.
    pub expires: Option<i64>,
}

/// Characters of a name or an owner at most.
const NAME: usize = 200;
/// Models of a key at most.
const MODELS: usize = 100;
/// A century in milliseconds is for ever, and times beyond it are mistakes.
const EVER: i64 = 100 * 366 * 86_400_000;

impl NewKey {
    /// What is wrong with it, if something is: the field and why.
    pub fn fault(&self) -> Option<String> {
        let is_name = |text: &str| {
            !text.trim().is_empty() && text.chars().count() <= NAME && !text.chars().any(char::is_control)
        };
        let models = self.models.iter().flatten();
        let texts = [("name", Some(&self.name)), ("owner", self.owner.as_ref())];
        let mut texts = texts.into_iter().chain(models.map(|model| ("models", Some(model))));
        if let Some((field, _)) = texts.find(|(_, text)| text.is_some_and(|text| !is_name(text))) {
            return Some(format!("'{field}': 1 to {NAME} characters, none of them a control character"));
        }
        if self.models.as_ref().is_some_and(|models| models.is_empty() || models.len() > MODELS) {
            return Some(format!("'models': 1 to {MODELS} names; leave it out for all models"));
        }
        if let Some(fault) = self.limits.fault() {
            return Some(format!("'limits': {fault}"));
        }
        let now = ids::now_millis() as i64;
        let in_time = |end: i64| end > now && end < now + EVER;
        self.expires
            .filter(|end| !in_time(*end))
            .map(|_| "'expires_at': a time to come, within a century".to_owned())
    }
}

/// Changes keys in the database. Every change is written to the audit log with it, or not at all.
#[derive(Debug, Clone)]
pub struct Admin {
    database: Database,
}

impl Admin {
    /// Of this database.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Makes a key: its record, and its text, which is nowhere else.
    ///
    /// # Errors
    /// The database's; the system gives no random numbers.
    pub async fn create(&self, new: NewKey, actor: &str) -> Result<(KeyRecord, String), StorageError> {
        let secret = Secret::new().map_err(|error| StorageError::Content(error.to_string()))?;
        let NewKey { name, owner, role, models, limits, expires } = new;
        let mut change = self.database.begin().await?;
        let revision = next_revision(&mut change).await?;
        let record = KeyRecord {
            owner: owner.unwrap_or_else(|| secret.id.clone()),
            hash: Hash::of(&secret.text),
            created: ids::now_millis() as i64,
            revoked: None,
            used: None,
            id: secret.id,
            name,
            role,
            models,
            limits,
            expires,
            revision,
        };
        let sql = "INSERT INTO keys (id, name, owner, hash, role, models, limits, created, expires, revision) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        sqlx::query(sql)
            .bind(&record.id)
            .bind(&record.name)
            .bind(&record.owner)
            .bind(record.hash.to_hex())
            .bind(record.role.name())
            .bind(json(&record.models)?)
            .bind(json(&record.limits)?)
            .bind(record.created)
            .bind(record.expires)
            .bind(record.revision)
            .execute(&mut *change)
            .await?;
        let detail = format!("role {}, owner {}", record.role.name(), record.owner);
        note(&mut change, actor, "key.create", &record.id, &detail).await?;
        change.commit().await?;
        Ok((record, secret.text))
    }

    /// Revokes a key; `None` when there is no such key. One that was revoked stays as it is.
    ///
    /// # Errors
    /// The database's.
    pub async fn revoke(&self, id: &str, actor: &str) -> Result<Option<KeyRecord>, StorageError> {
        let mut change = self.database.begin().await?;
        let revision = next_revision(&mut change).await?;
        let sql = format!(
            "UPDATE keys SET revoked = COALESCE(revoked, $2), revision = $3 WHERE id = $1 RETURNING {COLUMNS}"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).bind(ids::now_millis() as i64).bind(revision);
        let row = row.fetch_optional(&mut *change).await?;
        self.noted(change, row, actor, "key.revoke").await
    }

    /// Gives a key another text; the old one is worth nothing from then on. `None` when there is no such key, or it was
    /// revoked.
    ///
    /// # Errors
    /// The database's; the system gives no random numbers.
    pub async fn rotate(&self, id: &str, actor: &str) -> Result<Option<(KeyRecord, String)>, StorageError> {
        let secret = Secret::of(id.to_owned()).map_err(|error| StorageError::Content(error.to_string()))?;
        let mut change = self.database.begin().await?;
        let revision = next_revision(&mut change).await?;
        let sql = format!(
            "UPDATE keys SET hash = $2, revision = $3 WHERE id = $1 AND revoked IS NULL RETURNING {COLUMNS}"
        );
        let row =
            sqlx::query(AssertSqlSafe(sql)).bind(id).bind(Hash::of(&secret.text).to_hex()).bind(revision);
        let row = row.fetch_optional(&mut *change).await?;
        let record = self.noted(change, row, actor, "key.rotate").await?;
        Ok(record.map(|record| (record, secret.text)))
    }

    /// Ends a change of a key.
    async fn noted(
        &self,
        mut change: Transaction<'static, Any>,
        row: Option<AnyRow>,
        actor: &str,
        action: &str,
    ) -> Result<Option<KeyRecord>, StorageError> {
        let Some(row) = row else { return Ok(None) };
        let record = KeyRecord::of(&row)?;
        note(&mut change, actor, action, &record.id, "").await?;
        change.commit().await?;
        Ok(Some(record))
    }

    /// Keys, the newest first: `limit` of them, after the one of this id, of this owner.
    ///
    /// # Errors
    /// The database's.
    pub async fn list(
        &self,
        owner: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<KeyRecord>, StorageError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM keys WHERE ($1 = '' OR owner = $1) AND ($2 = '' OR (created, id) < \
             (SELECT created, id FROM keys WHERE id = $2)) ORDER BY created DESC, id DESC LIMIT $3"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(owner.unwrap_or_default())
            .bind(after.unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(self.database.pool())
            .await?;
        rows.iter().map(KeyRecord::of).collect()
    }

    /// The key of this id.
    ///
    /// # Errors
    /// The database's.
    pub async fn get(&self, id: &str) -> Result<Option<KeyRecord>, StorageError> {
        let sql = format!("SELECT {COLUMNS} FROM keys WHERE id = $1");
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(self.database.pool()).await?;
        row.as_ref().map(KeyRecord::of).transpose()
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, StorageError> {
    serde_json::to_string(value).map_err(|error| StorageError::Content(error.to_string()))
}
