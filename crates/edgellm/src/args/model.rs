//! Options that commands share: which model, how it runs, how tokens are chosen.
#![allow(rustdoc::broken_intra_doc_links, reason = "comments here are help texts: [/file] is no link")]

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

/// Which model, and how it runs.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// A file, a folder, a pulled name, or hf:owner/repo[/file]; by default the small model that the program carries
    #[arg(index = 1, default_value = crate::built_in::NAME)]
    pub(crate) model: String,
    /// Folder of a low-rank adapter, as PEFT and edgellm finetune write it, to run beside the weights
    #[arg(long, value_name = "DIR")]
    pub(crate) lora: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// How a model runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Tokenizer file instead of the model's own: tokenizer.bin, tokenizer.json or a GGUF file
    #[arg(short = 'z', long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Threads; one a core by default
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// How keys and values are cached
    #[arg(long, value_enum, default_value_t = KvCache::F16, value_name = "TYPE")]
    pub(crate) kv_cache: KvCache,
    /// How the inputs of quantized matrices are rounded
    #[arg(long, value_enum, default_value_t = Activations::Int8, value_name = "TYPE")]
    pub(crate) activations: Activations,
    /// Which kernels multiply the weights
    #[arg(long, value_enum, default_value_t = Kernel::Auto, value_name = "FAMILY")]
    pub(crate) kernel: Kernel,
    /// Compute every logit of a large vocabulary exactly, also those that cannot be the greatest
    #[arg(long)]
    pub(crate) exact_head: bool,
    /// Bind threads to cores, and bring all memory in beforehand and lock it; says what the system refuses
    #[arg(long)]
    pub(crate) realtime: bool,
    /// How I2_S tensors of a GGUF file are arranged, which the file does not say
    #[arg(long, value_enum, value_name = "LAYOUT")]
    pub(crate) i2s: Option<I2s>,
}

/// Types of the KV cache.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum KvCache {
    F32,
    F16,
    Int8,
}

/// Types of activations.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Activations {
    /// Exact
    F32,
    /// 8 bits and a scale for quantized rows
    Int8,
}

/// Families of kernels.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kernel {
    /// What measured fastest
    Auto,
    /// Ternary weights by tables of partial sums, without multiplication
    Lookup,
    /// Ternary weights by dot-product instructions
    Multiply,
    /// Row by row, as the file has them
    Reference,
}

/// Builds of bitnet.cpp.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum I2s {
    X86,
    Arm,
}

/// How tokens are chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Temperature; 0 always takes the most likely token
    #[arg(short = 't', long, default_value_t = 0.8, value_name = "TEMP")]
    pub(crate) temperature: f32,
    /// Only the most likely tokens that together have this probability; 1 for all
    #[arg(short = 'p', long, default_value_t = 0.95, value_name = "TOP_P")]
    pub(crate) top_p: f32,
    /// Only this many most likely tokens; 0 for all
    #[arg(short = 'k', long, default_value_t = 40, value_name = "TOP_K")]
    pub(crate) top_k: usize,
    /// Only tokens at least this likely, relative to the most likely one
    #[arg(long, default_value_t = 0.0, value_name = "MIN_P")]
    pub(crate) min_p: f32,
    /// Seed; the same seed gives the same text on any number of threads. From the clock by default
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Divides the logits of tokens seen; 1 for none
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    pub(crate) repetition_penalty: f32,
    /// Subtracted from a token's logit as often as it was seen
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: f32,
    /// Subtracted once from the logit of a token seen
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    pub(crate) presence_penalty: f32,
    /// How many of the last tokens the penalties look at
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) penalty_window: usize,
    /// Added to the logit of a token, as in 15=-100; may be repeated
    #[arg(long, value_name = "ID=BIAS", allow_hyphen_values = true)]
    pub(crate) logit_bias: Vec<LogitBias>,
    /// Text that ends the answer and is not part of it; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
}

/// `ID=BIAS`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LogitBias {
    pub(crate) id: u32,
    pub(crate) bias: f32,
}

impl FromStr for LogitBias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not ID=BIAS, as in 15=-100");
        let (id, bias) = text.split_once(['=', ':']).ok_or_else(wrong)?;
        Ok(Self { id: id.parse().map_err(|_| wrong())?, bias: bias.parse().map_err(|_| wrong())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logit_bias_is_an_id_and_a_number() {
        assert_eq!("15=-100".parse(), Ok(LogitBias { id: 15, bias: -100.0 }));
        assert_eq!("0:2.5".parse(), Ok(LogitBias { id: 0, bias: 2.5 }));
        for text in ["", "15", "x=1", "1=y", "-1=2", "4294967296=1"] {
            assert!(text.parse::<LogitBias>().is_err(), "{text}");
        }
    }
}
