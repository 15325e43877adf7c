//! Everything that the user can type.
#![allow(rustdoc::broken_intra_doc_links, reason = "comments here are help texts: [/file] is no link")]

mod access;
mod analyze;
mod batch;
mod benchmark;
mod eval;
mod finetune;
mod model;
mod quantize;
mod serve;
mod train;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use access::{
    AccessArgs, Algorithm, CreateKeyArgs, DatabaseArgs, KeysAction, KeysArgs, OnOutage, RoleArg,
};
pub(crate) use analyze::AnalyzeArgs;
pub(crate) use batch::BatchArgs;
pub(crate) use benchmark::{BenchmarkArgs, DoctorArgs, ShapeArg, TypeArg};
pub(crate) use eval::{
    ChoiceArgs, EvalArgs, EvalText, KlArgs, LogitsArgs, Measure, PerplexityArgs, StrideArg,
};
pub(crate) use finetune::{BaseType, FinetuneArgs, FinetuneMethod, FloatArg, MergeArgs, PrecisionArg};
pub(crate) use model::{Activations, I2s, Kernel, KvCache, ModelArgs, RunArgs, SamplingArgs};
pub(crate) use quantize::{CalibrateArgs, QuantizeArgs};
pub(crate) use serve::{ConfigAction, ConfigArgs, DefaultsArgs, LogLevel, ModelsArgs, ServeArgs};
pub(crate) use train::{
    DataArgs, DataCommand, DataPrepareArgs, NearArg, TokenizerArgs, TokenizerCommand, TokenizerTrainArgs,
    TrainArgs,
};

/// Language models where there is no GPU.
#[derive(Debug, Parser)]
#[command(name = "edgellm", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Generate(GenerateArgs),
    Chat(ChatArgs),
    Inspect(InspectArgs),
    Tokenize(TokenizeArgs),
    Eval(EvalArgs),
    Analyze(AnalyzeArgs),
    Benchmark(BenchmarkArgs),
    Doctor(DoctorArgs),
    Convert(ConvertArgs),
    Quantize(QuantizeArgs),
    Calibrate(CalibrateArgs),
    Tokenizer(TokenizerArgs),
    Data(DataArgs),
    Train(TrainArgs),
    Finetune(Box<FinetuneArgs>),
    Merge(MergeArgs),
    Pull(PullArgs),
    Serve(Box<ServeArgs>),
    Keys(KeysArgs),
    Config(ConfigArgs),
    Batch(BatchArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Continue a text.
///
/// Prompt and continuation stream to standard output, timings go to standard error.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm generate --prompt 'Once upon a time'
  edgellm generate model.gguf --prompt 'Once upon a time' -n 100
  edgellm generate stories260K.bin -z tok512.bin -t 0 -n 256
  edgellm generate hf:owner/repo --prompt 'def fib(n):' -t 0.2 -p 0.9 -k 50 --seed 7 --stop END
  edgellm generate model.gguf --ids 1,2,3 -n 8 --json
  edgellm generate model.gguf --prompt - < prompt.txt")]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The text to continue; - reads it from standard input. Without it the model begins
    #[arg(long, value_name = "TEXT", conflicts_with = "ids", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// The prompt as token ids
    #[arg(long, value_name = "ID,...", value_delimiter = ',')]
    pub(crate) ids: Option<Vec<u32>>,
    /// Tokens to generate at most
    #[arg(short = 'n', long, default_value_t = 256, value_name = "N")]
    pub(crate) max_tokens: usize,
    /// Go on after the model's end token
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Guess up to N tokens from the text so far and check them in one pass: the same text, sooner where it repeats itself
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=64))]
    pub(crate) draft: u8,
    /// Print one JSON object instead: prompt_ids, ids, text, finish_reason, timings
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// Talk with a model.
///
/// The model's own chat template writes the conversation. Ctrl-C stops an answer, Ctrl-D leaves; /help tells the rest.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm chat smollm2-135m-instruct
  edgellm chat model.gguf --system 'Answer in one sentence.' -t 0
  edgellm chat model.gguf --prompt 'Why is the sky blue?'
  edgellm chat model.gguf < questions.txt")]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Ask this one question and leave
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// The system's message before the first question
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    /// File with a chat template (Jinja) instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Tokens of the whole conversation that are kept; at most what the model was made for
    #[arg(long, value_name = "N")]
    pub(crate) context: Option<usize>,
    /// Tokens of an answer at most
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// Show what a model file is.
///
/// Format, architecture, every tensor with shape, type and bytes, and the memory that it needs at a context length.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm inspect model.gguf
  edgellm inspect model.gguf --context 8192 --kv-cache int8
  edgellm inspect smollm2-135m-instruct --json | jq .memory.total")]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Context length of the memory figure; the model's own, at most 4096, by default
    #[arg(long, value_name = "N")]
    pub(crate) context: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show how a text is split into tokens.
