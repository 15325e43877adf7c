//! The tensors of a loaded model by what they are for, and the order of their rows.

use engine::config::Pairing;
use engine::names::{Global, Part};
use engine::weights::{Layer, Linear, WeightMatrix};
use engine::{Model, ModelConfig};

/// Every kind of tensor that a layer may have, in the order in which llama.cpp's converters write them.
pub(crate) const PARTS: [Part; 15] = [
    Part::RmsAtt,
    Part::Wq,
    Part::QNorm,
    Part::Wk,
    Part::KNorm,
    Part::Wv,
    Part::AttnSubNorm,
    Part::Wo,
    Part::PostAttNorm,
    Part::RmsFfn,
    Part::W1,
    Part::W3,
    Part::FfnSubNorm,
    Part::W2,
    Part::PostFfnNorm,
];

/// A tensor of the model.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tensor<'a> {
    /// Rows of weights, in the order in which the target has them.
    Matrix(&'a WeightMatrix, RowOrder),
    /// Norm weights or a bias, likewise.
    Vector(&'a [f32], RowOrder),
}

/// Which row of the model becomes which of the target's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// The same.
    Kept,
    /// From pairs (i, i + head_dim / 2) to neighbours, in each head.
    HalfToAdjacent {
        /// Rows of a head.
        head_dim: usize,
    },
    /// From neighbours to pairs (i, i + head_dim / 2), in each head.
    AdjacentToHalf {
        /// Rows of a head.
        head_dim: usize,
    },
}

impl RowOrder {
    /// For queries and keys of this model in a target with this pairing.
    pub(crate) fn between(config: &ModelConfig, target: Pairing) -> Self {
        let head_dim = config.head_dim;
        match (config.pairing, target) {
            (Pairing::Half, Pairing::Adjacent) => Self::HalfToAdjacent { head_dim },
            (Pairing::Adjacent, Pairing::Half) => Self::AdjacentToHalf { head_dim },
            _ => Self::Kept,
        }
    }

    /// The row of the model that becomes row `row` of the target.
    pub(crate) fn source(self, row: usize) -> usize {
        let in_head = |head_dim: usize, place: fn(usize, usize) -> usize| {
            row / head_dim * head_dim + place(row % head_dim, head_dim / 2)
        };
        match self {
            Self::Kept => row,
            Self::HalfToAdjacent { head_dim } => in_head(head_dim, |i, half| i % 2 * half + i / 2),
            Self::AdjacentToHalf { head_dim } => {
                in_head(head_dim, |i, half| if i < half { 2 * i } else { 2 * (i - half) + 1 })
            }
        }
    }
}

/// A part of a layer, if this layer has it. `rotated` is the order of queries and keys.
pub(crate) fn of_layer(layer: &Layer, part: Part, rotated: RowOrder) -> Option<Tensor<'_>> {
    if let Some((linear, order)) = linear(layer, part, rotated) {
        return Some(Tensor::Matrix(&linear.weight, order));
    }
    let (values, order) = match part {
        Part::RmsAtt => (Some(&layer.rms_att), RowOrder::Kept),
        Part::QNorm => (layer.q_norm.as_ref(), rotated),
        Part::KNorm => (layer.k_norm.as_ref(), rotated),
        Part::AttnSubNorm => (layer.attn_sub_norm.as_ref(), RowOrder::Kept),
        Part::PostAttNorm => (layer.post_att_norm.as_ref(), RowOrder::Kept),
        Part::RmsFfn => (Some(&layer.rms_ffn), RowOrder::Kept),
        Part::FfnSubNorm => (layer.ffn_sub_norm.as_ref(), RowOrder::Kept),
        Part::PostFfnNorm => (layer.post_ffn_norm.as_ref(), RowOrder::Kept),
        Part::Wq | Part::Wk | Part::Wv | Part::Wo | Part::W1 | Part::W2 | Part::W3 => (None, RowOrder::Kept),
    };
    Some(Tensor::Vector(values?, order))
}

/// The bias of a part, if it has one.
pub(crate) fn bias(layer: &Layer, part: Part, rotated: RowOrder) -> Option<Tensor<'_>> {
    let (linear, order) = linear(layer, part, rotated)?;
    Some(Tensor::Vector(linear.bias.as_ref()?, order))
}

fn linear(layer: &Layer, part: Part, rotated: RowOrder) -> Option<(&Linear, RowOrder)> {
    Some(match part {
        Part::Wq => (&layer.wq, rotated),
        Part::Wk => (&layer.wk, rotated),
        Part::Wv => (&layer.wv, RowOrder::Kept),
        Part::Wo => (&layer.wo, RowOrder::Kept),
        Part::W1 => (&layer.w1, RowOrder::Kept),
        Part::W2 => (&layer.w2, RowOrder::Kept),
        Part::W3 => (&layer.w3, RowOrder::Kept),
        _ => return None,
    })
}

/// A tensor outside the layers. A model whose classifier is its embedding has no `Wcls`.
pub(crate) fn global(model: &Model, global: Global) -> Option<Tensor<'_>> {
    let weights = &model.weights;
    Some(match global {
        Global::TokenEmbedding => Tensor::Matrix(&weights.token_embedding, RowOrder::Kept),
        Global::RmsFinal => Tensor::Vector(&weights.rms_final, RowOrder::Kept),
        Global::Wcls => Tensor::Matrix(weights.wcls.as_ref()?, RowOrder::Kept),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_orders_undo_each_other() {
        let (there, back) =
            (RowOrder::HalfToAdjacent { head_dim: 6 }, RowOrder::AdjacentToHalf { head_dim: 6 });
        assert_eq!((0..6).map(|r| there.source(r)).collect::<Vec<_>>(), [0, 3, 1, 4, 2, 5]);
        assert!((0..24).all(|r| there.source(back.source(r)) == r && back.source(there.source(r)) == r));
    }
}
