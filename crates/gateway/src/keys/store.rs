//! Keys as they are stored, and the copy of them in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::auth::secret::{Hash, id_of};
use crate::auth::{Identity, Role};
use crate::limiter::{Limits, Meter};
use crate::storage::{Database, StorageError};

/// The columns of a key, in the order of [`KeyRecord::of`].
pub(super) const COLUMNS: &str =
    "id, name, owner, hash, role, models, limits, created, expires, revoked, used, revision";

/// A key as it is stored. Times are milliseconds since 1970.
#[derive(Debug, Clone)]
pub struct KeyRecord {
    /// Names it; no secret.
    pub id: String,
    /// What its maker calls it.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// What it may do.
    pub role: Role,
    /// The models that it may ask; all for `None`.
    pub models: Option<Vec<String>>,
    /// Its own limits.
    pub limits: Limits,
    /// When it was made.
    pub created: i64,
    /// When it ends.
    pub expires: Option<i64>,
    /// When it was revoked.
    pub revoked: Option<i64>,
    /// When it was used last, by the usage that was written.
    pub used: Option<i64>,
    pub(super) hash: Hash,
    pub(super) revision: i64,
}

impl KeyRecord {
    pub(super) fn of(row: &AnyRow) -> Result<Self, StorageError> {
        let wrong = |what: &str| StorageError::Content(format!("a key has a wrong {what}"));
        let role: String = row.try_get(4)?;
        let models: String = row.try_get(5)?;
        let limits: String = row.try_get(6)?;
        let hash: String = row.try_get(3)?;
        Ok(Self {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            owner: row.try_get(2)?,
            hash: Hash::from_hex(&hash).ok_or_else(|| wrong("hash"))?,
            role: Role::of(&role).ok_or_else(|| wrong("role"))?,
            models: serde_json::from_str(&models).map_err(|_| wrong("list of models"))?,
            limits: serde_json::from_str(&limits).map_err(|_| wrong("limit"))?,
            created: row.try_get(7)?,
            expires: row.try_get(8)?,
            revoked: row.try_get(9)?,
            used: row.try_get(10)?,
            revision: row.try_get(11)?,
        })
    }
}

/// Counts a change. Whoever changes keys does this first: it makes writers wait for each other, so revisions are seen in
/// their order.
pub(super) async fn next_revision(connection: &mut AnyConnection) -> Result<i64, StorageError> {
    let sql = "UPDATE meta SET value = value + 1 WHERE name = 'revision' RETURNING value";
    Ok(sqlx::query(sql).fetch_one(connection).await?.try_get(0)?)
}

/// Why a text lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No key of ours.
    Unknown,
    /// It was one.
    Revoked,
    /// It was one.
    Expired,
}

/// A key in memory.
struct Entry {
    identity: Arc<Identity>,
    hash: Hash,
    expires: Option<i64>,
    is_revoked: bool,
}

/// All keys in memory, as new as the database was when it was last looked at.
#[derive(Default)]
pub(crate) struct Cache {
    entries: RwLock<HashMap<String, Entry>>,
    revision: AtomicI64,
}

impl Cache {
    /// Brings in what has changed since the last time.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn refresh(&self, database: &Database) -> Result<(), StorageError> {
        let known = self.revision.load(Ordering::Acquire);
        let sql = format!("SELECT {COLUMNS} FROM keys WHERE revision > $1");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(known).fetch_all(database.pool()).await?;
        let changed: Vec<KeyRecord> = rows.iter().map(KeyRecord::of).collect::<Result<_, _>>()?;
        self.put(changed);
        Ok(())
    }

    /// Takes in keys that have changed. One whose newer state is known already is left out.
    pub(super) fn put(&self, changed: Vec<KeyRecord>) {
        if changed.is_empty() {
            return;
        }
        let mut newest = 0;
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for key in changed {
            newest = newest.max(key.revision);
            let meter = match entries.get(&key.id) {
                Some(entry) => entry.identity.meter.clone(),
                None => Arc::new(Meter::new(format!("key:{}", key.id))),
            };
            let identity = Identity {
                subject: key.id.as_str().into(),
                owner: key.owner.into(),
                role: key.role,
                models: key.models,
                limits: key.limits,
                meter,
            };
            let (expires, is_revoked) = (key.expires, key.revoked.is_some());
            let entry = Entry { identity: Arc::new(identity), hash: key.hash, expires, is_revoked };
            entries.insert(key.id, entry);
        }
        self.revision.fetch_max(newest, Ordering::AcqRel);
    }

    /// Whose key this is.
    ///
    /// # Errors
    /// Why it lets nobody in.
    pub(crate) fn find(&self, text: &str, now: i64) -> Result<Arc<Identity>, Denied> {
        let id = id_of(text).ok_or(Denied::Unknown)?;
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(id).filter(|entry| entry.hash.is_of(text)).ok_or(Denied::Unknown)?;
        entry.live(now)
    }

    /// The key of this id, for what its owner has left to be done.
    ///
    /// # Errors
    /// It may do nothing any more.
    pub(crate) fn of_id(&self, id: &str, now: i64) -> Result<Arc<Identity>, Denied> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(id).ok_or(Denied::Unknown)?.live(now)
    }

    /// All that are live, for what is remembered of them.
    pub(crate) fn all(&self) -> Vec<Arc<Identity>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.values().filter(|entry| !entry.is_revoked).map(|entry| entry.identity.clone()).collect()
    }
}

impl Entry {
    fn live(&self, now: i64) -> Result<Arc<Identity>, Denied> {
        if self.is_revoked {
            return Err(Denied::Revoked);
        }
        if self.expires.is_some_and(|end| end <= now) {
            return Err(Denied::Expired);
        }
        Ok(self.identity.clone())
    }
}
