//! Low-rank adapters beside the linear layers of a model (LoRA: Hu et al., arXiv 2106.09685): `y = W x + B (A x)`.
//!
//! They are read as PEFT writes them and run unmerged: the model's own weights stay as they are, so that several adapters
//! share them and each sequence has its own, or none. A model without adapters pays nothing for them.

use std::path::Path;

use formats::peft::PeftConfig;
use formats::safetensors_file;
use kernels::row::RowType;
use kernels::{ActivationForm, Activations, MatmulError, Team};

use crate::config::{ModelConfig, Pairing};
use crate::error::EngineError;
use crate::loader::adapter_tensors;
use crate::names::{Naming, Part};
use crate::source::SourceFile;
use crate::weights::{Layer, Linear, WeightMatrix, Weights};

/// What PEFT puts before the name of a module in the model.
const PREFIX: &str = "base_model.model.";

/// The linear layers of a block, in the order of [`Layer::linears`].
const PARTS: [Part; 7] = [Part::Wq, Part::Wk, Part::Wv, Part::Wo, Part::W1, Part::W2, Part::W3];

/// The adapters of one training, beside some of a model's linear layers.
#[derive(Debug)]
pub(crate) struct Lora {
    rank: usize,
    /// Of each block.
    layers: Vec<[Option<LowRank>; 7]>,
}

/// The two matrices beside one of the model's.
#[derive(Debug)]
struct LowRank {
    /// `[rank, cols]`
    a: WeightMatrix,
    /// `[rows, rank]`, in the order of the model's rows, times the adapter's scale.
    b: WeightMatrix,
}

/// Working space of [`Lora::add`].
#[derive(Debug, Default)]
pub(crate) struct LoraBuffers {
    input: Activations,
    low: Vec<f32>,
    middle: Activations,
    out: Vec<f32>,
}

impl LoraBuffers {
    /// Room for `tokens` tokens on this model, so that running it allocates nothing.
    pub(crate) fn reserve(&mut self, adapters: &[Lora], config: &ModelConfig, tokens: usize) {
        let Some(rank) = adapters.iter().map(|lora| lora.rank).max() else { return };
        let widest = config.dim.max(config.q_dim()).max(config.hidden_dim);
        self.input.reserve(tokens, widest);
        self.middle.reserve(tokens, rank);
        self.low.reserve(tokens * rank);
        self.out.reserve(tokens * widest);
    }
}

/// Which linear layer of a block.
fn index(part: Part) -> Option<usize> {
    PARTS.iter().position(|known| *known == part)
}

impl Lora {
    /// Reads `adapter_config.json` and `adapter_model.safetensors` of a folder, for a model of this configuration whose blocks
    /// are `layers`.
    ///
    /// # Errors
    /// Files that are missing or malformed; options of PEFT that change what an adapter means and are not supported, by
    /// name; tensors of another shape than the model's, and tensors that belong to none of its linear layers.
    pub(crate) fn load(folder: &Path, config: &ModelConfig, layers: &[Layer]) -> Result<Self, EngineError> {
        let path = folder.join("adapter_config.json");
        let wrong = |source| EngineError::Format { path: path.clone(), source };
        let peft = PeftConfig::parse(SourceFile::open(&path)?.bytes()).map_err(wrong)?;
        let file = SourceFile::open(&folder.join("adapter_model.safetensors"))?;
        let wrong = |source| EngineError::Format { path: file.path().to_owned(), source };
        let tensors = safetensors_file::parse(file.bytes()).map_err(wrong)?;
        let mut unused: Vec<String> = tensors.iter().map(|tensor| tensor.name.clone()).collect();
        let tensors = adapter_tensors(file, tensors);
        let mut read = Vec::with_capacity(layers.len());
        for (l, layer) in layers.iter().enumerate() {
            let mut of_layer = [const { None }; 7];
            for ((place, part), linear) in of_layer.iter_mut().zip(PARTS).zip(layer.linears()) {
                let module = Naming::HuggingFace.part(config.architecture, l, part);
                let last = module.rsplit('.').next().unwrap_or_default();
                if !peft.target_modules.iter().any(|target| target == last) {
                    continue;
                }
                let name = |matrix: &str| format!("{PREFIX}{module}.lora_{matrix}.weight");
                unused.retain(|tensor| *tensor != name("A") && *tensor != name("B"));
                let (rows, cols) = (linear.weight.rows, linear.weight.cols);
                let a = tensors.plain_matrix(&name("A"), (peft.rank, cols))?.to_values()?;
                let mut b = tensors.plain_matrix(&name("B"), (rows, peft.rank))?.to_values()?;
                b.iter_mut().for_each(|b| *b *= peft.scale);
                if matches!(part, Part::Wq | Part::Wk) && config.pairing == Pairing::Adjacent {
                    b = to_neighbours(&b, peft.rank, config.head_dim);
                }
                *place = Some(LowRank {
                    a: WeightMatrix::of_values(name("A"), (peft.rank, cols), &a)?,
                    b: WeightMatrix::of_values(name("B"), (rows, peft.rank), &b)?,
                });
            }
            read.push(of_layer);
        }
        if let Some(tensor) = unused.into_iter().next() {
            let problem = "belongs to none of the model's linear layers that target_modules names".to_owned();
            return Err(EngineError::Tensor { path: folder.to_owned(), tensor, problem });
        }
        let lora = Self { rank: peft.rank, layers: read };
        match lora.find_not_finite() {
            Some((tensor, row)) => {
                let problem = format!("row {row} holds NaN or infinity");
                Err(EngineError::Tensor { path: folder.to_owned(), tensor, problem })
            }
            None => Ok(lora),
        }
    }

