//! All tensors of a model by name, wherever their files are.

use std::collections::HashMap;
use std::path::Path;

use formats::{FormatError, Layout, TensorInfo};

use super::matrix::{self, Ternary};
use super::names::Naming;
use crate::error::EngineError;
use crate::model::TensorSummary;
use crate::source::SourceFile;
use crate::weights::WeightMatrix;

/// The tensors of one or more files.
pub(crate) struct Directory {
    pub(crate) naming: Naming,
    files: Vec<SourceFile>,
    tensors: Vec<(usize, TensorInfo)>,
    by_name: HashMap<String, usize>,
}

impl Directory {
    pub(crate) fn new(naming: Naming) -> Self {
        Self { naming, files: Vec::new(), tensors: Vec::new(), by_name: HashMap::new() }
    }

    /// Adds a file and its tensors.
    pub(crate) fn add(&mut self, file: SourceFile, tensors: Vec<TensorInfo>) {
        for tensor in tensors {
            self.by_name.insert(tensor.name.clone(), self.tensors.len());
            self.tensors.push((self.files.len(), tensor));
        }
        self.files.push(file);
    }

    /// The first file, which errors about the whole name.
    pub(crate) fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), SourceFile::path)
    }

    pub(crate) fn find(&self, name: &str) -> Option<(&SourceFile, &TensorInfo)> {
        let (file, info) = self.tensors.get(*self.by_name.get(name)?)?;
        Some((self.files.get(*file)?, info))
    }

    fn need(&self, name: &str) -> Result<(&SourceFile, &TensorInfo), EngineError> {
        self.find(name).ok_or_else(|| EngineError::Format {
            path: self.path().to_owned(),
            source: FormatError::MissingTensor { tensor: name.to_owned() },
        })
    }

    /// A vector of `len`; missing is an error.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        let (file, info) = self.need(name)?;
        matrix::vector(file, info, len)
    }

    /// A vector of `len` if the file has it.
    pub(crate) fn optional_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>, EngineError> {
        self.find(name).map(|(file, info)| matrix::vector(file, info, len)).transpose()
    }

    /// A matrix `[rows, cols]`; missing is an error.
    pub(crate) fn matrix(
        &self,
        name: &str,
        shape: (usize, usize),
        ternary: Ternary,
    ) -> Result<WeightMatrix, EngineError> {
        let (file, info) = self.need(name)?;
        matrix::matrix(file, info, shape, ternary)
    }

    /// A matrix `[rows, cols]` of numbers as they are; missing is an error.
    pub(crate) fn plain_matrix(
        &self,
        name: &str,
        shape: (usize, usize),
    ) -> Result<WeightMatrix, EngineError> {
        self.matrix(name, shape, Ternary::Plain)
    }

    /// All tensors in order.
    pub(crate) fn summaries(&self) -> Vec<TensorSummary> {
        let summary = |(_, info): &(usize, TensorInfo)| TensorSummary {
            name: info.name.clone(),
            shape: info.shape.clone(),
            type_name: match info.layout {
                Layout::Rows(ty) => format!("{ty:?}"),
                Layout::TernaryRun { .. } => "ternary".to_owned(),
                Layout::TernaryRows => "ternary rows".to_owned(),
                Layout::Int4Run { .. } => "int4".to_owned(),
                Layout::Int8Groups { group } => format!("int8 groups of {group}"),
                Layout::TernaryScaled { .. } => "ternary".to_owned(),
            },
            bytes: tensor_bytes(info),
        };
        self.tensors.iter().map(summary).collect()
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes().len() as u64).sum()
    }

    pub(crate) fn parameters(&self) -> u64 {
        self.tensors.iter().map(|(_, info)| info.rows().saturating_mul(info.cols())).sum()
    }
}

/// Bytes of one tensor, which in the formats with one run over all layers are a part of the run's.
fn tensor_bytes(info: &TensorInfo) -> u64 {
    let weights = info.rows().saturating_mul(info.cols());
    match info.layout {
        Layout::TernaryRun { .. } => weights.div_ceil(4),
        Layout::Int4Run { .. } => weights.div_ceil(32) * 18,
        _ => info.bytes,
    }
}
