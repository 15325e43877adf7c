//! Serves models over HTTP.
//!
//! The way of a request: `router` (all routes and layers on one page), validation (`openai`, `ollama`: only what has
//! been validated can be run), the model's own thread (`engine_thread`, one owner of the model, bounded channels), the
//! scheduler of `engine`, and back through `stream` or `collect`.
//!
//! It is a library: [`run`] takes a listener, the configuration and a future that says when to stop.

mod access;
mod anthropic;
mod auth;
pub mod backend;
pub mod batch;
mod body;
mod card;
mod collect;
pub mod config;
mod connection;
mod cors;
mod embedding;
mod engine_thread;
mod error;
mod generation;
mod grammar;
mod health;
mod ids;
mod in_flight;
pub mod keys;
mod limiter;
pub mod limits;
mod llama_cpp;
pub mod log;
mod metrics;
mod models;
mod ollama;
mod openai;
mod openapi;
mod prompt;
mod router;
mod server;
mod sse;
mod state;
pub mod storage;
mod stream;
mod tls;
mod tokenize;
mod tools;
pub mod trace;
mod translate;
mod ui;
mod usage;
mod ws;

pub use auth::{Role, settings};
pub use config::{Config, ModelSource, Origin, Reload, SamplingDefaults};
pub use limiter::Limits;
pub use server::{ServeError, run};
