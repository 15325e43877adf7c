//! Upper bounds on what a file may ask for. They are far above any real model; a file beyond them is hostile
//! or broken, and is refused before anything is allocated for it.

/// Largest `dim`, `hidden_dim` or head dimension.
pub const MAX_DIM: u64 = 1 << 20;
/// Most layers.
pub const MAX_LAYERS: u64 = 4096;
/// Most attention heads.
pub const MAX_HEADS: u64 = 1 << 16;
/// Largest vocabulary.
pub const MAX_VOCAB: u64 = 1 << 24;
/// Longest context.
pub const MAX_SEQ_LEN: u64 = 1 << 28;
/// Most tensors in one file.
pub const MAX_TENSORS: u64 = 1 << 20;
/// Most metadata entries in a GGUF file.
pub const MAX_METADATA: u64 = 1 << 20;
/// Most dimensions of a tensor.
pub const MAX_DIMS: usize = 8;
/// Longest name of a tensor or metadata key, in bytes.
pub const MAX_NAME: u64 = 1 << 16;
/// Deepest nesting of arrays in GGUF metadata.
pub const MAX_ARRAY_DEPTH: usize = 4;
/// Longest JSON header of a safetensors file, in bytes (the `safetensors` crate's own limit).
pub const MAX_SAFETENSORS_HEADER: u64 = 100_000_000;
/// Longest JSON text of a metadata trailer, in bytes.
pub const MAX_TRAILER: u64 = 64 << 20;
/// Longest `config.json`, `generation_config.json` or safetensors index, in bytes.
pub const MAX_JSON: u64 = 16 << 20;
