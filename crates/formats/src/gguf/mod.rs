//! GGUF, the container of llama.cpp: metadata by key, a tensor directory, aligned tensor data.
//!
//! Versions 2 and 3 are read, version 3 is written. Metadata strings and arrays borrow from the file; arrays are
//! checked once and walked without allocation. Specification: `docs/gguf.md` of ggml-org/ggml; types of tensors:
//! `ggml.h` there, and `I2_S` of microsoft/BitNet's fork.

mod read;
mod types;
mod value;
mod write;

pub use value::{Array, Value, ValueType};
pub use write::{Metadata, TensorSpec, write};

use crate::tensor::TensorInfo;

/// First four bytes of a file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Alignment of tensor data where `general.alignment` does not say otherwise.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// A parsed file: everything but the tensors' bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf<'a> {
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// Every tensor begins at a multiple of this many bytes behind `data_offset`.
    pub alignment: u64,
    /// Metadata in file order; keys are unique.
    pub metadata: Vec<Entry<'a>>,
    /// Tensors in the order of the directory; layout always [`crate::Layout::Rows`], offsets from the start of the file.
    pub tensors: Vec<TensorInfo>,
    /// First byte of the tensor data.
    pub data_offset: u64,
}

/// One metadata entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry<'a> {
    /// Key, such as `general.architecture`.
    pub key: &'a str,
    /// Value.
    pub value: Value<'a>,
    /// Where the value stands in the file.
    pub offset: u64,
}
