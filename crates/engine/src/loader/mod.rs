//! From a path to a model's configuration, weights and tokenizer.
//!
//! `formats::detect` tells what the bytes are; a container reader gives the directory of tensors; the
//! configuration says which tensors there must be and of what shape; `matrix` puts each into a row type.

mod directory;
mod hf;
mod matrix;
pub mod names;
mod ternary_floats;
mod tokenizers;

use std::collections::HashMap;
use std::path::Path;

use formats::checkpoint::Checkpoint;
use formats::detect::{FileKind, detect};
use formats::gguf::Gguf;
use serde_json::Value;

use crate::chat_template::ChatTemplate;
use crate::config::{Architecture, ModelConfig};
use crate::error::EngineError;
use crate::model::{LoadOptions, ModelInfo};
use crate::source::SourceFile;
use crate::tokenizer::Tokenizer;
use crate::weights::{Layer, Linear, WeightMatrix, Weights};
use directory::Directory;
use matrix::Ternary;
use names::{Global, Naming, Part};

pub(crate) use directory::Directory as TensorDirectory;
pub use matrix::I2sLayout;
pub use tokenizers::{TokenizerFormat, TokenizerSource};

/// Everything that a path gives.
pub(crate) struct Loaded {
    pub(crate) config: ModelConfig,
    pub(crate) weights: Weights,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) chat_template: Option<ChatTemplate>,
    pub(crate) eos: Vec<u32>,
    pub(crate) info: ModelInfo,
}

/// What a container gives before its weights are read.
struct Opened {
    format: String,
    config: ModelConfig,
    directory: Directory,
    /// How the file's ternary matrices are to be understood.
    bit_linear: BitLinear,
    /// Whether the classifier is the embedding; `None` when the presence of the tensor says it.
    tied: Option<bool>,
    /// End tokens beside those of the tokenizer.
    eos: Vec<u32>,
    /// The model's own.
    tokenizer: Option<TokenizerSource>,
    /// Jinja source.
    chat_template: Option<String>,
    /// Scales of ternary matrices, by name, whose own scales are rounded to f16.
    scales: HashMap<String, f32>,
}

/// The linear layers of a file, beyond what their layout says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BitLinear {
    /// Nothing: the layout says it all.
    Plain,
    /// Hugging Face BitNet with packed weights and a `weight_scale` beside each.
    Packed {
        /// Whether the scale divides (`bitlinear`) or multiplies (`autobitlinear`).
        divides: bool,
    },
    /// Hugging Face BitNet with master weights.
    Online,
    /// GGUF: a `.scale` tensor beside a matrix, I2_S as the user says.
    Gguf(Option<I2sLayout>),
}

pub(crate) fn load(path: &Path, options: &LoadOptions) -> Result<Loaded, EngineError> {
    let mut opened = if path.is_dir() { hf::open(path)? } else { open_file(path, options)? };
    let config_error = |(field, problem)| EngineError::Config { path: path.to_owned(), field, problem };
    opened.config.check().map_err(config_error)?;
    let weights = weights(&mut opened)?;
    let source = match &options.tokenizer {
        Some(file) => Some(TokenizerSource::of_file(file)?),
        None => opened.tokenizer,
    };
    let tokenizer = source.map(|source| source.build()).transpose()?;
    if let Some(tokenizer) = &tokenizer {
        let (tokens, vocab_size) = (tokenizer.vocab_size(), opened.config.vocab_size);
        // A model may have more embeddings than tokens (padding), never fewer.
        if tokens > vocab_size {
            let file = options.tokenizer.as_deref().unwrap_or(path);
            return Err(EngineError::Config {
                path: file.to_owned(),
                field: "tokenizer".to_owned(),
                problem: format!(
                    "has {tokens} tokens, but the model has {vocab_size} embeddings: it belongs to another model"
                ),
            });
        }
    }
    let source = options.chat_template.as_deref().or(opened.chat_template.as_deref());
    let spelling = |id: Option<u32>| -> String {
        let bytes = tokenizer.as_ref().zip(id).and_then(|(t, id)| t.token_bytes(id).ok());
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    };
    let chat_template = source
        .map(|source| {
            let bos = spelling(tokenizer.as_ref().and_then(Tokenizer::bos));
            let eos = spelling(tokenizer.as_ref().and_then(|t| t.eos().first().copied()));
            ChatTemplate::from_source(source, &bos, &eos)
        })
        .transpose()?;
    let info = ModelInfo {
        path: path.to_owned(),
        format: opened.format,
        file_bytes: opened.directory.file_bytes(),
        parameters: opened.directory.parameters(),
        tensors: opened.directory.summaries(),
    };
    let mut eos = opened.eos;
    eos.extend(tokenizer.iter().flat_map(|t| t.eos()));
    eos.sort_unstable();
    eos.dedup();
    Ok(Loaded { config: opened.config, weights, tokenizer, chat_template, eos, info })
}

