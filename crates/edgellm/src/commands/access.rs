//! Who is let in, as the options say it.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use gateway::settings::{AccessConfig, JwtAlgorithm, JwtConfig, JwtKeys, LimitSettings, Outage, weak_secret};

use super::config::FileLimits;
use crate::args::{AccessArgs, Algorithm, DatabaseArgs, OnOutage};
use crate::failure::Failure;

/// Seconds by which clocks may differ.
const LEEWAY: u64 = 30;
/// For a set of keys to come over the network.
const FETCH: Duration = Duration::from_secs(10);
/// Bytes of a set of keys.
const JWKS: u64 = 1 << 20;

/// The configuration of a server that asks who is there.
pub(super) fn config(args: &AccessArgs, limits: FileLimits) -> Result<AccessConfig> {
    let database = database(&args.database)?;
    Ok(AccessConfig {
        journal: args.journal.clone().map_or_else(|| journal(&database), Ok)?,
        database,
        redis: args.redis.clone().filter(|url| !url.is_empty()),
        jwt: jwt(args)?,
        limits: settings(args, limits),
        outage: match args.on_outage {
            Some(OnOutage::Closed) => Outage::Closed,
            Some(OnOutage::Open) | None => Outage::Open,
        },
        retention: args.retention,
        proxies: args.trusted_proxy.clone(),
    })
}

/// The limits of all.
pub(super) fn settings(args: &AccessArgs, file: FileLimits) -> LimitSettings {
    LimitSettings { address: args.address_limit, default: file.default, models: file.models }
}

/// Reads the keys of tokens as a server does.
pub(super) fn check_keys(config: &AccessConfig) -> Result<()> {
    let Some(jwt) = &config.jwt else { return Ok(()) };
    let hint = "see the book's page Keys and limits";
    let checked = super::serve::runtime()?.block_on(gateway::settings::check_jwt(jwt));
    checked.map_err(|problem| Failure::new(problem, hint).into())
}

/// The database that was named, or the file in the user's folder.
pub(super) fn database(args: &DatabaseArgs) -> Result<String> {
    match args.database.as_deref() {
        Some(url) if !url.is_empty() => Ok(url.to_owned()),
        _ => Ok(data_folder()?.join("gateway.db").to_string_lossy().into_owned()),
    }
}

/// `$XDG_DATA_HOME/edgellm`.
fn data_folder() -> Result<PathBuf> {
    let data = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let folder = data.or_else(home).map(|folder| folder.join("edgellm"));
    let problem = "there is no home folder for the database of keys";
    Ok(folder.ok_or_else(|| Failure::new(problem, "name a file: --database FILE"))?)
}

/// Beside a database that is a file, else in the user's folder.
fn journal(database: &str) -> Result<PathBuf> {
    if database.starts_with("postgres") {
        return Ok(data_folder()?.join("journal"));
    }
    let path =
        ["sqlite://", "sqlite:"].iter().find_map(|scheme| database.strip_prefix(scheme)).unwrap_or(database);
    Ok(PathBuf::from(format!("{}.journal", path.split('?').next().unwrap_or(path))))
}

fn jwt(args: &AccessArgs) -> Result<Option<JwtConfig>> {
    let keys = match (&args.jwt_secret, &args.jwt_key, &args.jwks) {
        (Some(secret), _, _) => JwtKeys::Secret(secret.clone()),
        (None, Some(path), _) => JwtKeys::Pem(path.clone()),
        (None, None, Some(url)) if url.starts_with("https://") || url.starts_with("http://") => {
            JwtKeys::JwksUrl(fetch, url.clone())
        }
        (None, None, Some(path)) => JwtKeys::JwksFile(PathBuf::from(path)),
        (None, None, None) => return Ok(None),
    };
    let algorithm = match (args.jwt_algorithm, &keys) {
        (Some(Algorithm::Hs256), _) | (None, JwtKeys::Secret(_)) => JwtAlgorithm::Hs256,
        (Some(Algorithm::Rs256), _) => JwtAlgorithm::Rs256,
        (Some(Algorithm::Es256), _) => JwtAlgorithm::Es256,
        (Some(Algorithm::Eddsa), _) => JwtAlgorithm::EdDsa,
        (None, _) => {
            let problem = "the algorithm of tokens is not said";
            return Err(Failure::new(problem, "add --jwt-algorithm rs256, es256 or eddsa").into());
        }
    };
    if let JwtKeys::Secret(secret) = &keys
        && let Some(why) = weak_secret(secret)
    {
        let hint = "make one with: openssl rand -base64 48";
        return Err(Failure::new(format!("JWT_SECRET is weak: {why}"), hint).into());
    }
    Ok(Some(JwtConfig {
        algorithm,
        keys,
        issuer: args.jwt_issuer.clone(),
        audience: args.jwt_audience.clone(),
        leeway: args.jwt_leeway.unwrap_or(LEEWAY),
    }))
}

/// A set of keys from the network.
fn fetch(url: &str) -> Result<Vec<u8>, String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(FETCH)).build();
    let answer = ureq::Agent::new_with_config(config).get(url).call().map_err(|error| error.to_string())?;
    answer.into_body().with_config().limit(JWKS).read_to_vec().map_err(|error| error.to_string())
}
