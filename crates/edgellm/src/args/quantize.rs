//! The options of `edgellm quantize`.
#![allow(rustdoc::broken_intra_doc_links, reason = "comments here are help texts: [/file] is no link")]

use std::path::PathBuf;

use clap::Args;

use super::I2s;

/// Round a model's matrices to fewer bits.
///
/// A run that was killed goes on where it stopped when it is started again. The output appears when it is whole.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm quantize --input stories260K.bin --output stories260K.tmac2.bin --format tmac2 -z tok512.bin
  edgellm quantize --input model.gguf --output model-q4.gguf --format int4
  edgellm quantize --input bitnet-folder/ --output model.tmac2.bin --format bitnet
  edgellm quantize --input model.gguf --output model-q8.gguf --format int8 --head f16 --json")]
pub(crate) struct QuantizeArgs {
    /// A file, a folder, a pulled name, or hf:owner/repo[/file]
    #[arg(long, short, value_name = "MODEL")]
    pub(crate) input: String,
    /// The file to write; .gguf makes it a GGUF file where the format leaves the choice
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// tmac, tmac2, bitnet, ternary, int4, int8, f16, or GGUF's tq1_0, tq2_0, q4_0, q8_0
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: String,
    /// How weights are rounded: round (each by itself, as the format's own quantizer does) or calibrated (together, so
    /// that the layers' outputs on a text change least)
    #[arg(long, value_name = "METHOD", default_value = "round")]
    pub(crate) method: String,
    /// The text to calibrate on, UTF-8; a sample of public-domain prose by default
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration_data: Option<PathBuf>,
    /// Statistics that `edgellm calibrate` has written, instead of a text: sooner done, and not as good
    #[arg(long, value_name = "FILE", conflicts_with = "calibration_data")]
    pub(crate) calibration: Option<PathBuf>,
    /// Samples of the text, spread evenly over it; 128 by default, or as many as the text has
    #[arg(long, value_name = "N")]
    pub(crate) num_samples: Option<usize>,
    /// Tokens of a sample
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) sample_tokens: usize,
    /// Mean bits of a weight in the linear layers, from 1.25 on, with --format ternary: binary, ternary, two planes, int4 and
    /// int8 by how much each matrix matters
    #[arg(long, value_name = "BITS", conflicts_with = "planes")]
    pub(crate) bits: Option<f64>,
    /// Ternary planes that are added up, with --format ternary: 1 (1.875 bits) or 2 (3.5 bits)
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) planes: usize,
    /// Type of the classifier: keep, f32, f16, bf16, int8, int4, q4_1 or ternary; a GGUF file keeps it by default
    #[arg(long, value_name = "TYPE")]
    pub(crate) head: Option<String>,
    /// Type of the embedding, likewise
    #[arg(long, value_name = "TYPE")]
    pub(crate) embedding: Option<String>,
    /// Tokenizer file instead of the model's own: tokenizer.bin, tokenizer.json or a GGUF file
    #[arg(short = 'z', long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// File with a chat template (Jinja) instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// How I2_S tensors of a GGUF file are arranged, which the file does not say
    #[arg(long, value_enum, value_name = "LAYOUT")]
    pub(crate) i2s: Option<I2s>,
    /// Threads; one a core by default
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Keep in F16 what the format cannot hold, and write the model although something of it is lost
    #[arg(long)]
    pub(crate) force: bool,
    /// Print one JSON object: path, container, format, method, bits, seconds, peak_memory, resumed, notes, tensors
    #[arg(long)]
    pub(crate) json: bool,
}

/// Measure what a model's linear layers see of a text, for `edgellm quantize`.
///
/// Mean, largest magnitude and second moments of every input, and how much each matrix matters; a safetensors file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm calibrate --input model.gguf --output statistics.safetensors --calibration-data text.txt
  edgellm quantize --input model.gguf --output small.gguf --format ternary --method calibrated --calibration statistics.safetensors --bits 2.5")]
pub(crate) struct CalibrateArgs {
    /// A file, a folder, a pulled name, or hf:owner/repo[/file]
    #[arg(long, short, value_name = "MODEL")]
    pub(crate) input: String,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// The text, UTF-8; a sample of public-domain prose by default
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration_data: Option<PathBuf>,
    /// Samples of the text, spread evenly over it; 128 by default, or as many as the text has
    #[arg(long, value_name = "N")]
    pub(crate) num_samples: Option<usize>,
    /// Tokens of a sample
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) sample_tokens: usize,
    /// Tokenizer file instead of the model's own: tokenizer.bin, tokenizer.json or a GGUF file
    #[arg(short = 'z', long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Threads; one a core by default
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Print one JSON object: path, samples, tokens
    #[arg(long)]
    pub(crate) json: bool,
}
