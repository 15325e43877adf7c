//! OpenAI's interface, as its published specification has it.

pub(crate) mod chat;
pub(crate) mod chunks;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod knobs;
pub(crate) mod models;
pub(crate) mod responses;
pub(crate) mod types;
