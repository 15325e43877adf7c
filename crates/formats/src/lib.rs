//! Bytes of model and tokenizer files <-> checked tensor directories and metadata.
//!
//! Every parser takes the bytes of a whole file (usually a memory map), treats each field as hostile and
//! returns a directory of [`TensorInfo`]: name, shape, layout and byte range, all inside the file. Nothing is
//! copied: the engine slices the same bytes. Writers go the other way, from a directory and a callback that
//! gives each tensor's bytes, to a temporary file that is renamed when it is whole ([`writer`]).
//!
//! This crate does not know what the numbers mean to a kernel, does no network and has no unsafe.

pub mod bitllama;
pub mod checkpoint;
pub mod detect;
pub mod error;
pub mod gguf;
pub mod hf;
pub mod int4;
pub mod limits;
pub mod llama2c;
pub mod parquet;
pub mod peft;
pub mod reader;
pub mod safetensors_file;
pub mod tensor;
pub mod ternary;
pub mod tmac_v1;
pub mod tmac_v2;
pub mod token_shard;
pub mod tokenizer_file;
pub mod trailer;
pub mod writer;

mod bit_order;
mod header;
mod layout;

pub use error::FormatError;
pub use tensor::{Layout, TensorInfo, TensorType};
