//! What an architecture is, in data: one forward pass reads it all from here.

mod gguf;
mod hf;

mod llama2c;

use std::fmt;

pub use kernels::ops::Activation;
pub use kernels::rope::Pairing;

/// The families of models that we run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 1, 2, 3.x and everything shaped like them (SmolLM2, TinyLlama, stories).
    Llama,
    /// Qwen2 and Qwen2.5: biases on q, k, v.
    Qwen2,
    /// Qwen3: a norm on each query and key head.
    Qwen3,
    /// BitNet b1.58: ternary linear layers on int8 activations, sub-norms.
    BitNet,
    /// bitllama2.c: BitNet's linear layers with norms without weights, SwiGLU.
    Bitllama,
    /// Gemma 3 text: GeGLU, norms before and after each block, sliding windows.
    Gemma3,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Llama, Self::Qwen2, Self::Qwen3, Self::BitNet, Self::Bitllama, Self::Gemma3];

    /// Our name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::BitNet => "bitnet",
            Self::Bitllama => "bitllama",
            Self::Gemma3 => "gemma3",
        }
    }

    /// What an error says when a model is none of them.
    pub fn known() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// From `general.architecture` of a GGUF file or `model_type` of a `config.json`.
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "llama" => Some(Self::Llama),
            "qwen2" => Some(Self::Qwen2),
            "qwen3" => Some(Self::Qwen3),
            "bitnet" | "bitnet-b1.58" | "bitnet-25" => Some(Self::BitNet),
            "gemma3" | "gemma3_text" => Some(Self::Gemma3),
            _ => None,
        }
    }

    /// Whether the attention's and the feed-forward's outputs are normed before their last matrix.
    pub fn has_sub_norms(self) -> bool {
        matches!(self, Self::BitNet | Self::Bitllama)
    }

    /// Whether a norm follows the attention and the feed-forward before they are added to the residual.
    pub fn has_post_norms(self) -> bool {
        self == Self::Gemma3
    }

    /// Whether each query and key head is normed before RoPE.
    pub fn has_qk_norms(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Gemma3)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How RoPE's frequencies are changed for contexts longer than those of the first training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Positions divided by a factor.
    Linear {
        /// The factor.
        factor: f32,
    },
    /// Llama 3.1 and later: low frequencies divided by the factor, high ones kept, a ramp between
    /// (`_compute_llama3_parameters` of transformers).
    Llama3 {
        /// What low frequencies are divided by.
        factor: f32,
        /// Wavelengths longer than the original context over this are low.
        low_freq_factor: f32,
        /// Wavelengths shorter than the original context over this are high.
        high_freq_factor: f32,
        /// Context of the first training, in tokens.
        original_context: f32,
    },
}

/// RoPE of some layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies: theta^(-2i / head_dim).
    pub theta: f32,
    /// Change of the frequencies, if any.
    pub scaling: Option<RopeScaling>,
    /// Divisors of the frequencies given by the file (`rope_freqs.weight`), `[head_dim / 2]`.
    pub divisors: Option<Vec<f32>>,
}

impl Rope {
    /// Plain RoPE with this base.
    pub fn new(theta: f32) -> Self {
        Self { theta, scaling: None, divisors: None }
    }

    /// `[head_dim / 2]` frequencies in radians a position.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let frequency = |i: usize| f64::from(self.theta).powf(-2.0 * i as f64 / head_dim as f64) as f32;
        let scaled = |f: f32| match self.scaling {
            None => f,
            Some(RopeScaling::Linear { factor }) => f / factor,
            Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context }) => {
                let wavelength = 2.0 * std::f32::consts::PI / f;
                if wavelength > original_context / low_freq_factor {
                    f / factor
                } else if wavelength < original_context / high_freq_factor {
                    f
                } else {
                    let smooth = (original_context / wavelength - low_freq_factor)
                        / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * f / factor + smooth * f
                }
            }
        };
        let divisor = |i: usize| self.divisors.as_ref().and_then(|d| d.get(i)).copied().unwrap_or(1.0);
        (0..head_dim / 2).map(|i| scaled(frequency(i)) / divisor(i)).collect()
    }
}

