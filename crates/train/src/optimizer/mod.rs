//! What makes a step of derivatives.

mod adamw;
mod both;
mod clip;
mod muon;
mod schedule;

pub use adamw::{AdamW, AdamWOptions};
pub(crate) use both::{Optimizer, Rates};
pub use clip::clip;
pub use muon::{Muon, MuonMatrix};
pub use schedule::{Course, Schedule};
