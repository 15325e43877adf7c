//! What can go wrong, with the file, line, field or step where it did.

use std::io;
use std::path::{Path, PathBuf};

use engine::EngineError;
use engine::tokenizer::TokenizerError;
use formats::FormatError;
use thiserror::Error;

use crate::model::ShapeError;

/// Training cannot begin or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// A row of a data set.
    #[error("{}: line {line}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Its line, from 1 on.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Data or a configuration that does not do.
    #[error("{what}: {problem}")]
    Input {
        /// A file, a field or an option.
        what: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// A shape that no model has.
    #[error("model.{0}")]
    Shape(#[from] ShapeError),
    /// A tokenizer that does not do.
    #[error("tokenizer")]
    Tokenizer(#[from] TokenizerError),
    /// The engine on the model that was written.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The loss or its derivatives are no numbers any more.
    #[error(
        "step {step}: the {what} is {value}, on {batch}: nothing was changed since the checkpoint of step {checkpoint}"
    )]
    NotFinite {
        /// The step.
        step: u64,
        /// Loss or gradient.
        what: &'static str,
        /// What it is.
        value: f64,
        /// What was learned from in this step: lines of a file, or documents of data sets.
        batch: String,
        /// The last step that is in a checkpoint; 0: none is.
        checkpoint: u64,
    },
}

impl TrainError {
    /// For `map_err`.
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }

    /// A list of numbers that is not longer than an error should be.
    pub(crate) fn list(numbers: &[usize]) -> String {
        const MOST: usize = 16;
        let shown: Vec<String> = numbers.iter().take(MOST).map(usize::to_string).collect();
        match numbers.len().saturating_sub(MOST) {
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    }

    pub(crate) fn input(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Input { what: what.into(), problem: problem.into() }
    }
}
