//! A model of a file with its matrices rounded to another type in memory: to compare types on one model.

use std::path::Path;

use crate::error::EngineError;
use crate::loader::{self, Loaded};
use crate::model::{LoadOptions, Model};
use crate::stored::StoredType;
use crate::weights::WeightMatrix;

impl Model {
    /// Loads a model and rounds the matrices of its layers to `layers`, its embedding and its classifier to `head`.
    /// A matrix whose rows are not whole blocks of its type becomes F16, as [`crate::ModelInfo::tensors`] then says.
    pub fn load_rounded(
        path: &Path,
        layers: StoredType,
        head: StoredType,
        options: &LoadOptions,
    ) -> Result<Self, EngineError> {
        let mut loaded = loader::load(path, options)?;
        round(&mut loaded, layers, head)?;
        Self::new(loaded, options)
    }
}

fn round(loaded: &mut Loaded, layers: StoredType, head: StoredType) -> Result<(), EngineError> {
    let mut tensors = Vec::new();
    let mut round = |matrix: &mut WeightMatrix, stored: StoredType| -> Result<(), EngineError> {
        let stored = if stored.row_bytes(matrix.cols).is_ok() { stored } else { StoredType::F16 };
        let view = matrix.view()?;
        let mut values = vec![0.0; matrix.rows * matrix.cols];
        for (r, row) in values.chunks_exact_mut(matrix.cols).enumerate() {
            view.dequantize_row(r, row)?;
        }
        let bytes = stored.encode(&values, matrix.cols)?;
        let (rounded, summary) = stored.matrix(matrix.name.clone(), (matrix.rows, matrix.cols), bytes);
        *matrix = rounded;
        tensors.push(summary);
        Ok(())
    };
    round(&mut loaded.weights.token_embedding, head)?;
    for linear in loaded.weights.layers.iter_mut().flat_map(|layer| layer.linears_mut()) {
        round(&mut linear.weight, layers)?;
    }
    if let Some(wcls) = &mut loaded.weights.wcls {
        round(wcls, head)?;
    }
    loaded.info.format = format!("{}, rounded in memory", loaded.info.format);
    loaded.info.file_bytes = tensors.iter().map(|tensor| tensor.bytes).sum();
    loaded.info.tensors = tensors;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::Sequence;
    use crate::weights::ActivationMode;

    /// Logits of the tiny model in a type, with exact activations.
    fn logits(stored: Option<StoredType>) -> Vec<f32> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models/qwen2-tiny");
        let options =
            LoadOptions { threads: Some(1), activations: ActivationMode::F32, ..LoadOptions::default() };
        let model = match stored {
            None => Model::load(&path, &options).unwrap(),
            Some(stored) => {
                let model = Model::load_rounded(&path, stored, stored, &options).unwrap();
                assert!(model.info.tensors.iter().all(|t| t.type_name == stored.name()));
                model
            }
        };
        Sequence::new(&model, 8).unwrap().forward(&[5, 6, 7]).unwrap().to_vec()
    }

    #[test]
    fn finer_types_are_nearer_to_the_model() {
        let exact = logits(None);
        let distance = |stored| {
            let found = logits(Some(stored));
            let square: f32 = exact.iter().zip(&found).map(|(a, b)| (a - b) * (a - b)).sum();
            square.sqrt()
        };
        assert_eq!(distance(StoredType::F32), 0.0);
        let steps = [StoredType::F16, StoredType::Int8, StoredType::Int4, StoredType::Ternary].map(distance);
        assert!(steps.is_sorted() && steps[0] > 0.0, "{steps:?}");
        assert!(distance(StoredType::TmacV1).is_finite());
    }
}