/// Layers that see only the last `window` positions, and turn by their own RoPE.
#[derive(Debug, Clone, PartialEq)]
pub struct SlidingWindow {
    /// Positions that such a layer sees, its own included.
    pub window: usize,
    /// For each layer whether it is such a layer.
    pub layers: Vec<bool>,
    /// RoPE of these layers.
    pub rope: Rope,
}

/// Everything about a model but its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Its family.
    pub architecture: Architecture,
    /// Length of the hidden state.
    pub dim: usize,
    /// Length of the feed-forward's hidden state.
    pub hidden_dim: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Length of a head; `dim / n_heads` unless the model says otherwise.
    pub head_dim: usize,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest context that the model was made for.
    pub seq_len: usize,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
    /// Non-linearity of the feed-forward.
    pub activation: Activation,
    /// Which elements RoPE rotates together.
    pub pairing: Pairing,
    /// RoPE of all layers but sliding ones.
    pub rope: Rope,
    /// Layers with a sliding window, if any.
    pub sliding_window: Option<SlidingWindow>,
    /// Factor on the embedding.
    pub embedding_scale: f32,
    /// Factor on the attention scores.
    pub attention_scale: f32,
    /// Whether the inputs of the linear layers are rounded to int8 by the token (BitNet b1.58's activations).
    pub int8_linear: bool,
    /// Added to the weights of every norm as the file has them (1 for Gemma's safetensors).
    pub norm_weight_offset: f32,
}

impl ModelConfig {
    /// Length of a token's keys (and of its values): `n_kv_heads * head_dim`.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Length of a token's queries: `n_heads * head_dim`.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Checks what the forward pass relies on. The error names the field.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, problem: String| Err((field.to_owned(), problem));
        let sizes = [
            ("dim", self.dim, 1 << 20),
            ("hidden_dim", self.hidden_dim, 1 << 22),
            ("n_layers", self.n_layers, 4096),
            ("n_heads", self.n_heads, 1 << 16),
            ("n_kv_heads", self.n_kv_heads, 1 << 16),
            ("head_dim", self.head_dim, 1 << 16),
            ("vocab_size", self.vocab_size, 1 << 24),
            ("seq_len", self.seq_len, 1 << 28),
        ];
        for (field, value, limit) in sizes {
            if value == 0 || value > limit {
                return wrong(field, format!("{value} is not between 1 and {limit}"));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return wrong(
                "n_kv_heads",
                format!("{} does not divide {} heads", self.n_kv_heads, self.n_heads),
            );
        }
        if !self.head_dim.is_multiple_of(2) {
            return wrong("head_dim", format!("{} is odd: RoPE rotates pairs", self.head_dim));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return wrong("norm_eps", format!("{} is not a small positive number", self.norm_eps));
        }
        for rope in std::iter::once(&self.rope).chain(self.sliding_window.as_ref().map(|s| &s.rope)) {
            if !(rope.theta.is_finite() && rope.theta > 0.0) {
                return wrong("rope_theta", format!("{} is not a positive number", rope.theta));
            }
            if rope.divisors.as_ref().is_some_and(|d| d.len() != self.head_dim / 2) {
                return wrong("rope_freqs", format!("not {} divisors", self.head_dim / 2));
            }
            if rope.inverse_frequencies(self.head_dim).iter().any(|f| !f.is_finite()) {
                return wrong("rope_scaling", "gives frequencies that are not finite".to_owned());
            }
        }
        if let Some(sliding) = &self.sliding_window
            && (sliding.window == 0 || sliding.layers.len() != self.n_layers)
        {
            return wrong("sliding_window", format!("{} positions", sliding.window));
        }
        for (field, factor) in
            [("embedding_scale", self.embedding_scale), ("attention_scale", self.attention_scale)]
        {
            if !(factor.is_finite() && factor > 0.0) {
                return wrong(field, format!("{factor} is not a positive number"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_high_and_divides_low_frequencies() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192.0,
        };
        let plain = Rope::new(500_000.0).inverse_frequencies(128);
        let scaled = Rope { scaling: Some(scaling), ..Rope::new(500_000.0) }.inverse_frequencies(128);
        assert_eq!(plain[0], scaled[0]);
        assert_eq!(plain[63] / 8.0, scaled[63]);
        assert!(plain.iter().zip(&scaled).all(|(p, s)| s <= p && *s >= p / 8.0));
    }
}
