//! Options about keys, tokens, limits and the database behind them.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;

/// Where keys and usage are kept.
#[derive(Debug, Clone, Args)]
pub(crate) struct DatabaseArgs {
    /// Database of keys and usage: a file, or postgres://USER:PASSWORD@HOST/NAME; ~/.local/share/edgellm/gateway.db by
    /// default
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true, value_name = "URL")]
    pub(crate) database: Option<String>,
}

/// Who is let in, and how much each may ask.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Keys and limits")]
pub(crate) struct AccessArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// Folder in which usage is written before it comes into the database; beside the database file by default
    #[arg(long, value_name = "FOLDER")]
    pub(crate) journal: Option<PathBuf>,
    /// Redis for limits that several instances share: redis://HOST
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// Secret of tokens (JWT) signed with HS256, at least 32 random bytes: set JWT_SECRET, the command line is no place
    /// for it
    #[arg(long, env = "JWT_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub(crate) jwt_secret: Option<String>,
    /// Algorithm of tokens (JWT); hs256 when there is a secret
    #[arg(long, value_enum, value_name = "ALGORITHM")]
    pub(crate) jwt_algorithm: Option<Algorithm>,
    /// Public key of tokens (PEM)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["jwt_secret", "jwks"])]
    pub(crate) jwt_key: Option<PathBuf>,
    /// Public keys of tokens (JWKS): a file, or https://…
    #[arg(long, value_name = "FILE", conflicts_with = "jwt_secret")]
    pub(crate) jwks: Option<String>,
    /// Who must have issued a token
    #[arg(long, value_name = "NAME")]
    pub(crate) jwt_issuer: Option<String>,
    /// Whom a token must be for
    #[arg(long, value_name = "NAME")]
    pub(crate) jwt_audience: Option<String>,
    /// Seconds by which the clocks of tokens may differ; 30 by default
    #[arg(long, value_name = "SECONDS")]
    pub(crate) jwt_leeway: Option<u64>,
    /// Requests a minute from one address, counted before it is known who asks
    #[arg(long, value_name = "N")]
    pub(crate) address_limit: Option<u64>,
    /// Proxy whose X-Forwarded-For says who asks; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) trusted_proxy: Vec<IpAddr>,
    /// While Redis or the database is gone: open goes on with known keys, closed refuses; open by default
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) on_outage: Option<OnOutage>,
    /// Days for which single usage records are kept; for ever by default
    #[arg(long, value_name = "DAYS")]
    pub(crate) retention: Option<u32>,
}

/// Algorithms of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    Eddsa,
}

/// What happens during an outage.
#[derive(Debug, Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnOutage {
    Open,
    Closed,
}

/// Make, list and revoke API keys.
///
/// Works on the database itself, whether a server runs or not; one that runs knows of it within a second. The first key of
/// an admin is made here, all others can be made over /api/keys too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm keys create --name admin --role admin
  edgellm keys create --name laptop --owner alice --models smollm2 --requests-per-minute 60 --expires-in-days 90
  edgellm keys list --json
  edgellm keys revoke mfqtk4bcaodvsw5e")]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    pub(crate) action: KeysAction,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
}

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysAction {
    /// Make a key and print it: it is shown this once
    Create(Box<CreateKeyArgs>),
    /// List keys, the newest first
    List {
        /// Print a JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key by its id
    Revoke {
        /// The id, or the whole key
        id: String,
    },
}

/// A new key.
#[derive(Debug, Args)]
pub(crate) struct CreateKeyArgs {
    /// What it is called
    #[arg(long, default_value = "key")]
    pub(crate) name: String,
    /// Whose it is: keys of one owner share their statistics
    #[arg(long, value_name = "NAME")]
    pub(crate) owner: Option<String>,
    /// What it may do
    #[arg(long, value_enum, default_value_t = RoleArg::User)]
    pub(crate) role: RoleArg,
    /// Models that it may ask; all by default
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) models: Option<Vec<String>>,
    /// It ends after so many days
    #[arg(long, value_name = "DAYS")]
    pub(crate) expires_in_days: Option<u32>,
    /// Requests in any minute
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_minute: Option<u64>,
    /// Tokens of prompts and answers in any minute
    #[arg(long, value_name = "N")]
    pub(crate) tokens_per_minute: Option<u64>,
    /// Requests in any 24 hours
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_day: Option<u64>,
    /// Requests at a time
    #[arg(long, value_name = "N")]
    pub(crate) parallel_requests: Option<u64>,
    /// Tokens in any --budget-days days
    #[arg(long, value_name = "N")]
    pub(crate) token_budget: Option<u64>,
    /// Days of the budget; 30 by default
    #[arg(long, value_name = "DAYS", requires = "token_budget")]
    pub(crate) budget_days: Option<u64>,
    /// Print a JSON object instead of the bare key
    #[arg(long)]
    pub(crate) json: bool,
}

/// Roles.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleArg {
    /// Ask the models, see the own usage
    User,
    /// All
    Admin,
    /// Read /metrics and nothing else
    Monitor,
}
