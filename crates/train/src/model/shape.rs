//! What is trained, in data: the same names as `engine::ModelConfig`, and only what a backward pass is written for.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Non-linearity of the feed-forward, which is always gated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// x * sigmoid(x): SwiGLU.
    Silu,
    /// max(x, 0)^2: BitNet b1.58.
    Relu2,
}

/// Sizes and kinds of a Llama-like model. RoPE pairs elements half a head apart, as Hugging Face's files have them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Length of the hidden state.
    pub dim: usize,
    /// Length of the feed-forward's hidden state.
    pub hidden_dim: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Query heads; each is `dim / n_heads` long.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest context, in tokens.
    pub seq_len: usize,
    /// Added to the mean square in every norm.
    #[serde(default = "default_norm_eps")]
    pub norm_eps: f32,
    /// Base of RoPE's frequencies.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f32,
    /// Non-linearity of the feed-forward.
    pub activation: Activation,
    /// Whether the attention's and the feed-forward's outputs are normed before their last matrix (BitNet b1.58).
    pub sub_norms: bool,
    /// Whether the embedding is the classifier, too.
    #[serde(default = "default_tied")]
    pub tied: bool,
    /// Whether the linear layers are BitNet b1.58's: ternary weights, activations of 8 bits, straight-through gradients.
    pub ternary: bool,
}

fn default_norm_eps() -> f32 {
    1e-5
}

fn default_rope_theta() -> f32 {
    10_000.0
}

fn default_tied() -> bool {
    true
}

/// A shape that no model has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct ShapeError {
    /// Name of the field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl Shape {
    /// Length of a head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.n_heads.max(1)
    }

    /// Length of a token's keys, and of its values.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim()
    }

    /// Checks what the passes rely on.
    ///
    /// # Errors
    /// The first field that is 0, too large, or does not go with another.
    pub fn check(&self) -> Result<(), ShapeError> {
        let wrong = |field, problem: String| Err(ShapeError { field, problem });
        let sizes = [
            ("dim", self.dim, 1 << 16),
            ("hidden_dim", self.hidden_dim, 1 << 18),
            ("n_layers", self.n_layers, 1 << 10),
            ("n_heads", self.n_heads, 1 << 12),
            ("n_kv_heads", self.n_kv_heads, 1 << 12),
            ("vocab_size", self.vocab_size, 1 << 20),
            ("seq_len", self.seq_len, 1 << 20),
        ];
        for (field, value, limit) in sizes {
            if value == 0 || value > limit {
                return wrong(field, format!("{value} is not between 1 and {limit}"));
            }
        }
        if !self.dim.is_multiple_of(self.n_heads) || !self.head_dim().is_multiple_of(2) {
            return wrong(
                "n_heads",
                format!("{} heads of even length do not make {}", self.n_heads, self.dim),
            );
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return wrong(
                "n_kv_heads",
                format!("{} does not divide {} heads", self.n_kv_heads, self.n_heads),
            );
        }
        for (field, value) in [("norm_eps", self.norm_eps), ("rope_theta", self.rope_theta)] {
            if !(value.is_finite() && value > 0.0) {
                return wrong(field, format!("{value} is not a positive number"));
            }
        }
        Ok(())
    }
}
