//! Where models and golden outputs are, and the command that reads them.
#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, reason = "helpers of tests; no test uses all")]

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use zip::ZipArchive;

/// A file or folder of `testdata/`.
pub(crate) fn own(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name);
    path.canonicalize().unwrap().to_str().unwrap().to_owned()
}

/// A file or folder of the shared data; says why a test skips when it is not there.
pub(crate) fn shared(name: &str) -> Option<String> {
    let root = std::env::var_os("EDGELLM_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path.to_str().unwrap().to_owned());
    }
    println!("skipped: {} is not there (EDGELLM_TEST_DATA says where the shared data is)", path.display());
    None
}

/// The program with these arguments and nothing of the user's environment. Tests run side by side, so each runs
/// on one thread unless it says otherwise.
pub(crate) fn edgellm(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgellm"));
    command.args(args).env_clear().env("HF_HUB_OFFLINE", "1").env("HF_HOME", "no-such-folder");
    command
}

/// Standard output of a command that succeeds.
pub(crate) fn stdout(args: &[&str]) -> String {
    let output = edgellm(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same as JSON.
pub(crate) fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&stdout(args)).unwrap()
}

/// Values of an array of 4-byte elements in an `.npz` file, as their bytes.
fn npz(path: &str, name: &str) -> Vec<[u8; 4]> {
    let mut archive = ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut npy = Vec::new();
    archive.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut npy).unwrap();
    npy_values(&npy)
}

/// Values of a version 1 `.npy` file with 4-byte elements, as their bytes.
pub(crate) fn npy_values(npy: &[u8]) -> Vec<[u8; 4]> {
    assert_eq!(&npy[..8], b"\x93NUMPY\x01\x00");
    let data = &npy[10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]))..];
    data.as_chunks().0.to_vec()
}

/// An i32 array as ids.
pub(crate) fn golden_ids(path: &str, name: &str) -> Vec<u32> {
    npz(path, name).into_iter().map(u32::from_le_bytes).collect()
}

/// An f32 array.
pub(crate) fn golden_f32(path: &str, name: &str) -> Vec<f32> {
    npz(path, name).into_iter().map(f32::from_le_bytes).collect()
}

/// `1,2,3`.
pub(crate) fn comma(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}
