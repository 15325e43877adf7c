//! Configuration from Hugging Face's `config.json`, with transformers' defaults where it is silent.

use std::path::Path;

use formats::hf::{self, HfConfig};

use super::{Activation, Architecture, ModelConfig, Pairing, Rope, RopeScaling, SlidingWindow};
use crate::error::EngineError;

impl ModelConfig {
    /// Reads the fields; a missing one that has no default is an error that names it, and so is a value that
    /// would change the forward pass in a way that we do not have.
    pub(crate) fn from_hf(path: &Path, hf: &HfConfig) -> Result<Self, EngineError> {
        let fields = Fields { path, hf };
        let Some(architecture) = Architecture::from_name(&hf.model_type) else {
            return Err(EngineError::UnknownArchitecture {
                path: path.to_owned(),
                name: hf.model_type.clone(),
                known: Architecture::known(),
            });
        };
        let gemma = architecture == Architecture::Gemma3;
        let dim = fields.need("hidden_size", hf.hidden_size)?;
        let n_layers = fields.need("num_hidden_layers", hf.num_hidden_layers)?;
        let n_heads = fields.need("num_attention_heads", hf.num_attention_heads)?;
        let default_head_dim = match architecture {
            Architecture::Qwen3 => 128,
            Architecture::Gemma3 => 256,
            _ => dim.checked_div(n_heads).unwrap_or(0),
        };
        let head_dim = fields.size("head_dim", hf.head_dim)?.unwrap_or(default_head_dim);
        for (name, value) in [
            ("attn_logit_softcapping", hf.attn_logit_softcapping),
            ("final_logit_softcapping", hf.final_logit_softcapping),
        ] {
            if value.is_some() {
                return Err(fields.wrong(name, "soft-capped logits are not supported".to_owned()));
            }
        }
        let scalar = hf.query_pre_attn_scalar.unwrap_or(if gemma { 256.0 } else { head_dim as f64 });
        Ok(Self {
            architecture,
            dim,
            hidden_dim: fields.need("intermediate_size", hf.intermediate_size)?,
            n_layers,
            n_heads,
            n_kv_heads: fields.size("num_key_value_heads", hf.num_key_value_heads)?.unwrap_or(n_heads),
            head_dim,
            vocab_size: fields.need("vocab_size", hf.vocab_size)?,
            seq_len: fields.size("max_position_embeddings", hf.max_position_embeddings)?.unwrap_or(2048),
            norm_eps: hf.rms_norm_eps.unwrap_or(1e-6) as f32,
            activation: fields.activation(architecture)?,
            pairing: Pairing::Half,
            rope: fields.rope("rope_parameters", &hf.rope, if gemma { 1e6 } else { 10_000.0 })?,
            sliding_window: fields.sliding_window(gemma, n_layers)?,
            embedding_scale: if gemma { (dim as f32).sqrt() } else { 1.0 },
            attention_scale: 1.0 / scalar.sqrt() as f32,
            int8_linear: architecture == Architecture::BitNet && hf.quantization_config.is_some(),
            norm_weight_offset: if gemma { 1.0 } else { 0.0 },
        })
    }
}

struct Fields<'a> {
    path: &'a Path,
    hf: &'a HfConfig,
}

impl Fields<'_> {
    fn wrong(&self, field: &str, problem: String) -> EngineError {
        EngineError::Config { path: self.path.to_owned(), field: field.to_owned(), problem }
    }

    fn size(&self, field: &str, value: Option<u64>) -> Result<Option<usize>, EngineError> {
        let fits = |v| usize::try_from(v).map_err(|_| self.wrong(field, format!("{v} is too large")));
        value.map(fits).transpose()
    }

    fn need(&self, field: &str, value: Option<u64>) -> Result<usize, EngineError> {
        self.size(field, value)?.ok_or_else(|| self.wrong(field, "is missing".to_owned()))
    }

    fn activation(&self, architecture: Architecture) -> Result<Activation, EngineError> {
        match (self.hf.hidden_act.as_deref(), architecture) {
            (Some("silu" | "swish"), _) => Ok(Activation::Silu),
            (Some("relu2"), _) => Ok(Activation::Relu2),
            (Some("gelu_pytorch_tanh"), _) | (None, Architecture::Gemma3) => Ok(Activation::GeluTanh),
            (None, Architecture::BitNet) => Ok(Activation::Relu2),
            (None, _) => Ok(Activation::Silu),
            (Some(other), _) => Err(self.wrong(
                "hidden_act",
                format!("{other:?} is not supported; known are silu, relu2, gelu_pytorch_tanh"),
            )),
        }
    }

    fn rope(&self, field: &str, rope: &hf::Rope, default_theta: f64) -> Result<Rope, EngineError> {
        let need = |name: &str, value: Option<f64>| {
            let problem = || self.wrong(&format!("{field}.{name}"), "is missing".to_owned());
            value.map(|v| v as f32).ok_or_else(problem)
        };
        let scaling = match rope.rope_type.as_deref() {
            None | Some("default") => None,
            Some("linear") => Some(RopeScaling::Linear { factor: need("factor", rope.factor)? }),
            Some("llama3") => Some(RopeScaling::Llama3 {
                factor: need("factor", rope.factor)?,
                low_freq_factor: need("low_freq_factor", rope.low_freq_factor)?,
                high_freq_factor: need("high_freq_factor", rope.high_freq_factor)?,
                original_context: need(
                    "original_max_position_embeddings",
                    rope.original_max_position_embeddings.map(|v| v as f64),
                )?,
            }),
            Some(other) => {
                return Err(self.wrong(
                    &format!("{field}.rope_type"),
                    format!("{other:?} is not supported; known are default, linear, llama3"),
                ));
            }
        };
        Ok(Rope { scaling, ..Rope::new(rope.rope_theta.unwrap_or(default_theta) as f32) })
    }

    fn sliding_window(&self, gemma: bool, n_layers: usize) -> Result<Option<SlidingWindow>, EngineError> {
        let Some(window) = self.size("sliding_window", self.hf.sliding_window)? else { return Ok(None) };
        let layers: Vec<bool> = match (&self.hf.layer_types, gemma) {
            (Some(types), _) => types.iter().map(|t| t == "sliding_attention").collect(),
            (None, true) => {
                let pattern =
                    self.size("sliding_window_pattern", self.hf.sliding_window_pattern)?.unwrap_or(6);
                if pattern == 0 {
                    return Err(self.wrong("sliding_window_pattern", "is 0".to_owned()));
                }
                (0..n_layers.min(4096)).map(|layer| (layer + 1) % pattern != 0).collect()
            }
            (None, false) => {
                return Err(self.wrong("layer_types", "is missing beside sliding_window".to_owned()));
            }
        };
        if layers.len() != n_layers {
            return Err(
                self.wrong("layer_types", format!("has {} entries for {n_layers} layers", layers.len()))
            );
        }
        let rope = match &self.hf.local_rope {
            Some(local) => self.rope("rope_local", local, 10_000.0)?,
            None if gemma => Rope::new(10_000.0),
            None => self.rope("rope_parameters", &self.hf.rope, 10_000.0)?,
        };
        Ok(layers.contains(&true).then_some(SlidingWindow { window, layers, rope }))
    }
}
