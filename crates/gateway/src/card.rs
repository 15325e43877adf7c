//! What is known of a loaded model without asking its thread.

use engine::Model;
use engine::chat_template::ChatTemplate;
use engine::tokenizer::{EncodeOptions, Tokenizer};

use crate::error::ApiError;

/// Facts of a loaded model, and what turns texts into its tokens.
#[derive(Debug, Clone)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// Seconds since 1970 of its file.
    pub created: u64,
    /// Its tokenizer, if it came with one.
    pub tokenizer: Option<Tokenizer>,
    /// Its chat template, if it came with one.
    pub template: Option<ChatTemplate>,
    /// Positions of a sequence at most.
    pub context: usize,
    /// Positions that it was made for.
    pub trained_context: usize,
    /// Tokens that it can tell apart.
    pub vocab_size: usize,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// Length of its hidden states.
    pub dim: usize,
    /// `llama`, `qwen2`, ...
    pub architecture: String,
    /// Container of its file.
    pub format: String,
    /// How most of its weights are stored.
    pub quantization: String,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Bytes that it takes in memory, its working space aside.
    pub memory_bytes: u64,
}

impl Card {
    /// The card of a loaded model.
    pub fn of(name: &str, model: &Model, context: usize) -> Self {
        let created = std::fs::metadata(&model.info.path).and_then(|file| file.modified()).ok();
        let created = created
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .map_or(0, |t| t.as_secs());
        let memory = model.memory(context);
        Self {
            name: name.to_owned(),
            created,
            tokenizer: model.tokenizer.clone(),
            template: model.chat_template.clone(),
            context,
            trained_context: model.config.seq_len,
            vocab_size: model.config.vocab_size,
            eos: model.eos.clone(),
            dim: model.config.dim,
            architecture: format!("{:?}", model.config.architecture).to_lowercase(),
            format: model.info.format.clone(),
            quantization: main_type(model),
            parameters: model.info.parameters,
            file_bytes: model.info.file_bytes,
            memory_bytes: memory.mapped + memory.repacked,
        }
    }

    /// The tokenizer, or an error that says that there is none.
    pub(crate) fn tokenizer(&self) -> Result<&Tokenizer, ApiError> {
        self.tokenizer
            .as_ref()
            .ok_or_else(|| ApiError::bad_request(format!("The model '{}' has no tokenizer", self.name)))
    }

    /// The tokens of a text as a prompt, with what the vocabulary puts around texts.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, ApiError> {
        let options = EncodeOptions { add_special: true, parse_special: true };
        self.tokenizer()?.encode(text, options).map_err(|error| ApiError::bad_request(error.to_string()))
    }

    /// What a token adds to a text, bytes that are no UTF-8 replaced; its name for a special one.
    pub(crate) fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.token_bytes(id)).into_owned()
    }

    /// The bytes that a token adds to a text.
    pub(crate) fn token_bytes(&self, id: u32) -> &[u8] {
        self.tokenizer.as_ref().and_then(|t| t.token_bytes(id).ok()).unwrap_or_default()
    }
}

/// The type with the most bytes.
fn main_type(model: &Model) -> String {
    let mut types: Vec<(&str, u64)> = Vec::new();
    for tensor in &model.info.tensors {
        match types.iter_mut().find(|(name, _)| *name == tensor.type_name) {
            Some((_, bytes)) => *bytes += tensor.bytes,
            None => types.push((&tensor.type_name, tensor.bytes)),
        }
    }
    types.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(name, _)| name.to_uppercase()).unwrap_or_default()
}
