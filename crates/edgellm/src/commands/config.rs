//! The configuration file of a server, and `edgellm config check`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use gateway::Limits;
use serde::Deserialize;

use super::{access, serve};
use crate::args::{Algorithm, ConfigAction, ConfigArgs, LogLevel, OnOutage, ServeArgs};
use crate::failure::Failure;
use crate::output::Output;

/// What a file may say. Flags and the environment go before it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    host: Option<IpAddr>,
    port: Option<u16>,
    models: Vec<String>,
    adapters: Vec<String>,
    any_model_name: bool,
    context: Option<usize>,
    parallel: Option<usize>,
    queue: Option<usize>,
    kv_memory: Option<u64>,
    memory: Option<u64>,
    idle: Option<u64>,
    grace: Option<u64>,
    cors: Vec<String>,
    data: Option<PathBuf>,
    log_level: Option<LogLevel>,
    trace: Option<String>,
    tls: Option<Tls>,
    access: Access,
    jwt: Jwt,
    limits: FileLimits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificates: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Access {
    database: Option<String>,
    journal: Option<PathBuf>,
    redis: Option<String>,
    on_outage: Option<OnOutage>,
    retention: Option<u32>,
    trusted_proxies: Vec<IpAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Jwt {
    algorithm: Option<Algorithm>,
    key: Option<PathBuf>,
    jwks: Option<String>,
    issuer: Option<String>,
    audience: Option<String>,
    leeway: Option<u64>,
}

/// The limits of all.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileLimits {
    pub(super) address: Option<u64>,
    pub(super) default: Limits,
    pub(super) models: BTreeMap<String, Limits>,
}

impl File {
    /// Reads the file; the error names the line.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let hint = "the book's page Configuration has all fields";
        let text =
            std::fs::read_to_string(path).map_err(|error| Failure::new(format!("{name}: {error}"), hint))?;
        let file: Self = toml::from_str(&text)
            .map_err(|error| Failure::new(format!("{name}: {}", error.to_string().trim()), hint))?;
        let limits = std::iter::once(("limits.default", &file.limits.default));
        let models = file.limits.models.iter().map(|(model, limits)| (model.as_str(), limits));
        for (what, limits) in limits.chain(models) {
            if let Some(fault) = limits.fault() {
                return Err(Failure::new(format!("{name}: {what}: {fault}"), hint).into());
            }
        }
        Ok(file)
    }

    /// Fills in what flags and environment leave open; gives the limits, which have no flags.
    pub(super) fn fill(self, args: &mut ServeArgs) -> FileLimits {
        args.host = args.host.or(self.host);
        args.port = args.port.or(self.port);
        args.queue = args.queue.or(self.queue);
        args.memory = args.memory.or(self.memory);
        args.idle = args.idle.or(self.idle);
        args.grace = args.grace.or(self.grace);
        args.data = args.data.take().or(self.data);
        args.log_level = args.log_level.or(self.log_level);
        args.trace = args.trace.take().or(self.trace);
        let models = &mut args.models;
        if models.model.is_empty() {
            models.model = self.models;
            // They belong to the first model of the file, and go with it.
            if models.lora.is_empty() {
                models.lora = self.adapters;
            }
        }
        models.any_model_name |= self.any_model_name;
        models.context = models.context.or(self.context);
        models.parallel = models.parallel.or(self.parallel);
        models.kv_memory = models.kv_memory.or(self.kv_memory);
        if args.cors.is_empty() {
            args.cors = self.cors;
        }
        if args.tls_cert.is_none()
            && let Some(tls) = self.tls
        {
            (args.tls_cert, args.tls_key) = (Some(tls.certificates), Some(tls.key));
        }
        let access = &mut args.access;
        access.database.database = access.database.database.take().or(self.access.database);
        access.journal = access.journal.take().or(self.access.journal);
        access.redis = access.redis.take().or(self.access.redis);
        access.on_outage = access.on_outage.or(self.access.on_outage);
        access.retention = access.retention.or(self.access.retention);
        if access.trusted_proxy.is_empty() {
            access.trusted_proxy = self.access.trusted_proxies;
        }
        access.address_limit = access.address_limit.or(self.limits.address);
        // A key of a flag, or the environment's secret, goes before all keys of the file.
        if access.jwt_secret.is_none() && access.jwt_key.is_none() && access.jwks.is_none() {
            access.jwt_key = self.jwt.key;
            access.jwks = self.jwt.jwks;
        }
        access.jwt_algorithm = access.jwt_algorithm.or(self.jwt.algorithm);
        access.jwt_issuer = access.jwt_issuer.take().or(self.jwt.issuer);
        access.jwt_audience = access.jwt_audience.take().or(self.jwt.audience);
        access.jwt_leeway = access.jwt_leeway.or(self.jwt.leeway);
        self.limits
    }
}

/// Checks a configuration as a server would, without starting one.
pub(crate) fn run(args: ConfigArgs, out: &mut Output) -> Result<()> {
    let ConfigAction::Check(serve) = args.action;
    let (args, config) = serve::settled(*serve)?;
    let auth = match &config.access {
        None => "everybody is answered (--no-auth)".to_owned(),
        Some(access) => {
            let place = if access.database.starts_with("postgres") { "PostgreSQL" } else { &access.database };
            let jwt = access.jwt.as_ref().map_or("none".to_owned(), |jwt| format!("{:?}", jwt.algorithm));
            let redis =
                if access.redis.is_some() { "shared through Redis" } else { "counted by this instance" };
            format!("keys in {place}, tokens: {jwt}, limits {redis}")
        }
    };
    let models: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
    let (host, port) = serve::address(&args);
    let tls = if config.tls.is_some() { "https" } else { "http" };
    out.line(&format!("address  {tls}://{}", std::net::SocketAddr::new(host, port)))?;
    out.line(&format!("models   {}", models.join(", ")))?;
    out.line(&format!("access   {auth}"))?;
    if let Some(access) = &config.access {
        out.line(&format!("limits   {}", serde_json::to_string(&access.limits.default)?))?;
        for (model, limits) in &access.limits.models {
            out.line(&format!("         {model}: {}", serde_json::to_string(limits)?))?;
        }
        access::check_keys(access)?;
    }
    out.line("the configuration is right")
}
