//! Options of `edgellm benchmark` and `edgellm doctor`.
#![allow(rustdoc::broken_intra_doc_links, reason = "comments here are help texts: [/file] is no link")]

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::RunArgs;

/// One GiB: thirty times the largest cache of most machines.
const BANDWIDTH_MB: usize = 1074;

/// Measure how fast a model runs.
///
/// Every figure is the median of the runs. The fraction of the memory bandwidth says how near decoding is to its
/// limit: each token has to read all weights.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm benchmark model.gguf
  edgellm benchmark model.gguf --threads 2 --prompt-lengths 128,512,2048 --decode-lengths 128 --json > before.json
  edgellm benchmark model.gguf --compare before.json --html report.html
  edgellm benchmark --synthetic bitnet-2b --type ternary
  edgellm benchmark model.bin -z tokenizer.bin --all --text text.txt")]
pub(crate) struct BenchmarkArgs {
    /// A file, a folder, a pulled name, or hf:owner/repo[/file]
    #[arg(required_unless_present = "synthetic", conflicts_with = "synthetic")]
    pub(crate) model: Option<String>,
    /// Random weights of this shape, made in memory, instead of a model
    #[arg(long, value_enum, value_name = "SHAPE")]
    pub(crate) synthetic: Option<ShapeArg>,
    /// Type of the synthetic layers
    #[arg(long = "type", value_enum, value_name = "TYPE", default_value_t = TypeArg::Ternary, conflicts_with = "model")]
    pub(crate) layers: TypeArg,
    /// Type of the synthetic embedding, which is also the classifier; that of the layers or, below 8 bits, q6_k
    #[arg(long, value_enum, value_name = "TYPE", conflicts_with = "model")]
    pub(crate) head: Option<TypeArg>,
    /// Round the layers of MODEL to this type in memory first
    #[arg(long = "as", value_enum, value_name = "TYPE", conflicts_with = "synthetic")]
    pub(crate) stored_as: Option<TypeArg>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Lengths of prompts; 128,512 by default
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = positive)]
    pub(crate) prompt_lengths: Option<Vec<usize>>,
    /// Numbers of tokens that are generated; 128 by default
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = positive)]
    pub(crate) decode_lengths: Option<Vec<usize>>,
    /// Numbers of sequences that are generated together, each of them the longest decode; 1 by default
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = positive)]
    pub(crate) batch_sizes: Option<Vec<usize>>,
    /// Tokens that stand in the context before those that are generated
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) depth: usize,
    /// How often everything is measured; the figures are medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    pub(crate) repeat: usize,
    /// Megabytes that are read to measure the memory's bandwidth; many times the caches
    #[arg(long, value_name = "MB", default_value_t = BANDWIDTH_MB, value_parser = positive)]
    pub(crate) bandwidth_mb: usize,
    /// Measure every type side by side, each in a process of its own
    #[arg(long, conflicts_with_all = ["layers", "head", "stored_as", "compare", "html", "profile", "kernel"])]
    pub(crate) all: bool,
    /// Also where the time goes: each operation and each layer, in runs of their own
    #[arg(long)]
    pub(crate) profile: bool,
    /// Add size_mb to the object: for the processes of --all
    #[arg(long, hide = true)]
    pub(crate) with_size: bool,
    /// Also the perplexity of this text, in UTF-8
    #[arg(long, value_name = "FILE", conflicts_with = "synthetic")]
    pub(crate) text: Option<PathBuf>,
    /// Print one JSON object (with --all, a list of them)
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write a page with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print the ratios to an earlier --json
    #[arg(long, value_name = "OTHER.json", conflicts_with = "json")]
    pub(crate) compare: Option<PathBuf>,
}

/// A number of at least 1.
fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(err) => Err(format!("{err}")),
    }
}

/// Shapes of synthetic models.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ShapeArg {
    /// BitNet b1.58 2B-4T
    #[value(name = "bitnet-2b")]
    Bitnet2b,
    /// Llama 3.2 1B
    #[value(name = "llama-1b")]
    Llama1b,
    /// llama2.c's stories110M
    #[value(name = "stories110m")]
    Stories110m,
    /// SmolLM2-135M
    #[value(name = "smollm-135m")]
    Smollm135m,
}

/// Types of matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TypeArg {
    F32,
    F16,
    /// Q8_0
    Int8,
    /// Q6_K
    #[value(name = "q6_k")]
    Q6K,
    /// Q4_0
    Int4,
    /// T-MAC v2's 2-bit codes with a scale a row
    Ternary,
    /// T-MAC v1's 2-bit codes without a scale
    Tmac1,
}

/// Show what the machine offers and which kernels are chosen for it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm doctor
  edgellm doctor --threads 1 --json
  EDGELLM_ISA=avx2 edgellm doctor")]
pub(crate) struct DoctorArgs {
    /// Threads that read memory; one a core by default
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) threads: Option<usize>,
    /// Megabytes that are read to measure the memory's bandwidth; many times the caches
    #[arg(long, value_name = "MB", default_value_t = BANDWIDTH_MB, value_parser = positive)]
    pub(crate) bandwidth_mb: usize,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
