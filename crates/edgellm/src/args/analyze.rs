//! Options of `edgellm analyze`.
#![allow(rustdoc::broken_intra_doc_links, reason = "comments here are help texts: [/file] is no link")]

use std::path::PathBuf;

use clap::Args;

use super::RunArgs;

/// Show what quantization has changed in a model.
///
/// Every tensor before and after; with a text also the hidden states layer by layer, perplexity, and the divergence of the
/// next token's distribution. The models may be in different containers: tensors are matched by what they are for.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm analyze model-f16.gguf model.tmac2.bin --text text.txt --html report.html
  edgellm analyze model.gguf q8.gguf q4.gguf q2.gguf --text text.txt --chunks 8 --html curve.html
  edgellm analyze stories260K.bin stories260K.q4.bin -z tok512.bin --json | jq '.quantized[0].sqnr_db'
  edgellm analyze --curve results.json --html curve.html")]
pub(crate) struct AnalyzeArgs {
    /// The original: a file, a folder, a pulled name, or hf:owner/repo[/file]
    #[arg(required_unless_present = "curve", requires = "quantized")]
    pub(crate) original: Option<String>,
    /// What was made of it, one or more
    pub(crate) quantized: Vec<String>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Text in UTF-8 that the models are run on
    #[arg(long, value_name = "FILE", requires = "original")]
    pub(crate) text: Option<PathBuf>,
    /// Tokens of a chunk; 512 by default, at most what the models were made for
    #[arg(long, value_name = "N", requires = "text")]
    pub(crate) context: Option<usize>,
    /// Chunks of the text at most
    #[arg(long, value_name = "N", requires = "text")]
    pub(crate) chunks: Option<usize>,
    /// Points of other runs for the curve: a JSON list of {"bits": 2.0, "perplexity": 25.5, "method": "gptq"}
    #[arg(long, value_name = "FILE")]
    pub(crate) curve: Option<PathBuf>,
    /// Write a page with tables and plots; it appears when it is whole
    #[arg(long, value_name = "FILE", required_unless_present = "original")]
    pub(crate) html: Option<PathBuf>,
    /// Print one JSON object: original, perplexity, quantized
    #[arg(long)]
    pub(crate) json: bool,
}
