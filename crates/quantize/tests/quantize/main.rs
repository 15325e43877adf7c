//! Quantization against files that the formats' own quantizers wrote, and against what it promises of itself.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "helpers of tests stand outside #[test] functions"
)]

#[path = "../convert/helpers.rs"]
#[allow(dead_code, reason = "shared with the tests of conversion")]
mod helpers;

#[path = "../../../kernels/tests/npz/mod.rs"]
mod npz;

/// Where `npz` looks for shared data.
mod data {
    pub(crate) fn path(name: &str) -> Option<std::path::PathBuf> {
        crate::helpers::shared(name)
    }
}

mod bitnet;
mod calibrated;
mod golden;
mod refused;
mod resumed;
