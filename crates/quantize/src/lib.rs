//! Models from file to file, offline.
//!
//! [`convert`](mod@convert) moves a model from one container into another and changes no value; [`analysis`] says what
//! quantization has changed.

pub mod analysis;
pub mod convert;
