//! Many requests that nobody waits for: `/v1/files`, `/v1/batches`, and from file to file.
//!
//! Each request goes through the router like any other. Results go to the disk as they come, so a batch goes on where it
//! was when the process starts anew.

pub(crate) mod batches;
pub(crate) mod files;
mod journal;
mod line;
mod offline;
pub(crate) mod store;

pub use offline::{BatchError, Progress, run_file};
