//! What a model's linear layers see of a text, and rounding that minds it.

mod moments;
mod samples;
mod sequential;

pub use samples::{SAMPLE_TOKENS, Text};
pub(crate) use sequential::all;
