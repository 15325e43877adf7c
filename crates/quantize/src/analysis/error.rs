//! Why models could not be compared.

use std::path::PathBuf;

use engine::EngineError;
use thiserror::Error;

/// Why models could not be compared.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// A model could not be loaded or run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Two models that are not one and the same before and after.
    #[error("{path}: {field} is {found}, the original's is {wanted}: this is another model", path = path.display())]
    Differs {
        /// The quantized model.
        path: PathBuf,
        /// What differs.
        field: &'static str,
        /// Its value.
        found: String,
        /// The original's.
        wanted: String,
    },
    /// A weight that is NaN or infinite.
    #[error("{path}: tensor {tensor}: row {row} holds NaN or infinity", path = path.display())]
    NotFinite {
        /// The model.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// Its row.
        row: usize,
    },
    /// A row that cannot be decoded.
    #[error("{path}: tensor {tensor}: {problem}", path = path.display())]
    Row {
        /// The model.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// Points of a curve that cannot be read.
    #[error("{0}")]
    Points(String),
    /// A plot that cannot be drawn.
    #[error("cannot draw a plot: {0}")]
    Plot(String),
}
