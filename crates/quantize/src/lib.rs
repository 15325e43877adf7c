//! Models from file to file, offline.
//!
//! [`convert`](mod@convert) moves a model from one container into another and changes no value.
//! [`quantize`](mod@quantize) rounds its matrices to fewer bits; [`analysis`] says what that has changed.

pub mod analysis;
pub mod calibrate;
pub mod convert;
pub mod quantize;
mod solve;
