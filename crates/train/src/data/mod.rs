//! From text to batches: documents, vocabulary, token shards.

mod batches;
mod examples;
mod near;
mod parquet;
mod prepare;
mod shards;
mod text;
mod vocabulary;

pub use batches::{Sampler, Source, validation};
pub use examples::{Encoding, Example, ExamplesReport, examples};
pub use prepare::{NearDuplicate, NearDuplicates, PrepareOptions, PrepareReport, ShardReport, prepare};
pub use shards::shard_rows;
pub use text::{DOCUMENT_END, each_document};
pub use vocabulary::learn;

pub(crate) use prepare::{fingerprint, write_text};
pub(crate) use text::read_text;
