//! How large a model is, and what its weights take by type.

use std::collections::{BTreeMap, HashMap, HashSet};

use engine::{Model, TensorSummary};
use serde::Serialize;

/// A model file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Size {
    /// Name of the file or folder.
    pub name: String,
    /// Its container.
    pub format: String,
    /// Bytes of all its files, tokenizer and metadata included.
    pub file_bytes: u64,
    /// Weights of all tensors.
    pub weights: u64,
    /// Bits a weight over all tensors.
    pub bits: f64,
    /// Bits a weight over the matrices of the layers.
    pub linear_bits: f64,
    /// By type, the largest first.
    pub types: Vec<TypeSize>,
}

/// The tensors of one type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TypeSize {
    /// Type or layout in the file.
    pub name: String,
    /// Tensors.
    pub tensors: usize,
    /// Weights in them.
    pub weights: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Bits a weight.
    pub bits: f64,
}

/// Bits a weight; 0 without weights.
fn bits(bytes: u64, weights: u64) -> f64 {
    if weights == 0 { 0.0 } else { bytes as f64 * 8.0 / weights as f64 }
}

/// The tensors of a model's files by name.
pub(super) struct Stored<'m>(HashMap<&'m str, &'m TensorSummary>);

impl<'m> Stored<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        Self(model.info.tensors.iter().map(|tensor| (&tensor.name[..], tensor)).collect())
    }

    /// Type and bits a weight of the matrix `name` with this many weights, as the file has it.
    pub(super) fn matrix(&self, name: &str, weights: u64) -> Option<(String, f64)> {
        let summary = self.0.get(name)?;
        Some((summary.type_name.clone(), bits(summary.bytes, weights)))
    }
}

impl Size {
    /// Of a loaded model.
    pub(super) fn new(model: &Model) -> Self {
        // What the engine says of a matrix counts: packed weights have a smaller shape in some files.
        let matrices: HashMap<&str, u64> = model
            .weights
            .matrices()
            .map(|matrix| (&matrix.name[..], matrix.rows as u64 * matrix.cols as u64))
            .collect();
        let linear: HashSet<&str> = model
            .weights
            .layers
            .iter()
            .flat_map(|layer| layer.matrices())
            .map(|matrix| &matrix.name[..])
            .collect();
        let mut types: BTreeMap<&str, TypeSize> = BTreeMap::new();
        let mut linear_size = (0, 0);
        for tensor in &model.info.tensors {
            let of_shape = || tensor.shape.iter().fold(1, |n: u64, &d| n.saturating_mul(d));
            let weights = matrices.get(&tensor.name[..]).copied().unwrap_or_else(of_shape);
            let size = types.entry(&tensor.type_name).or_insert_with(|| TypeSize {
                name: tensor.type_name.clone(),
                tensors: 0,
                weights: 0,
                bytes: 0,
                bits: 0.0,
            });
            size.tensors += 1;
            size.weights += weights;
            size.bytes += tensor.bytes;
            if linear.contains(&tensor.name[..]) {
                linear_size = (linear_size.0 + tensor.bytes, linear_size.1 + weights);
            }
        }
        let mut types: Vec<TypeSize> = types.into_values().collect();
        types.iter_mut().for_each(|size| size.bits = bits(size.bytes, size.weights));
        types.sort_by_key(|size| std::cmp::Reverse(size.bytes));
        let weights = types.iter().map(|size| size.weights).sum();
        let path = &model.info.path;
        Self {
            name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            format: model.info.format.clone(),
            file_bytes: model.info.file_bytes,
            weights,
            bits: bits(types.iter().map(|size| size.bytes).sum(), weights),
            linear_bits: bits(linear_size.0, linear_size.1),
            types,
        }
    }
}
