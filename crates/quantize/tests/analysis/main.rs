//! What quantization has changed, against plain arithmetic on the bytes of the files and against other programs' logits.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests stand outside #[test] functions"
)]

#[path = "../convert/helpers.rs"]
#[allow(dead_code, reason = "shared with the tests of convert")]
mod helpers;
#[path = "../../../kernels/tests/npz/mod.rs"]
mod npz;

mod data {
    //! What `npz` looks for.
    pub(crate) use crate::helpers::shared as path;
}

mod page;
mod refused;
mod stories;

use std::path::{Path, PathBuf};

use engine::{ActivationMode, KvType, LoadOptions};
use quantize::analysis::{Analysis, AnalysisError, Options, Text, analyze};

/// Exact arithmetic on one thread.
fn exact(tokenizer: Option<PathBuf>) -> LoadOptions {
    LoadOptions {
        tokenizer,
        activations: ActivationMode::F32,
        kv_type: KvType::F32,
        threads: Some(1),
        ..LoadOptions::default()
    }
}

fn compare(
    original: &Path,
    quantized: &[&Path],
    load: LoadOptions,
    text: Option<(&str, usize)>,
) -> Result<Analysis, AnalysisError> {
    let text =
        text.map(|(text, context)| Text { text: text.to_owned(), context: Some(context), chunks: Some(1) });
    let quantized: Vec<PathBuf> = quantized.iter().map(|path| path.to_path_buf()).collect();
    analyze(original, &quantized, &Options { load, text }, &mut |_, done, all| assert!(done <= all))
}
