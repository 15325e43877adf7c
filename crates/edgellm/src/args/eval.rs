//! Options of `edgellm eval`.
#![allow(rustdoc::broken_intra_doc_links, reason = "comments here are help texts: [/file] is no link")]

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ModelArgs;

/// Measure how good a model is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm eval perplexity model.gguf --file wikitext2-test.txt --context 512
  edgellm eval logits model.gguf --ids 1,2,3 --output logits.npy
  edgellm eval kl model-q4.gguf --reference model-f16.gguf --file text.txt
  edgellm eval choice model.gguf --file questions.jsonl")]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) measure: Measure,
}

/// The measures.
#[derive(Debug, Subcommand)]
pub(crate) enum Measure {
    Perplexity(PerplexityArgs),
    Logits(LogitsArgs),
    Kl(KlArgs),
    Choice(ChoiceArgs),
}

/// Perplexity of a text.
///
/// llama.cpp's method by default: the text in chunks of the context, BOS at the start of each, the second half scored.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm eval perplexity model.gguf --file wikitext2-test.txt
  edgellm eval perplexity stories.bin -z tok512.bin --file stories.txt --stride full --json")]
pub(crate) struct PerplexityArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) text: EvalText,
    /// half: the second half of each chunk; full: every token of each document (documents end at <|endoftext|>)
    #[arg(long, value_enum, default_value_t = StrideArg::Half)]
    pub(crate) stride: StrideArg,
    /// Print one JSON object: perplexity, nll, tokens, bytes, bits_per_byte
    #[arg(long)]
    pub(crate) json: bool,
}

/// The text that a measure is taken on.
#[derive(Debug, Args)]
pub(crate) struct EvalText {
    /// Text in UTF-8
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Tokens of a chunk; 512 by default, at most what the model was made for
    #[arg(long, value_name = "N")]
    pub(crate) context: Option<usize>,
}

/// What is scored.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StrideArg {
    Half,
    Full,
}

/// Logits of given tokens as a NumPy file (f32, tokens x vocabulary).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm eval logits model.gguf --ids 1,2,3 --output logits.npy
  edgellm eval logits model.gguf --ids 1,2,3 --output logits.npy --activations f32 --kv-cache f32")]
pub(crate) struct LogitsArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The tokens
    #[arg(long, value_name = "ID,...", value_delimiter = ',', required = true)]
    pub(crate) ids: Vec<u32>,
    /// The NumPy file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// Kullback-Leibler divergence of a model from a reference on a text.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm eval kl model-q4.gguf --reference model-f16.gguf --file text.txt
  edgellm eval kl model.tmac2.bin -z tok512.bin --reference model.bin --file text.txt --json")]
pub(crate) struct KlArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The model that is taken for the truth
    #[arg(long, value_name = "MODEL")]
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) text: EvalText,
    /// Print one JSON object: mean_kl, p99_kl, max_kl, top1_agreement, tokens, perplexity, reference_perplexity
    #[arg(long)]
    pub(crate) json: bool,
}

/// Multiple-choice questions, answered by likelihood.
///
/// The file has one JSON object a line: {"question": "...", "choices": ["...", "..."], "answer": 0}. The answer is the
/// index of the right choice from 0, its text, or its letter. Reported are the accuracy by log likelihood and by log
/// likelihood a byte, each with its standard error.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm eval choice model.gguf --file questions.jsonl
  edgellm eval choice stories.bin -z tok512.bin --file questions.jsonl --limit 100 --json")]
pub(crate) struct ChoiceArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Questions, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only this many questions, from the first
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Print one JSON object: accuracy, accuracy_stderr, accuracy_per_byte, accuracy_per_byte_stderr, chance, questions
    #[arg(long)]
    pub(crate) json: bool,
}
