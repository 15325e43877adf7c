//! Where each tensor lies in the one vector that holds all parameters, and what it is called in Hugging Face's files.

use std::ops::Range;

use super::shape::Shape;

/// What a tensor is, which decides how it is initialized, rounded and optimized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `[vocab_size, dim]`, looked up; also the classifier of a tied model.
    Embedding,
    /// `[dim]` or another length: factors of a norm.
    Norm,
    /// `[out, in]`, a linear layer inside the model.
    Linear,
    /// `[vocab_size, dim]`, the classifier of a model that is not tied.
    Head,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Embedding, Self::Norm, Self::Linear, Self::Head];
}

/// A tensor of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// As in Hugging Face's files.
    pub name: String,
    /// Rows; 1 for a norm.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// What it is.
    pub kind: Kind,
    /// Where it lies.
    pub range: Range<usize>,
}

/// Index of a tensor in [`Layout::tensors`].
pub(crate) type Id = usize;

/// The tensors of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerIds {
    pub(crate) input_norm: Id,
    pub(crate) q: Id,
    pub(crate) k: Id,
    pub(crate) v: Id,
    pub(crate) attn_sub_norm: Option<Id>,
    pub(crate) o: Id,
    pub(crate) post_norm: Id,
    pub(crate) gate: Id,
    pub(crate) up: Id,
    pub(crate) ffn_sub_norm: Option<Id>,
    pub(crate) down: Id,
}

/// All tensors of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// In the order in which they lie.
    pub tensors: Vec<Tensor>,
    pub(crate) embedding: Id,
    pub(crate) layers: Vec<LayerIds>,
    pub(crate) norm: Id,
    pub(crate) head: Id,
}

impl Layout {
    /// The tensors of a model of this shape.
    pub fn new(shape: &Shape) -> Self {
        let mut tensors: Vec<Tensor> = Vec::new();
        let mut add = |name: String, rows: usize, cols: usize, kind| {
            let start = tensors.last().map_or(0, |t| t.range.end);
            tensors.push(Tensor { name, rows, cols, kind, range: start..start + rows * cols });
            tensors.len() - 1
        };
        let (dim, hidden, kv) = (shape.dim, shape.hidden_dim, shape.kv_dim());
        let embedding = add("model.embed_tokens.weight".into(), shape.vocab_size, dim, Kind::Embedding);
        let layers = (0..shape.n_layers).map(|layer| {
            let mut part = |part: &str, rows, cols, kind| {
                add(format!("model.layers.{layer}.{part}.weight"), rows, cols, kind)
            };
            LayerIds {
                input_norm: part("input_layernorm", 1, dim, Kind::Norm),
                q: part("self_attn.q_proj", dim, dim, Kind::Linear),
                k: part("self_attn.k_proj", kv, dim, Kind::Linear),
                v: part("self_attn.v_proj", kv, dim, Kind::Linear),
                attn_sub_norm: shape.sub_norms.then(|| part("self_attn.attn_sub_norm", 1, dim, Kind::Norm)),
                o: part("self_attn.o_proj", dim, dim, Kind::Linear),
                post_norm: part("post_attention_layernorm", 1, dim, Kind::Norm),
                gate: part("mlp.gate_proj", hidden, dim, Kind::Linear),
                up: part("mlp.up_proj", hidden, dim, Kind::Linear),
                ffn_sub_norm: shape.sub_norms.then(|| part("mlp.ffn_sub_norm", 1, hidden, Kind::Norm)),
                down: part("mlp.down_proj", dim, hidden, Kind::Linear),
            }
        });
        let layers = layers.collect();
        let norm = add("model.norm.weight".into(), 1, dim, Kind::Norm);
        let head = match shape.tied {
            true => embedding,
            false => add("lm_head.weight".into(), shape.vocab_size, dim, Kind::Head),
        };
        Self { tensors, embedding, layers, norm, head }
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.tensors.last().map_or(0, |t| t.range.end)
    }

    /// Whether there is nothing, which is never so for a checked shape.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
