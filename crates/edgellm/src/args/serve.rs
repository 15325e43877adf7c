//! Options of `edgellm serve`.
#![allow(rustdoc::broken_intra_doc_links, reason = "comments here are help texts: [/file] is no link")]

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;

use super::{AccessArgs, RunArgs};

/// The models of a server or a batch, and how they are run.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelsArgs {
    /// A file, a folder, a pulled name, or hf:owner/repo[/file], with a name before it if wished; may be repeated, the
    /// first is the default. Without one the small model that the program carries. To measure the server: null, or synthetic:bitnet-2b and other shapes of edgellm benchmark
    #[arg(long, env = "MODEL_PATH", value_name = "[NAME=]MODEL")]
    pub(crate) model: Vec<String>,
    /// A low-rank adapter of the first model, a folder as PEFT and edgellm finetune write it: answers under its own name
    /// and shares the model's weights; may be repeated
    #[arg(long, value_name = "NAME=DIR")]
    pub(crate) lora: Vec<String>,
    /// Answer requests for models that are not there with the first one, as llama.cpp's server does
    #[arg(long)]
    pub(crate) any_model_name: bool,
    /// Positions of a sequence at most; what the model was made for by default, at most 8192
    #[arg(long, alias = "ctx-size", value_name = "N")]
    pub(crate) context: Option<usize>,
    /// Sequences that run at a time; 16 by default
    #[arg(long, alias = "max-sequences", value_name = "N")]
    pub(crate) parallel: Option<usize>,
    /// Memory for keys and values of each model; a quarter of what is free by default
    #[arg(long, value_name = "MB")]
    pub(crate) kv_memory: Option<u64>,
    /// File with a chat template (Jinja) instead of the models' own
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) defaults: DefaultsArgs,
}

/// How tokens are chosen where a request does not say; what is not said here either is as the interface has it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where a request does not say")]
pub(crate) struct DefaultsArgs {
    /// Temperature; 0 always takes the most likely token
    #[arg(long, alias = "temp", value_name = "TEMP")]
    pub(crate) temperature: Option<f32>,
    /// Only the most likely tokens that together have this probability; 1 for all
    #[arg(long, value_name = "TOP_P")]
    pub(crate) top_p: Option<f32>,
    /// Only this many most likely tokens; 0 for all
    #[arg(long, value_name = "TOP_K")]
    pub(crate) top_k: Option<usize>,
    /// Only tokens at least this likely, relative to the most likely one
    #[arg(long, value_name = "MIN_P")]
    pub(crate) min_p: Option<f32>,
    /// Divides the logits of tokens seen; 1 for none
    #[arg(long, value_name = "X")]
    pub(crate) repetition_penalty: Option<f32>,
    /// Subtracted from a token's logit as often as it was seen
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f32>,
    /// Subtracted once from the logit of a token seen
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// Seed; by chance for each request otherwise
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Tokens of an answer at most
    #[arg(long, alias = "n-predict", value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
}

/// Serve models over HTTP.
///
/// The interfaces of OpenAI, Ollama and Anthropic, and a chat page at /ui. Ends with SIGTERM or Ctrl-C, after the
/// requests that run.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  edgellm serve --model smollm2-135m-instruct --no-auth
  edgellm serve --model chat=model.gguf --model big=hf:owner/repo --memory 8000 --no-auth
  edgellm serve --model model.gguf --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) models: ModelsArgs,
    /// TOML file with what is not said here or in the environment
    #[arg(long, env = "GATEWAY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address to listen on; 127.0.0.1 by default
    #[arg(long, env = "GATEWAY_HOST", value_name = "ADDRESS")]
    pub(crate) host: Option<IpAddr>,
    /// Port to listen on; 8080 by default, 0 for a free one
    #[arg(long, env = "GATEWAY_PORT")]
    pub(crate) port: Option<u16>,
    /// Answer everybody who reaches the port, which must be on the loopback address
    #[arg(long)]
    pub(crate) no_auth: bool,
    /// Requests that wait at most; those beyond get 429; 64 by default
    #[arg(long, value_name = "N")]
    pub(crate) queue: Option<usize>,
    /// Memory for models: those that were not asked for the longest are unloaded
    #[arg(long, value_name = "MB")]
    pub(crate) memory: Option<u64>,
    /// A model beside others that nobody has asked for so long is unloaded; 300 by default
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle: Option<u64>,
    /// How long requests may go on after SIGTERM; 30 by default
    #[arg(long, value_name = "SECONDS")]
    pub(crate) grace: Option<u64>,
    /// Certificates for TLS (PEM), the server's own first
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key for TLS (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Web pages of this origin may ask; * for all; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) cors: Vec<String>,
    /// Folder for files and batches; without it there are none
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
    /// Requests that are told on standard error, a line of JSON each: none, failures, refusals too, all
    #[arg(long, env = "LOG_LEVEL", value_enum, value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,
    /// Collector of traces (OpenTelemetry, OTLP over HTTP): http://localhost:4318
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL")]
    pub(crate) trace: Option<String>,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Check the configuration of a server.
///
/// Takes what `edgellm serve` takes, and says what would come of it, or what is wrong.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm config check --config gateway.toml
  GATEWAY_CONFIG=gateway.toml edgellm config check --host 0.0.0.0")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

/// What is done with a configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Read it as a server would, without starting one
    Check(Box<ServeArgs>),
}

/// Which requests are told.
#[derive(Debug, Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Off,
    /// Those that the server could not answer
    Error,
    /// Those that were refused too
    Warn,
    /// All
    #[value(alias = "debug")]
    #[serde(alias = "debug")]
    Info,
}
