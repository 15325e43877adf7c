//! Where the files that tests read are.

#![allow(clippy::print_stdout, dead_code, reason = "helpers outside #[test] functions; no test uses all")]

use std::path::PathBuf;

/// Path of a shared data file, from `EDGELLM_TEST_DATA` or `shared/data` beside the checkout; says why a test
/// skips when it is not there.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("EDGELLM_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    existing(root.join(name), "EDGELLM_TEST_DATA says where the shared data is")
}

/// Path of a downloaded model, from the folder that `EDGELLM_TEST_MODELS` names.
pub(crate) fn model(name: &str) -> Option<PathBuf> {
    let root = PathBuf::from(std::env::var_os("EDGELLM_TEST_MODELS").unwrap_or_default());
    existing(root.join(name), "EDGELLM_TEST_MODELS says where downloaded models are")
}

fn existing(path: PathBuf, hint: &str) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there ({hint})", path.display());
    None
}
