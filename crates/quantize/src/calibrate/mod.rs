//! What a model's linear layers see of a text, and rounding that minds it.

mod moments;
mod norm;
mod samples;
pub(crate) mod sensitivity;
mod sequential;
mod statistics;

pub use samples::{SAMPLE_TOKENS, Text};
pub(crate) use sequential::{FINAL_NORM, all, norm_name};
pub use statistics::{Collected, Statistics, collect};
