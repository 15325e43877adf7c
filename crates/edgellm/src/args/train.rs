//! The options of `edgellm tokenizer`, `data` and `train`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Learn a vocabulary from a text.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm tokenizer train --data stories.txt --vocab-size 4096 --output tokenizer.json
  edgellm tokenizer train --data a.txt.xz b.jsonl --field story --vocab-size 2048 --output tokenizer.json")]
pub(crate) struct TokenizerArgs {
    #[command(subcommand)]
    pub(crate) command: TokenizerCommand,
}

/// What is done about a tokenizer.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenizerCommand {
    Train(TokenizerTrainArgs),
}

/// Learn the merges of byte-level BPE and write a tokenizer.json.
///
/// Its token 0, <|endoftext|>, begins and ends a text.
#[derive(Debug, Args)]
pub(crate) struct TokenizerTrainArgs {
    /// Texts: plain, .jsonl or .csv, also compressed (.xz, .zst, .gz), or .parquet. Documents of plain text stand between
    /// lines <|endoftext|>
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// Tokens in all
    #[arg(long, value_name = "N")]
    pub(crate) vocab_size: usize,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Field or column of the text in .jsonl, .csv and .parquet
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) field: String,
}

/// Make token shards of texts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm data prepare --input stories.txt.xz --tokenizer tokenizer.json --valid-fraction 0.01 --output data/stories
  edgellm data prepare --input train.jsonl --valid valid.jsonl --field story --tokenizer tokenizer.json --output data/own
  edgellm data prepare --input *.parquet --tokenizer tokenizer.json --near-duplicates drop --output data/web")]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

/// What is done about data.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    Prepare(DataPrepareArgs),
}

/// Write train.tokens and valid.tokens, and the tokenizer beside them.
///
/// A document whose text came before is left out, those of --valid first.
#[derive(Debug, Args)]
pub(crate) struct DataPrepareArgs {
    /// Texts to train on: plain, .jsonl or .csv, also compressed (.xz, .zst, .gz), or .parquet. Documents of plain text
    /// stand between lines <|endoftext|>
    #[arg(long, short, value_name = "FILE", num_args = 1.., required_unless_present = "valid")]
    pub(crate) input: Vec<PathBuf>,
    /// Texts to validate on
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) valid: Vec<PathBuf>,
    /// tokenizer.json, and if there is one tokenizer_config.json beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: PathBuf,
    /// The folder to write to
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// The part of the documents to train on that is kept to validate on
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    pub(crate) valid_fraction: f64,
    /// Field or column of the text in .jsonl, .csv and .parquet
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) field: String,
    /// Chooses the documents of --valid-fraction
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// What is done about documents that have about 80 % of their groups of five words in common with one before
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = NearArg::Report)]
    pub(crate) near_duplicates: NearArg,
    /// Print one JSON object: train, valid, duplicates, near_duplicates, near_duplicate_examples, not_remembered
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is done about documents that are nearly the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NearArg {
    /// Nobody looks for them
    Ignore,
    /// They are counted, and the first few are shown
    Report,
    /// The later one is left out, too
    Drop,
}

/// Train a model from scratch.
///
/// The folder gets checkpoints, log.jsonl and, at each checkpoint, report.html with the course in plots and the model as it is
/// in model/, which generate, eval, serve and quantize read. Ctrl-C writes a checkpoint and stops.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm train --config stories.toml --data data/stories --output runs/stories
  edgellm train --config stories.toml --data data/stories data/tales --output runs/stories --resume")]
pub(crate) struct TrainArgs {
    /// The model and how it is trained, in TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Folders that edgellm data prepare wrote
    #[arg(long, value_name = "DIR", num_args = 1.., required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// The folder to write to
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Go on from the last checkpoint in the folder; on as many threads as before the losses are those of an unbroken run
    #[arg(long)]
    pub(crate) resume: bool,
    /// Threads; one a core by default
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// A progress bar on the terminal instead of a picture of the course
    #[arg(long)]
    pub(crate) plain: bool,
    /// Print each event as a line of JSON, as log.jsonl has them
    #[arg(long)]
    pub(crate) json: bool,
}
