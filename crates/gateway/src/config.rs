//! What a server serves, and how.

use std::fs::Metadata;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use engine::LoadOptions;
use engine::synthetic::Synthetic;

use crate::auth::settings::{AccessConfig, LimitSettings};
use crate::log::Log;
use crate::trace::TraceConfig;

/// Where a model comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A file or folder, and how it is loaded.
    Path(PathBuf, Box<LoadOptions>),
    /// A low-rank adapter, a folder as PEFT writes it, beside the model of another name, whose weights it shares.
    Adapter {
        /// The other's name.
        base: String,
        /// The folder.
        folder: PathBuf,
    },
    /// Random weights of a true shape, for measurements: its answers mean nothing.
    Synthetic(Synthetic, Box<LoadOptions>),
    /// The backend that costs nothing ([`crate::backend::NullBackend`]): to measure the server itself.
    Null,
}

/// A model that can be asked for by name.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
}

impl ModelSource {
    /// Bytes of its files, and seconds since 1970 of the newest.
    pub(crate) fn file(&self) -> (u64, u64) {
        let (Origin::Path(path, _) | Origin::Adapter { folder: path, .. }) = &self.origin else {
            return (0, 0);
        };
        let files: Vec<Metadata> = match std::fs::read_dir(path) {
            Ok(entries) => entries.flatten().filter_map(|entry| entry.metadata().ok()).collect(),
            Err(_) => std::fs::metadata(path).into_iter().collect(),
        };
        let modified = |file: &Metadata| {
            file.modified().ok()?.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
        };
        (files.iter().map(Metadata::len).sum(), files.iter().filter_map(modified).max().unwrap_or(0))
    }
}

/// Certificate and key of a TLS server, both in PEM files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificates: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How tokens are chosen where a request does not say. What is not said here either is as its interface has it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SamplingDefaults {
    /// 0 always takes the most likely token.
    pub temperature: Option<f32>,
    /// Only the most likely tokens that together have this probability.
    pub top_p: Option<f32>,
    /// Only so many of the most likely tokens; 0 for all.
    pub top_k: Option<usize>,
    /// Only tokens at least this likely, relative to the most likely one.
    pub min_p: Option<f32>,
    /// Divides the logits of tokens seen.
    pub repetition_penalty: Option<f32>,
    /// Subtracted from a token's logit as often as it was seen.
    pub frequency_penalty: Option<f32>,
    /// Subtracted once from the logit of a token seen.
    pub presence_penalty: Option<f32>,
    /// Seed of the draws.
    pub seed: Option<u64>,
    /// Tokens of an answer at most.
    pub max_tokens: Option<usize>,
}

/// What can change while a server runs.
#[derive(Debug, Clone, Default)]
pub struct Reload {
    /// The models. One that was there before stays loaded, unless its file has changed.
    pub models: Vec<ModelSource>,
    /// What is limited.
    pub limits: LimitSettings,
}

/// The configuration of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The models; the first is the default one and is loaded at the start.
    pub models: Vec<ModelSource>,
    /// Whether a request for an unknown model is answered by the first one, as llama.cpp's server does.
    pub any_model_name: bool,
    /// How tokens are chosen where a request does not say.
    pub sampling: SamplingDefaults,
    /// Positions of a sequence at most; `None` for what the model was made for, at most 8192.
    pub context: Option<usize>,
    /// Sequences that run at a time.
    pub parallel: usize,
    /// Requests that wait at most.
    pub queue: usize,
    /// Bytes of keys and values of one model; `None` for 1 GiB.
    pub kv_bytes: Option<u64>,
    /// Bytes of all loaded models; `None` for no limit.
    pub memory: Option<u64>,
    /// A model that nobody has asked for so long is unloaded, unless it is the only one.
    pub idle: Duration,
    /// How long running requests may go on after the signal to stop.
    pub grace: Duration,
    /// Whether the server speaks TLS.
    pub tls: Option<TlsFiles>,
    /// Origins that web pages may ask from; `*` for all.
    pub cors: Vec<String>,
    /// Where files and batches are kept; without it there are none.
    pub data: Option<PathBuf>,
    /// Keys, limits and usage; without it everybody who reaches the port is answered.
    pub access: Option<AccessConfig>,
    /// Where requests are told; nowhere for `None`.
    pub log: Option<Log>,
    /// Where requests are traced; nowhere for `None`.
    pub trace: Option<TraceConfig>,
    /// What takes the place of `models` and of the limits of `access` while the server runs.
    pub reload: Option<tokio::sync::watch::Receiver<Reload>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            any_model_name: false,
            sampling: SamplingDefaults::default(),
            context: None,
            parallel: 16,
            queue: 64,
            kv_bytes: None,
            memory: None,
            idle: Duration::from_secs(300),
            grace: Duration::from_secs(30),
            tls: None,
            cors: Vec::new(),
            data: None,
            access: None,
            log: None,
            trace: None,
            reload: None,
        }
    }
}
