//! The tables, step by step. A step that was released is never changed: a new one follows it.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// What both SQLite and PostgreSQL understand. Times are milliseconds since 1970, lists and limits are JSON.
const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO meta (name, value) VALUES ('revision', 0);

CREATE TABLE keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, owner TEXT NOT NULL, hash TEXT NOT NULL, role TEXT NOT NULL,
    models TEXT NOT NULL, limits TEXT NOT NULL, created BIGINT NOT NULL, expires BIGINT, revoked BIGINT, used BIGINT,
    revision BIGINT NOT NULL
);
CREATE INDEX keys_revision ON keys (revision);

CREATE TABLE audit (
    id TEXT PRIMARY KEY, at BIGINT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_at ON audit (at);

CREATE TABLE usage_records (
    id TEXT PRIMARY KEY, at BIGINT NOT NULL, subject TEXT NOT NULL, owner TEXT NOT NULL, model TEXT NOT NULL,
    endpoint TEXT NOT NULL, status BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL, micros BIGINT NOT NULL
);
CREATE INDEX usage_records_at ON usage_records (at, id);
CREATE INDEX usage_records_subject ON usage_records (subject, at);
CREATE INDEX usage_records_errors ON usage_records (at) WHERE status >= 400;

CREATE TABLE usage_days (
    day BIGINT NOT NULL, subject TEXT NOT NULL, owner TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL,
    requests BIGINT NOT NULL, errors BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL, PRIMARY KEY (day, subject, owner, model, endpoint)
);
CREATE TABLE usage_latency (
    day BIGINT NOT NULL, subject TEXT NOT NULL, owner TEXT NOT NULL, model TEXT NOT NULL, bucket BIGINT NOT NULL,
    requests BIGINT NOT NULL, PRIMARY KEY (day, subject, owner, model, bucket)
);
";

/// All steps.
pub(super) fn migrations() -> Migrator {
    let step = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![step(1, "keys, audit, usage", TABLES)])
}
