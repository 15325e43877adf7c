//! Serves models over HTTP.
//!
//! The way of a request: `router` (all routes and layers on one page), validation (`openai`, `ollama`: only what has
//! been validated can be run), the model's own thread (`engine_thread`, one owner of the model, bounded channels), the
//! scheduler of `engine`, and back through `stream` or `collect`.
//!
//! It is a library: [`run`] takes a listener, the configuration and a future that says when to stop.

mod anthropic;
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
pub mod limits;
mod llama_cpp;
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
mod stream;
mod tls;
mod tokenize;
mod tools;
mod translate;
mod ui;
mod ws;

pub use config::{Config, ModelSource, Origin, SamplingDefaults};
pub use server::{ServeError, run};
