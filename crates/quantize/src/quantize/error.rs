//! Why a model could not be quantized.

use std::io;
use std::path::PathBuf;

use engine::EngineError;
use kernels::MatmulError;
use kernels::codec::CodecError;
use thiserror::Error;

use crate::convert::ConvertError;

/// Why a model could not be quantized.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The input could not be loaded or run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The output cannot hold the model, or a tensor is unfit.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// Options that do not go together.
    #[error("{option}: {problem}")]
    Option {
        /// The option of the command line.
        option: &'static str,
        /// What is wrong and what would do.
        problem: String,
    },
    /// A tensor that the format cannot hold.
    #[error("tensor {tensor}: {problem}")]
    Tensor {
        /// Its name in the input.
        tensor: String,
        /// What is wrong and what would do.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl QuantizeError {
    pub(crate) fn option(option: &'static str, problem: impl Into<String>) -> Self {
        Self::Option { option, problem: problem.into() }
    }

    pub(crate) fn tensor(tensor: &str, problem: impl ToString) -> Self {
        Self::Tensor { tensor: tensor.to_owned(), problem: problem.to_string() }
    }

    pub(crate) fn codec(tensor: &str) -> impl Fn(CodecError) -> Self {
        let tensor = tensor.to_owned();
        move |error| Self::tensor(&tensor, error)
    }

    pub(crate) fn matrix(tensor: &str) -> impl Fn(MatmulError) -> Self {
        let tensor = tensor.to_owned();
        move |error| Self::tensor(&tensor, error)
    }
}
