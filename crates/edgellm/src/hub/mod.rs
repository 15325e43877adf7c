//! Model files from the Hugging Face hub, in the hub's own cache layout.
//!
//! A download survives what happens to downloads: it resumes where it was cut, its bytes are hashed on the way
//! and compared with the checksum that the hub names, and only a file that is whole gets its final name. The
//! cache is the one that Python's `huggingface_hub` uses, so both share what was fetched once.
//!
//! Environment, with the meaning that `huggingface_hub` gives them: `HF_ENDPOINT` (a mirror), `HF_TOKEN`,
//! `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`.

mod cache;
mod client;
mod digest;
mod download;
mod error;
mod location;
mod names;
mod select;

pub(crate) use cache::Cache;
pub(crate) use download::{Hub, Pulled};
pub(crate) use error::HubError;
pub(crate) use location::Location;
pub(crate) use names::{NAMES, by_name};
