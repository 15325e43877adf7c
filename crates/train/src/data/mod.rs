//! From text to batches: documents, vocabulary, token shards.

mod batches;
mod prepare;
mod text;
mod vocabulary;

pub use batches::{Sampler, Source, validation};
pub use prepare::{PrepareOptions, PrepareReport, ShardReport, prepare};
pub use text::{DOCUMENT_END, each_document};
pub use vocabulary::learn;

pub(crate) use prepare::write_text;
pub(crate) use text::read_text;