fn open_file(path: &Path, options: &LoadOptions) -> Result<Opened, EngineError> {
    let file = SourceFile::open(path)?;
    let format = |source| EngineError::Format { path: path.to_owned(), source };
    let kind = detect(file.bytes()).map_err(format)?;
    match kind {
        FileKind::Gguf => open_gguf(path, file, options),
        FileKind::Safetensors => hf::open(folder(path)),
        FileKind::Tokenizer => {
            Err(EngineError::Request(format!("{}: this is a tokenizer, not a model", path.display())))
        }
        _ => {
            let checkpoint = Checkpoint::parse(file.bytes()).map_err(format)?;
            let mut directory = Directory::new(Naming::Llama2c);
            directory.add(file, checkpoint.tensors.clone());
            let trailer = |key: &str| checkpoint.trailer.as_ref()?.get(key);
            Ok(Opened {
                format: kind.to_string(),
                config: ModelConfig::from_checkpoint(&checkpoint),
                directory,
                bit_linear: BitLinear::Plain,
                tied: Some(checkpoint.header.shared_classifier),
                eos: trailer("eos_token_ids").map_or_else(Vec::new, token_ids),
                tokenizer: TokenizerSource::of_checkpoint(path, &checkpoint)?,
                chat_template: trailer("chat_template").and_then(Value::as_str).map(str::to_owned),
                scales: trailer("scales").map_or_else(HashMap::new, scales),
            })
        }
    }
}

fn open_gguf(path: &Path, file: SourceFile, options: &LoadOptions) -> Result<Opened, EngineError> {
    let format = |source| EngineError::Format { path: path.to_owned(), source };
    let gguf = Gguf::parse(file.bytes()).map_err(format)?;
    let config = ModelConfig::from_gguf(path, &gguf)?;
    let tokenizer = TokenizerSource::of_gguf(&file, &gguf)?;
    let chat_template = gguf.str("tokenizer.chat_template").map_err(format)?.map(str::to_owned);
    let (version, tensors) = (gguf.version, gguf.tensors);
    let mut directory = Directory::new(Naming::Gguf);
    directory.add(file, tensors);
    Ok(Opened {
        format: format!("GGUF v{version}"),
        config,
        directory,
        bit_linear: BitLinear::Gguf(options.i2s_layout),
        tied: None,
        eos: Vec::new(),
        tokenizer,
        chat_template,
        scales: HashMap::new(),
    })
}

/// The tensors of a safetensors file beside a model.
pub(crate) fn adapter_tensors(file: SourceFile, tensors: Vec<formats::TensorInfo>) -> TensorDirectory {
    let mut directory = Directory::new(Naming::HuggingFace);
    directory.add(file, tensors);
    directory
}

/// The folder that a file is in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Ids of a metadata trailer; what is no id is ignored, as everything in a trailer that we do not know.
fn token_ids(list: &Value) -> Vec<u32> {
    let ids = list.as_array().map(Vec::as_slice).unwrap_or_default();
    ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

/// Name -> scale, as a metadata trailer has them.
fn scales(object: &Value) -> HashMap<String, f32> {
    let entries = object.as_object().into_iter().flatten();
    entries.filter_map(|(name, scale)| Some((name.clone(), scale.as_f64()? as f32))).collect()
}

impl Opened {
    /// What is known about a ternary matrix beside its bytes, where its name alone decides.
    fn ternary(&self, name: &str) -> Ternary {
        self.scales.get(name).map_or(Ternary::Plain, |&scale| Ternary::Exact { scale })
    }

    /// The embedding or the classifier.
    fn vocabulary_matrix(&self, name: &str) -> Result<WeightMatrix, EngineError> {
        self.directory.matrix(name, (self.config.vocab_size, self.config.dim), self.ternary(name))
    }
}

fn weights(opened: &mut Opened) -> Result<Weights, EngineError> {
    let naming = opened.directory.naming;
    let c = &mut opened.config;
    if let Some(divisors) = opened.directory.optional_vector("rope_freqs.weight", c.head_dim / 2)? {
        c.rope.divisors = Some(divisors);
    }
    let c = &opened.config;
    let token_embedding = opened.vocabulary_matrix(naming.global(Global::TokenEmbedding))?;
    let layers =
        (0..c.n_layers).map(|layer| LayerReader { opened, layer }.read()).collect::<Result<_, _>>()?;
    let rms_final = norm(opened, naming.global(Global::RmsFinal), c.dim)?;
    let wcls = naming.global(Global::Wcls);
    let tied = opened.tied.unwrap_or(opened.directory.find(wcls).is_none());
    let wcls = (!tied).then(|| opened.vocabulary_matrix(wcls)).transpose()?;
    Ok(Weights { token_embedding, layers, rms_final, wcls, scan: None })
}

/// The weights of a norm, with what the architecture adds to them.
fn norm(opened: &Opened, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
    let mut weight = opened.directory.vector(name, len)?;
    weight.iter_mut().for_each(|w| *w += opened.config.norm_weight_offset);
    Ok(weight)
}

struct LayerReader<'a> {
    opened: &'a Opened,
    layer: usize,
}