    fn find_not_finite(&self) -> Option<(String, usize)> {
        let pairs = self.layers.iter().flatten().flatten();
        let mut matrices = pairs.flat_map(|low_rank| [&low_rank.a, &low_rank.b]);
        matrices.find_map(|matrix| Some((matrix.name.clone(), matrix.find_not_finite()?)))
    }

    /// Bytes in memory.
    pub(crate) fn byte_len(&self) -> usize {
        let pairs = self.layers.iter().flatten().flatten();
        pairs.map(|low_rank| low_rank.a.byte_len() + low_rank.b.byte_len()).sum()
    }

    /// Adds to `out`, `[tokens, rows]`, what the adapter of a linear layer makes of its input `x`, `[tokens, cols]`.
    pub(crate) fn add(
        &self,
        team: &Team,
        (layer, part): (usize, Part),
        x: &[f32],
        out: &mut [f32],
        buffers: &mut LoraBuffers,
    ) -> Result<(), MatmulError> {
        let place = self.layers.get(layer).zip(index(part)).and_then(|(layer, index)| layer[index].as_ref());
        let Some(LowRank { a, b }) = place else { return Ok(()) };
        let tokens = x.len() / a.cols.max(1);
        let LoraBuffers { input, low, middle, out: added } = buffers;
        input.load(x, tokens, a.cols);
        low.resize(tokens * a.rows, 0.0);
        a.multiply(team, input, ActivationForm::F32, low)?;
        middle.load(low, tokens, a.rows);
        added.resize(out.len(), 0.0);
        b.multiply(team, middle, ActivationForm::F32, added)?;
        kernels::ops::add(out, added);
        Ok(())
    }

    /// Adds what each adapter adds to the matrix beside it, which is then in `row_type`, a type of floats: the model without
    /// adapters gives the same logits, but for the rounding of that type.
    ///
    /// # Errors
    /// Matrices in tiles, or in a type that cannot be written.
    pub(crate) fn merge(&self, weights: &mut Weights, row_type: RowType) -> Result<(), EngineError> {
        for (layer, adapters) in weights.layers.iter_mut().zip(&self.layers) {
            for (linear, low_rank) in layer.linears_mut().into_iter().zip(adapters) {
                if let Some(low_rank) = low_rank {
                    low_rank.merge(linear, row_type)?;
                }
            }
        }
        Ok(())
    }
}

impl LowRank {
    fn merge(&self, linear: &mut Linear, row_type: RowType) -> Result<(), EngineError> {
        let weight = &mut linear.weight;
        let mut values = weight.to_values()?;
        let (a, b) = (self.a.to_values()?, self.b.to_values()?);
        let rank = self.a.rows;
        for (row, b) in values.chunks_exact_mut(weight.cols).zip(b.chunks_exact(rank)) {
            for (&b, a) in b.iter().zip(a.chunks_exact(weight.cols)) {
                row.iter_mut().zip(a).for_each(|(w, a)| *w += b * a);
            }
        }
        let shape = (weight.rows, weight.cols);
        let refused = |problem: String| EngineError::Request(format!("{}: {problem}", weight.name));
        let row_bytes = row_type.row_bytes(weight.cols).unwrap_or(0);
        let mut bytes = vec![0; weight.rows * row_bytes];
        for (row, out) in values.chunks_exact(weight.cols).zip(bytes.chunks_exact_mut(row_bytes.max(1))) {
            kernels::codec::quantize_row(row_type, row, out).map_err(|e| refused(e.to_string()))?;
        }
        *weight = WeightMatrix::owned(weight.name.clone(), row_type, shape, bytes)?;
        Ok(())
    }
}

/// Rows of heads whose elements are turned half a head apart, in the order of a model that turns neighbours.
fn to_neighbours(rows: &[f32], cols: usize, head_dim: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let source = |r: usize| r / head_dim * head_dim + r % 2 * half + r % head_dim / 2;
    (0..rows.len() / cols.max(1)).flat_map(|r| &rows[source(r) * cols..][..cols]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_half_a_head_apart_become_neighbours() {
        let rows: Vec<f32> = (0..12).map(|r| r as f32).collect();
        let want = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11].map(|r: u8| f32::from(r));
        assert_eq!(to_neighbours(&rows, 1, 6), want);
    }
}
