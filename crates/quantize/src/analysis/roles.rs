//! Tensors of two models that do the same in each, whatever their files call them.

use engine::names::{Global, Naming, Part};
use engine::{Model, ModelConfig};

use super::error::AnalysisError;
use crate::convert::parts::{PARTS, RowOrder, Tensor, bias, global, of_layer};

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Outside the layers.
    Global(Global),
    /// The weights of a part of a layer.
    Weight(usize, Part),
    /// Its bias.
    Bias(usize, Part),
}

/// The names that parts have in the report: those of llama2.c.
fn part_name(part: Part) -> String {
    // The architecture matters only to the names of Hugging Face.
    let name = Naming::Llama2c.part(engine::config::Architecture::Llama, 0, part);
    name.trim_start_matches("layers.0.").to_owned()
}

impl Role {
    /// Every tensor that a model of `n_layers` layers may have.
    pub(super) fn all(n_layers: usize) -> impl Iterator<Item = Self> {
        let layer = |l| PARTS.into_iter().flat_map(move |part| [Self::Weight(l, part), Self::Bias(l, part)]);
        std::iter::once(Self::Global(Global::TokenEmbedding))
            .chain((0..n_layers).flat_map(layer))
            .chain([Self::Global(Global::RmsFinal), Self::Global(Global::Wcls)])
    }

    /// The layer, if it belongs to one.
    pub(super) fn layer(self) -> Option<usize> {
        match self {
            Self::Global(_) => None,
            Self::Weight(layer, _) | Self::Bias(layer, _) => Some(layer),
        }
    }

    /// What it is in its layer or in the model: `wq`, `wq.bias`, `token_embedding`.
    pub(super) fn kind(self) -> String {
        match self {
            Self::Global(global) => Naming::Llama2c.global(global).to_owned(),
            Self::Weight(_, part) => part_name(part),
            Self::Bias(_, part) => format!("{}.bias", part_name(part)),
        }
    }

    /// Its name in the report.
    pub(super) fn name(self) -> String {
        match self.layer() {
            Some(layer) => format!("layers.{layer}.{}", self.kind()),
            None => self.kind(),
        }
    }

    /// Whether it is a matrix of a layer.
    pub(super) fn is_linear(self) -> bool {
        use Part::{W1, W2, W3, Wk, Wo, Wq, Wv};
        matches!(self, Self::Weight(_, Wq | Wk | Wv | Wo | W1 | W2 | W3))
    }

    /// The model's tensor, its rows in the order that `rotated` gives queries and keys.
    pub(super) fn of(self, model: &Model, rotated: RowOrder) -> Option<Tensor<'_>> {
        let layer = |l: usize| model.weights.layers.get(l);
        match self {
            Self::Global(of) => global(model, of),
            Self::Weight(l, part) => of_layer(layer(l)?, part, rotated),
            Self::Bias(l, part) => bias(layer(l)?, part, rotated),
        }
    }

    /// The same; of a model whose classifier is its embedding that.
    pub(super) fn used_by(self, model: &Model, rotated: RowOrder) -> Option<Tensor<'_>> {
        let tied = || Tensor::Matrix(model.weights.classifier(), RowOrder::Kept);
        match self {
            Self::Global(Global::Wcls) => Some(tied()),
            _ => self.of(model, rotated),
        }
    }
}

/// Refuses models that are not the same before and after.
pub(super) fn check_same(original: &Model, quantized: &Model) -> Result<(), AnalysisError> {
    let fields = |c: &ModelConfig| -> [(&'static str, String); 9] {
        [
            ("architecture", c.architecture.to_string()),
            ("vocab_size", c.vocab_size.to_string()),
            ("dim", c.dim.to_string()),
            ("hidden_dim", c.hidden_dim.to_string()),
            ("n_layers", c.n_layers.to_string()),
            ("n_heads", c.n_heads.to_string()),
            ("n_kv_heads", c.n_kv_heads.to_string()),
            ("head_dim", c.head_dim.to_string()),
            ("rope theta", c.rope.theta.to_string()),
        ]
    };
    for ((field, wanted), (_, found)) in fields(&original.config).into_iter().zip(fields(&quantized.config)) {
        if found != wanted {
            return Err(AnalysisError::Differs { path: quantized.info.path.clone(), field, found, wanted });
        }
    }
    Ok(())
}
