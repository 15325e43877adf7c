//! Training on the CPU, offline: text in, models out.
//!
//! [`data`] makes token shards of texts and examples of rows, [`model`] has the forward and backward passes, [`optimizer`]
//! what makes a step of derivatives, [`trainer`] the loop around them for a model from scratch, [`finetune`](mod@finetune)
//! that for a model of a file ([`base`]); [`peft`] reads and writes adapters.

pub mod base;
mod checkpoint;
pub mod data;
mod error;
pub mod finetune;
mod log;
pub mod model;
pub mod optimizer;
pub mod peft;
mod tensors;
pub mod trainer;

pub use error::TrainError;