#[derive(Debug, Args)]
// The text stands behind the model, so that this one cannot be left out.
#[command(mut_arg("model", |model| {
    let help = "A file, a folder, a pulled name, or hf:owner/repo[/file]";
    model.default_value(None::<&'static str>).required(true).help(help).long_help(None::<&'static str>)
}))]
#[command(after_help = "\
Examples:
  edgellm tokenize model.gguf 'Hello, world'
  edgellm tokenize stories260K.bin -z tok512.bin 'Once upon a time' --json
  edgellm tokenize model.gguf - < text.txt")]
pub(crate) struct TokenizeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The text; - reads it from standard input
    #[arg(index = 2, allow_hyphen_values = true)]
    pub(crate) text: String,
    /// Add no BOS or EOS
    #[arg(long)]
    pub(crate) no_special: bool,
    /// Print one JSON object: ids, tokens
    #[arg(long)]
    pub(crate) json: bool,
}

/// Write a model in another container without changing a value.
///
/// A matrix keeps its type where the container has it, or takes one that holds exactly the same numbers. What the
/// container cannot hold is refused by name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm convert stories260K.bin stories260K.gguf -z tok512.bin
  edgellm convert model.tmac2.bin model.gguf --ternary tq1_0
  edgellm convert llama-folder/ model.bin --to llama2c-v1")]
pub(crate) struct ConvertArgs {
    /// A file, a folder, a pulled name, or hf:owner/repo[/file]
    #[arg(value_name = "IN")]
    pub(crate) input: String,
    /// The file to write; it appears when it is whole
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// gguf, tmac2, llama2c or llama2c-v1; told by the name of OUT when it ends in .gguf, .tmac2.bin or .bin (llama2c)
    #[arg(long, value_name = "CONTAINER")]
    pub(crate) to: Option<String>,
    /// Tokenizer file instead of the model's own: tokenizer.bin, tokenizer.json or a GGUF file
    #[arg(short = 'z', long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// File with a chat template (Jinja) instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Type of ternary matrices in GGUF
    #[arg(long, value_enum, default_value_t = Ternary::Tq2_0, value_name = "TYPE")]
    pub(crate) ternary: Ternary,
    /// How I2_S tensors of a GGUF file are arranged, which the file does not say
    #[arg(long, value_enum, value_name = "LAYOUT")]
    pub(crate) i2s: Option<I2s>,
    /// Print one JSON object: path, container, notes, tensors
    #[arg(long)]
    pub(crate) json: bool,
}

/// GGUF's ternary types.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Ternary {
    /// 54 bytes for 256 weights
    #[value(name = "tq1_0")]
    Tq1_0,
    /// 66 bytes for 256 weights, faster to read
    #[value(name = "tq2_0")]
    Tq2_0,
}

/// Fetch a model from the hub into the cache and print its path.
///
/// A cut download resumes, and the hub's checksum of every file is compared.
/// Environment: HF_ENDPOINT (a mirror), HF_TOKEN, HF_HUB_CACHE or HF_HOME (the cache), HF_HUB_OFFLINE.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm pull --list
  edgellm pull smollm2-135m-instruct
  edgellm pull hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q4_0.gguf
  HF_ENDPOINT=https://mirror.example edgellm pull qwen2.5-0.5b
  HF_TOKEN=hf_... edgellm pull llama-3.2-1b")]
pub(crate) struct PullArgs {
    /// A name of the list, or hf:owner/repo[@revision][/file]
    #[arg(value_name = "NAME|hf:owner/repo[/file]", required_unless_present = "list")]
    pub(crate) model: Option<String>,
    /// Show the names, and which of them are in the cache
    #[arg(long, conflicts_with_all = ["model", "verify"])]
    pub(crate) list: bool,
    /// Hash files again that are in the cache, and fetch those anew that have changed
    #[arg(long)]
    pub(crate) verify: bool,
    /// Print one JSON object: location, path, commit, files
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print a script that completes commands and options in a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm completions bash > /etc/bash_completion.d/edgellm
  edgellm completions zsh > ~/.zfunc/_edgellm")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

/// Print the manual page.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm man > edgellm.1
  edgellm man pull | man -l -")]
pub(crate) struct ManArgs {
    /// The command that the page is about; none for the program itself
    pub(crate) command: Vec<String>,
}
