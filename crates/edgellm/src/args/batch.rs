//! Options of `edgellm batch`.

use std::path::PathBuf;

use clap::Args;

use super::serve::ModelsArgs;

/// Answer many requests from file to file.
///
/// IN has a request a line as OpenAI's batches have them: custom_id, method POST, url, body. OUT gets a result a line in the
/// same order. When it is stopped, results so far lie in OUT.part, and the same command goes on there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm batch requests.jsonl results.jsonl --model smollm2-135m-instruct
  edgellm batch requests.jsonl results.jsonl --model chat=model.gguf --parallel 32")]
pub(crate) struct BatchArgs {
    /// Requests in JSON lines
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,
    /// File for the results; it appears when it is whole
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) models: ModelsArgs,
}
