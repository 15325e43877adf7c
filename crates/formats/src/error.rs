//! What can be wrong with a file, with the place where it is wrong.

use thiserror::Error;

/// A malformed, truncated or unsupported file. The caller adds the file's path; everything here names the
/// field or tensor and, where there is one, the byte offset.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The file ends before something that its header promises.
    #[error("truncated: {what} needs bytes {offset}..{end}, but the file has {len}")]
    Truncated {
        /// Field or tensor that does not fit.
        what: String,
        /// First byte that it needs.
        offset: u64,
        /// One past the last byte that it needs.
        end: u64,
        /// Length of the file.
        len: u64,
    },
    /// A field holds a value that cannot be.
    #[error("{field} at byte {offset}: {problem}")]
    Field {
        /// The field.
        field: String,
        /// Where it stands.
        offset: u64,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// A tensor's shape, type or bytes are wrong.
    #[error("tensor {tensor} at byte {offset}: {problem}")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// First byte of the tensor or of the offending value.
        offset: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor that the architecture needs is not in the file.
    #[error("tensor {tensor} is missing")]
    MissingTensor {
        /// Name of the tensor.
        tensor: String,
    },
    /// The bytes do not belong to any format that we know.
    #[error("not a model file that we know: {problem}")]
    Unknown {
        /// What was looked for and what stands there.
        problem: String,
    },
    /// A count or size beyond the limits of [`crate::limits`].
    #[error("{field}: {value} is more than the limit of {limit}")]
    Limit {
        /// The field.
        field: String,
        /// What the file says.
        value: u64,
        /// What we accept.
        limit: u64,
    },
    /// Bytes remain after the last tensor where the format has none.
    #[error("{extra} unexpected bytes after the last tensor at byte {offset}")]
    TrailingBytes {
        /// Where the last tensor ends.
        offset: u64,
        /// How many bytes follow.
        extra: u64,
    },
    /// A JSON part (`config.json`, safetensors header or index, trailer) is not what it should be.
    #[error("{what}: {problem}")]
    Json {
        /// Which JSON text.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl FormatError {
    /// A [`FormatError::Field`].
    pub fn field(field: impl Into<String>, offset: u64, problem: impl Into<String>) -> Self {
        Self::Field { field: field.into(), offset, problem: problem.into() }
    }

    /// A [`FormatError::Tensor`].
    pub fn tensor(tensor: impl Into<String>, offset: u64, problem: impl Into<String>) -> Self {
        Self::Tensor { tensor: tensor.into(), offset, problem: problem.into() }
    }
}
