//! The options of `edgellm finetune`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Teach a model from rows of questions and answers.
///
/// Rows are JSON lines: {"messages": [...]}, {"instruction", "input", "output"}, {"prompt", "completion"} or {"text"}. The
/// model's chat template lays them out, and only answers count. The folder gets checkpoints, log.jsonl, and at the end
/// the adapter in PEFT's layout, or with --method full or qat model.gguf. Ctrl-C writes a checkpoint and stops.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm finetune --base-model smollm2-135m-instruct --data rows.jsonl --output runs/own
  edgellm finetune --base-model model.gguf --data rows.jsonl --val-data held-out.jsonl --output runs/own \\
    --method qlora --lora-r 16 --lora-alpha 32 --target-modules q_proj,v_proj --epochs 5
  edgellm finetune --base-model folder --data rows.jsonl --output runs/own --method full --learning-rate 2e-5
  edgellm finetune --base-model folder --data data/text --output runs/ternary --method qat --validate-every 200")]
pub(crate) struct FinetuneArgs {
    /// The model to begin with: a file, a folder, a pulled name, or hf:owner/repo
    #[arg(long, value_name = "MODEL")]
    pub(crate) base_model: String,
    /// Rows to learn from, JSON lines, also compressed (.xz, .zst, .gz), or a folder of `edgellm data prepare`
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Rows to validate on: before, after each epoch, and at the end; a folder given to --data may have them, too
    #[arg(long, value_name = "FILE")]
    pub(crate) val_data: Option<PathBuf>,
    /// The folder to write to
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// What is trained
    #[arg(long, value_enum, default_value_t = FinetuneMethod::Lora)]
    pub(crate) method: FinetuneMethod,
    /// How the frozen linear layers are kept; f32 for lora, nf4 for qlora by default
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) base_type: Option<BaseType>,
    /// Rank of the adapters
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) lora_r: usize,
    /// What an adapter adds is multiplied with this over the rank
    #[arg(long, value_name = "X", default_value_t = 16.0)]
    pub(crate) lora_alpha: f32,
    /// The part of its inputs that an adapter is not shown in training
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    pub(crate) lora_dropout: f32,
    /// Linear layers that get adapters: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; all by default
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) target_modules: Vec<String>,
    /// How often each row is learned from
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) epochs: u64,
    /// Rows of a step
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) batch_size: usize,
    /// With qat: a model of the same shape to begin as, like a ternary one that quantize made of the base model, which
    /// remains the one to be matched
    #[arg(long, value_name = "MODEL")]
    pub(crate) start: Option<String>,
    /// With qat: ternary planes that are added up to a layer: 1 (1.875 bits a weight) or 2 (3.5 bits)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) planes: u8,
    /// With qat: the part of the steps over which the rounding comes in; 0.3 by default, with --start 0
    #[arg(long, value_name = "PART")]
    pub(crate) gradual: Option<f64>,
    /// With qat: how much the hidden states' distance from the float model's counts beside the predictions' divergence
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) hidden_weight: f32,
    /// With qat: train embedding and classifier, too
    #[arg(long)]
    pub(crate) train_embedding: bool,
    /// With qat: validations without a smaller divergence after which it ends
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) patience: u64,
    /// Steps from one validation to the next; 0: one after each epoch
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) validate_every: u64,
    /// Peak of the learning rate; 2e-4 for adapters, 2e-5 for full, 5e-4 for qat by default
    #[arg(long, value_name = "X")]
    pub(crate) learning_rate: Option<f32>,
    /// With full and qat: linear layers are trained by Muon at this rate, all else by AdamW
    #[arg(long, value_name = "X")]
    pub(crate) muon_learning_rate: Option<f32>,
    /// Weight decay of matrices
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub(crate) weight_decay: f32,
    /// The part of the steps over which the learning rate rises; then it falls to 0 in half a cosine
    #[arg(long, value_name = "PART", default_value_t = 0.03)]
    pub(crate) warmup: f64,
    /// Tokens of a row at most, and at most the model's context: what comes behind is cut off, and a row of whose answer
    /// nothing is left is left out
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) max_length: usize,
    /// Tokens whose derivatives are computed at once: fewer take less memory
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) micro_tokens: usize,
    /// How the matrix products of a step are made: bf16 takes less time where the processor has instructions for it
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32, value_name = "TYPE")]
    pub(crate) precision: PrecisionArg,
    /// Steps from one checkpoint to the next; 0: one after each epoch
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) checkpoint_every: u64,
    /// Checkpoints that are kept
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = keep)]
    pub(crate) keep: usize,
    /// Decides the adapters' first numbers and the order of the rows
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Threads; one a core by default
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Go on from the last checkpoint in the folder; on as many threads as before the losses are those of an unbroken run
    #[arg(long)]
    pub(crate) resume: bool,
    /// Tokenizer file instead of the model's own: tokenizer.bin, tokenizer.json or a GGUF file
    #[arg(short = 'z', long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// File with a chat template (Jinja) instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// A progress bar on the terminal instead of a picture of the course
    #[arg(long)]
    pub(crate) plain: bool,
    /// Print each event as a line of JSON, as log.jsonl has them
    #[arg(long)]
    pub(crate) json: bool,
}

/// At least one.
fn keep(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is kept".to_owned()),
        Ok(n) => Ok(n),
        Err(_) => Err(format!("'{text}' is no number")),
    }
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FinetuneMethod {
    /// Low-rank adapters beside the frozen linear layers
    Lora,
    /// The same with the frozen layers in few bits, and layers computed anew in the backward pass: less memory
    Qlora,
    /// All parameters
    Full,
    /// Ternary linear layers beside the frozen float model, whose predictions and hidden states they are to keep
    Qat,
}

/// How products are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// In f32
    F32,
    /// Of factors rounded to bfloat16, summed in f32
    Bf16,
}

/// How frozen linear layers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BaseType {
    /// 4 bytes a weight
    F32,
    /// As the file has them
    File,
    /// 4 bits, by quantiles of the normal distribution
    Nf4,
    /// 4 bits, evenly spaced
    Int4,
    /// Three values
    Ternary,
}

/// Write a model with a low-rank adapter added to its weights.
///
/// Tokenizer, chat template and all matrices beside which there is no adapter stay as they are. What generate, serve,
/// quantize and convert read.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  edgellm merge --base-model smollm2-135m-instruct --adapter runs/own --output own.gguf
  edgellm merge --base-model folder --adapter runs/own --output own.gguf --dtype f32")]
pub(crate) struct MergeArgs {
    /// The model: a file, a folder, a pulled name, or hf:owner/repo
    #[arg(long, value_name = "MODEL")]
    pub(crate) base_model: String,
    /// The adapter's folder, as PEFT and edgellm finetune write it
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: PathBuf,
    /// The file to write; its name tells the container: .gguf, or .bin for llama2.c (with --dtype f32)
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Type of the matrices that change
    #[arg(long, value_enum, default_value_t = FloatArg::F16, value_name = "TYPE")]
    pub(crate) dtype: FloatArg,
    /// Tokenizer file instead of the model's own: tokenizer.bin, tokenizer.json or a GGUF file
    #[arg(short = 'z', long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// File with a chat template (Jinja) instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
}

/// Types of floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FloatArg {
    F32,
    F16,
    Bf16,
}
