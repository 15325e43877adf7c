//! Training on the CPU, offline: text in, models out.
//!
//! [`data`] makes token shards of texts, [`model`] has the forward and backward passes, [`optimizer`] what makes a step
//! of derivatives, [`trainer`] the loop around them; [`peft`] reads and writes adapters.

pub mod data;
mod error;
pub mod model;
pub mod optimizer;
pub mod peft;
mod tensors;
pub mod trainer;

pub use error::TrainError;
