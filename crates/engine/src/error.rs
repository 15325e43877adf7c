//! What can go wrong between a path and a text.

use std::path::PathBuf;

use formats::FormatError;
use kernels::MatmulError;
use thiserror::Error;

use crate::chat_template::TemplateError;
use crate::tokenizer::TokenizerError;

/// An error of the engine: it names the file, and the tensor, field or limit concerned.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The operating system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },
    /// The file is malformed.
    #[error("{path}: {source}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: FormatError,
    },
    /// A model of a kind that we do not run.
    #[error("{path}: unknown architecture {name:?}; known are {known}", path = path.display())]
    UnknownArchitecture {
        /// The file.
        path: PathBuf,
        /// What the file calls it.
        name: String,
        /// Those that we run.
        known: String,
    },
    /// A value of the configuration that cannot be or that we do not support.
    #[error("{path}: {field}: {problem}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor that does not fit the configuration, or holds what it must not.
    #[error("{path}: tensor {tensor}: {problem}", path = path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The computation gave NaN or infinity.
    #[error("the logits at position {position} are not finite{culprit}")]
    NotFinite {
        /// Position in the sequence.
        position: usize,
        /// `: tensor … holds NaN …` when a weight is to blame, else empty.
        culprit: String,
    },
    /// More tokens than the context holds.
    #[error("{tokens} tokens do not fit a context of {context}")]
    ContextFull {
        /// Tokens asked for, those before them included.
        tokens: usize,
        /// What there is room for.
        context: usize,
    },
    /// An id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    TokenId {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A request that cannot be carried out.
    #[error("{0}")]
    Request(String),
    /// The tokenizer file or text.
    #[error("{path}: {source}", path = path.display())]
    Tokenizer {
        /// The file that it came from.
        path: PathBuf,
        /// Its reason.
        source: TokenizerError,
    },
    /// The text cannot be encoded.
    #[error(transparent)]
    Encode(#[from] TokenizerError),
    /// The chat template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A matrix product was refused: a shape or type that the loader should not have let through.
    #[error(transparent)]
    Kernel(#[from] MatmulError),
}
