//! The shared test data: where it is.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests stand outside #[test] functions"
)]

use std::path::PathBuf;

/// Path of a shared data file, from `EDGELLM_TEST_DATA` or `shared/data` beside the checkout; says why a test
/// skips when it is not there.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("EDGELLM_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    let path = root.join(name);
    if !path.exists() {
        println!(
            "skipped: {} is not there (EDGELLM_TEST_DATA says where the shared data is)",
            path.display()
        );
        return None;
    }
    Some(path)
}
