//! Why a model could not be converted.

use std::io;

use engine::EngineError;
use formats::FormatError;
use kernels::MatmulError;
use kernels::codec::CodecError;
use thiserror::Error;

/// Why a model could not be converted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The input could not be loaded.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The target cannot hold the model as it is.
    #[error(
        "{target} cannot hold this model unchanged: {field}: {problem} (`edgellm quantize` may change values, with --force also lose some)"
    )]
    Refused {
        /// Name of the target.
        target: &'static str,
        /// The field or tensor.
        field: String,
        /// Why it does not fit.
        problem: String,
    },
    /// The output's directory would be malformed.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A row could not be decoded or encoded.
    #[error("tensor {tensor}: {problem}")]
    Row {
        /// The tensor in the input.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// The output could not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ConvertError {
    pub(super) fn refused(
        target: &'static str,
        field: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        Self::Refused { target, field: field.into(), problem: problem.into() }
    }

    pub(super) fn codec(tensor: &str, error: &CodecError) -> Self {
        Self::Row { tensor: tensor.to_owned(), problem: error.to_string() }
    }

    pub(super) fn matrix(tensor: &str, error: &MatmulError) -> Self {
        Self::Row { tensor: tensor.to_owned(), problem: error.to_string() }
    }
}
