//! GGUF, safetensors and Hugging Face's JSON: real files, round trips, exact errors, damage.

#![cfg(test)]

mod data;
mod errors;
mod gguf_files;
mod hf_files;
mod hostile;
mod raw;
mod round_trip;
