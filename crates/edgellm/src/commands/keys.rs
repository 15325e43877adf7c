//! `edgellm keys`: the keys of a server, in its database.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use gateway::keys::{Admin, KeyRecord, NewKey};
use gateway::storage::Database;
use gateway::{Limits, Role};
use serde_json::json;

use super::{access, serve};
use crate::args::{CreateKeyArgs, KeysAction, KeysArgs, RoleArg};
use crate::failure::Failure;
use crate::output::{self, Output};

/// Who did it, in the audit log.
const ACTOR: &str = "command line";
/// Keys that are read at a time.
const PAGE: u32 = 100;
const DAY_MILLIS: i64 = 86_400_000;

/// Makes, lists or revokes.
pub(crate) fn run(args: &KeysArgs, out: &mut Output) -> Result<()> {
    serve::runtime()?.block_on(async {
        let database = Database::open(&access::database(&args.database)?).await?;
        let admin = Admin::new(database.clone());
        let result = match &args.action {
            KeysAction::Create(new) => create(&admin, new, out).await,
            KeysAction::List { json } => list(&admin, *json, out).await,
            KeysAction::Revoke { id } => revoke(&admin, id).await,
        };
        database.close().await;
        result
    })
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

async fn create(admin: &Admin, args: &CreateKeyArgs, out: &mut Output) -> Result<()> {
    let limits = Limits {
        requests_per_minute: args.requests_per_minute,
        tokens_per_minute: args.tokens_per_minute,
        requests_per_day: args.requests_per_day,
        parallel_requests: args.parallel_requests,
        token_budget: args.token_budget,
        budget_days: args.budget_days,
    };
    let new = NewKey {
        name: args.name.clone(),
        owner: args.owner.clone(),
        role: match args.role {
            RoleArg::User => Role::User,
            RoleArg::Admin => Role::Admin,
            RoleArg::Monitor => Role::Monitor,
        },
        models: args.models.clone(),
        limits,
        expires: args.expires_in_days.map(|days| now() + i64::from(days) * DAY_MILLIS),
    };
    if let Some(problem) = new.fault() {
        return Err(Failure::new(problem, "edgellm keys create --help").into());
    }
    let (record, key) = admin.create(new, ACTOR).await?;
    if args.json {
        let mut value = described(&record);
        value["key"] = key.into();
        return out.json(&value);
    }
    out.line(&key)?;
    output::note(&format!("key {} of {}: keep it, it is not shown again", record.id, record.owner));
    Ok(())
}

async fn list(admin: &Admin, json: bool, out: &mut Output) -> Result<()> {
    let mut after = None::<String>;
    loop {
        let page = admin.list(None, after.as_deref(), PAGE).await?;
        for key in &page {
            if json {
                out.json(&described(key))?;
            } else {
                out.line(&line(key))?;
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE as usize => after = Some(last.id.clone()),
            _ => return Ok(()),
        }
    }
}

async fn revoke(admin: &Admin, id: &str) -> Result<()> {
    // Somebody may have the whole key at hand and not its id.
    let id = id.strip_prefix("elk_").and_then(|rest| rest.split('_').next()).unwrap_or(id);
    match admin.revoke(id, ACTOR).await? {
        Some(key) => output::note(&format!("key {} ({}) is revoked", key.id, key.name)),
        None => return Err(Failure::new(format!("there is no key {id}"), "edgellm keys list").into()),
    }
    Ok(())
}

fn described(key: &KeyRecord) -> serde_json::Value {
    json!({
        "id": key.id, "name": key.name, "owner": key.owner, "role": key.role, "models": key.models,
        "limits": key.limits, "created_at": key.created / 1000, "expires_at": key.expires.map(|t| t / 1000),
        "revoked_at": key.revoked.map(|t| t / 1000), "last_used_at": key.used.map(|t| t / 1000),
    })
}

fn line(key: &KeyRecord) -> String {
    let state = match (key.revoked, key.expires) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now() => "expired",
        _ => "live",
    };
    let role = serde_json::to_value(key.role).ok();
    let role = role.as_ref().and_then(|role| role.as_str()).unwrap_or_default();
    format!("{}\t{state}\t{role}\t{}\t{}", key.id, key.owner, key.name)
}
