//! A model in memory, ready to run.

use std::path::{Path, PathBuf};

use kernels::Team;
use kernels::row::RowType;
use kernels::trits::Family;

use crate::chat_template::ChatTemplate;
use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::forward::{Frequencies, MAX_BATCH};
use crate::kv_cache::{KvCache, KvType};
use crate::loader::{self, I2sLayout, Loaded};
use crate::lora::Lora;
use crate::realtime;
use crate::tokenizer::{Tokenizer, TokenizerKind};
use crate::weights::{ActivationMode, Weights};

/// How a model is loaded and run.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Tokenizer file (`tokenizer.bin`, `tokenizer.json`, or a GGUF file) instead of the model's own.
    pub tokenizer: Option<PathBuf>,
    /// Jinja source of a chat template instead of the model's own.
    pub chat_template: Option<String>,
    /// Threads; `None` for one a core.
    pub threads: Option<usize>,
    /// How keys and values are cached.
    pub kv_type: KvType,
    /// How the inputs of quantized matrices are rounded.
    pub activations: ActivationMode,
    /// Which kernels multiply ternary matrices.
    pub kernel: Family,
    /// Computes all logits of a large vocabulary exactly, also those that cannot be the greatest.
    pub exact_head: bool,
    /// Binds each thread, the one that loads the model among them, to a core of its own, and brings all memory in
    /// before it is used and keeps it there. What the system refuses: [`crate::Sequence::refused`].
    pub realtime: bool,
    /// Leaves the weights as the file has them: for a model that is only looked at. [`Model::memory`] still tells what
    /// running it takes.
    pub only_described: bool,
    /// How I2_S tensors of a GGUF file are arranged, which the file does not say.
    pub i2s_layout: Option<I2sLayout>,
    /// Folder of a low-rank adapter, as PEFT writes it, with which every sequence runs that has no other.
    pub adapter: Option<PathBuf>,
}

/// A tensor as the file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSummary {
    /// Name in the file.
    pub name: String,
    /// Row-major shape, outermost dimension first.
    pub shape: Vec<u64>,
    /// Type or layout in the file.
    pub type_name: String,
    /// Bytes in the file.
    pub bytes: u64,
}

/// What a model file is.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// File or directory.
    pub path: PathBuf,
    /// Container format.
    pub format: String,
    /// Bytes of all its files.
    pub file_bytes: u64,
    /// Number of weights.
    pub parameters: u64,
    /// All tensors in file order.
    pub tensors: Vec<TensorSummary>,
}

/// Memory that running a model takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Weights read in place from the mapped file.
    pub mapped: u64,
    /// Weights repacked at loading.
    pub repacked: u64,
    /// Keys and values of the whole context.
    pub kv_cache: u64,
    /// Working space of the forward pass.
    pub buffers: u64,
    /// Tokenizer.
    pub tokenizer: u64,
    /// The program itself, its libraries and thread stacks.
    pub program: u64,
}

impl MemoryEstimate {
    /// Sum of all parts.
    pub fn total(&self) -> u64 {
        self.mapped + self.repacked + self.kv_cache + self.buffers + self.tokenizer + self.program
    }
}

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    /// What it is.
    pub config: ModelConfig,
    /// Its weights.
    pub weights: Weights,
    /// Its tokenizer, if it came with one or one was given.
    pub tokenizer: Option<Tokenizer>,
    /// Tokens that end an answer, in ascending order.
    pub eos: Vec<u32>,
    /// Its chat template, if any.
    pub chat_template: Option<ChatTemplate>,
    /// What its file is.
    pub info: ModelInfo,
    pub(crate) team: Team,
    pub(crate) kv_type: KvType,
    pub(crate) activations: ActivationMode,
    pub(crate) frequencies: Frequencies,
    /// What was refused of binding threads to cores, if that was asked for.
    pub(crate) realtime: Option<Vec<String>>,
    /// Whether BitNet's rounding of activations must be visible in their f32 form.
    pub(crate) rounds_in_f32: bool,
    /// What sequences can run with beside the weights.
    pub(crate) adapters: Vec<Lora>,
    /// The adapter of sequences that have no other.
    pub(crate) adapter: Option<usize>,
    /// For a model that is only looked at: that it would be packed, and whether its classifier would be scanned.
    foreseen: Option<bool>,
}