impl LayerReader<'_> {
    fn read(&self) -> Result<Layer, EngineError> {
        let c = &self.opened.config;
        let a = c.architecture;
        let (q_dim, kv_dim) = (c.q_dim(), c.kv_dim());
        // bitllama's norms have no weights, but divide once more by their length (the shared `hf-1M`, checked
        // against the C program, says the same).
        let norm = |part, len| match a {
            Architecture::Bitllama => Ok(vec![1.0 / len as f32; len]),
            _ => self.norm(part, len),
        };
        let norm_if = |wanted: bool, part, len| wanted.then(|| norm(part, len)).transpose();
        Ok(Layer {
            rms_att: norm(Part::RmsAtt, c.dim)?,
            wq: self.linear(Part::Wq, q_dim, c.dim)?,
            wk: self.linear(Part::Wk, kv_dim, c.dim)?,
            wv: self.linear(Part::Wv, kv_dim, c.dim)?,
            wo: self.linear(Part::Wo, c.dim, q_dim)?,
            q_norm: norm_if(a.has_qk_norms(), Part::QNorm, c.head_dim)?,
            k_norm: norm_if(a.has_qk_norms(), Part::KNorm, c.head_dim)?,
            attn_sub_norm: norm_if(a.has_sub_norms(), Part::AttnSubNorm, q_dim)?,
            post_att_norm: norm_if(a.has_post_norms(), Part::PostAttNorm, c.dim)?,
            rms_ffn: norm(Part::RmsFfn, c.dim)?,
            w1: self.linear(Part::W1, c.hidden_dim, c.dim)?,
            w2: self.linear(Part::W2, c.dim, c.hidden_dim)?,
            w3: self.linear(Part::W3, c.hidden_dim, c.dim)?,
            ffn_sub_norm: norm_if(a.has_sub_norms(), Part::FfnSubNorm, c.hidden_dim)?,
            post_ffn_norm: norm_if(a.has_post_norms(), Part::PostFfnNorm, c.dim)?,
        })
    }

    fn norm(&self, part: Part, len: usize) -> Result<Vec<f32>, EngineError> {
        let naming = self.opened.directory.naming;
        norm(self.opened, &naming.weight(self.opened.config.architecture, self.layer, part), len)
    }

    fn linear(&self, part: Part, rows: usize, cols: usize) -> Result<Linear, EngineError> {
        let (directory, architecture) = (&self.opened.directory, self.opened.config.architecture);
        let base = directory.naming.part(architecture, self.layer, part);
        let scale = |suffix: &str| directory.optional_vector(&format!("{base}{suffix}"), 1);
        let name = directory.naming.weight(architecture, self.layer, part);
        let ternary = match self.opened.bit_linear {
            BitLinear::Plain => self.opened.ternary(&name),
            BitLinear::Online => Ternary::Online,
            BitLinear::Packed { divides } => {
                let scale = directory.vector(&format!("{base}.weight_scale"), 1)?[0];
                Ternary::Packed { scale: if divides { 1.0 / scale } else { scale } }
            }
            BitLinear::Gguf(i2s) => match (scale(".scale")?, i2s) {
                (Some(scale), _) => Ternary::Scaled { scale: scale[0] },
                (None, Some(layout)) => Ternary::I2s(layout),
                (None, None) => Ternary::Plain,
            },
        };
        let mut weight = directory.matrix(&name, (rows, cols), ternary)?;
        if self.opened.config.int8_linear {
            weight = ternary_floats::as_codes(weight)?;
        }
        let bias = directory.optional_vector(&format!("{base}.bias"), rows)?;
        Ok(Linear { weight, bias })
    }
}
