//! Quantization against files that the formats' own quantizers wrote, and against what it promises of itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside #[test] functions")]

#[path = "../convert/helpers.rs"]
#[allow(dead_code, reason = "shared with the tests of conversion")]
mod helpers;

mod golden;
mod refused;
mod resumed;