impl Model {
    /// Loads a file or directory of any known format, told from its content.
    ///
    /// Errors name the file and the tensor or field that is wrong; nothing is allocated beyond what the
    /// file's own size justifies.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, EngineError> {
        Self::new(loader::load(path, options)?, options)
    }

    /// Makes what was loaded ready to run.
    pub(crate) fn new(mut loaded: Loaded, options: &LoadOptions) -> Result<Self, EngineError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = options.threads.unwrap_or(cores);
        if threads == 0 || threads > 1024 {
            return Err(EngineError::Request(format!("{threads} threads: take 1 to 1024")));
        }
        let packs = options.activations == ActivationMode::Int8 && options.kernel != Family::Reference;
        let scans = packs && !options.exact_head;
        if packs && !options.only_described {
            loaded.weights.pack(options.kernel, threads, scans);
        }
        let (team, realtime) = if options.realtime {
            let (team, refused) = realtime::pinned_team(threads);
            (team, Some(refused))
        } else {
            (Team::new(threads), None)
        };
        let types = loaded.weights.layers.iter().flat_map(|l| l.matrices()).map(|m| m.row_type);
        let mut model = Self {
            rounds_in_f32: options.activations.rounds_in_f32(loaded.config.int8_linear, types),
            frequencies: Frequencies::new(&loaded.config),
            config: loaded.config,
            weights: loaded.weights,
            tokenizer: loaded.tokenizer,
            chat_template: loaded.chat_template,
            eos: loaded.eos,
            info: loaded.info,
            team,
            realtime,
            kv_type: options.kv_type,
            activations: options.activations,
            foreseen: (packs && options.only_described).then_some(scans),
            adapters: Vec::new(),
            adapter: None,
        };
        model.adapter = options.adapter.as_deref().map(|folder| model.add_adapter(folder)).transpose()?;
        Ok(model)
    }

    /// Adds a low-rank adapter, a folder as PEFT writes it, for sequences to run with ([`crate::scheduler::Job::adapter`]);
    /// gives its index. The weights are shared by all.
    ///
    /// # Errors
    /// Files that are missing or malformed, options of PEFT that are not supported, an adapter of another model.
    pub fn add_adapter(&mut self, folder: &Path) -> Result<usize, EngineError> {
        self.adapters.push(Lora::load(folder, &self.config, &self.weights.layers)?);
        // Adapters see what a model's own definition rounds as its matrices do.
        self.rounds_in_f32 |= self.config.int8_linear;
        Ok(self.adapters.len() - 1)
    }

    /// Adds what a low-rank adapter adds to the weights themselves; the matrices that it changes are in `row_type` then, a
    /// type of floats. The model must have been loaded with [`Family::Reference`], which leaves its rows as they are.
    ///
    /// # Errors
    /// As [`Model::add_adapter`]; matrices in tiles; a type that cannot be written.
    pub fn merge_adapter(&mut self, folder: &Path, row_type: RowType) -> Result<(), EngineError> {
        let lora = Lora::load(folder, &self.config, &self.weights.layers)?;
        lora.merge(&mut self.weights, row_type)
    }

    /// Threads that it runs on.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// The tokenizer, or an error that says how to give one.
    pub fn need_tokenizer(&self) -> Result<&Tokenizer, EngineError> {
        self.tokenizer.as_ref().ok_or_else(|| {
            EngineError::Request(format!(
                "{}: this file has no tokenizer: give one with -z, or give token ids",
                self.info.path.display()
            ))
        })
    }

    /// An empty cache with room for `context` positions (at most what the model was made for).
    pub fn cache(&self, context: usize) -> Result<KvCache, EngineError> {
        let limit = self.config.seq_len;
        if context == 0 || context > limit {
            return Err(EngineError::Request(format!(
                "a context of {context} tokens: this model takes 1 to {limit}"
            )));
        }
        Ok(KvCache::new(self.kv_type, context, &self.config).with_adapter(self.adapter))
    }

    /// Memory needed to run with room for `context` positions.
    pub fn memory(&self, context: usize) -> MemoryEstimate {
        let c = &self.config;
        let (mapped, repacked) = self.weights.bytes(self.foreseen);
        // The widest rows of a batch (forward.rs, `Buffers`), as f32 and as int8, and the logits.
        let row = 2 * c.dim + 2 * c.q_dim() + 2 * c.kv_dim() + 3 * c.hidden_dim;
        let batch = MAX_BATCH.min(context) * row * 4 + c.vocab_size * 8;
        MemoryEstimate {
            mapped,
            repacked: repacked + self.adapters.iter().map(|lora| lora.byte_len() as u64).sum::<u64>(),
            kv_cache: self.kv_type.bytes(c, context) as u64,
            buffers: batch as u64,
            tokenizer: self.tokenizer.as_ref().map_or(0, tokenizer_bytes),
            program: PROGRAM_BYTES,
        }
    }
}

/// Tokens and hash tables, and for byte-level BPE its merges; measured over the vocabularies of SmolLM2 and
/// Gemma 3.
fn tokenizer_bytes(tokenizer: &Tokenizer) -> u64 {
    let per_token = match tokenizer.kind() {
        TokenizerKind::Llama2c | TokenizerKind::SentencePiece => 64,
        TokenizerKind::ByteBpe | TokenizerKind::HuggingFace => 256,
    };
    tokenizer.vocab_size() as u64 * per_token
}

/// Code, libraries, stacks and the allocator's slack of a process that has loaded a tiny model.
const PROGRAM_BYTES: u64 = 8 << 20;
