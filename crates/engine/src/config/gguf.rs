//! Configuration from the metadata of a GGUF file (`docs/gguf.md` of ggml names the keys).

use std::path::Path;

use formats::FormatError;
use formats::gguf::{Gguf, Value};

use super::{Activation, Architecture, ModelConfig, Pairing, Rope, RopeScaling, SlidingWindow};
use crate::error::EngineError;

impl ModelConfig {
    /// Reads the keys of the file's architecture; a missing one that has no default is an error that names it.
    pub(crate) fn from_gguf(path: &Path, gguf: &Gguf<'_>) -> Result<Self, EngineError> {
        let keys = Keys { path, gguf, name: gguf_architecture(path, gguf)? };
        let Some(architecture) = Architecture::from_name(keys.name) else {
            return Err(EngineError::UnknownArchitecture {
                path: path.to_owned(),
                name: keys.name.to_owned(),
                known: Architecture::known(),
            });
        };
        let dim = keys.need("embedding_length")?;
        let n_heads = keys.need("attention.head_count")?;
        let n_layers = keys.need("block_count")?;
        let head_dim = match keys.int("attention.key_length")? {
            Some(length) => length,
            None => dim.checked_div(n_heads).unwrap_or(0),
        };
        for (key, whole) in [("rope.dimension_count", head_dim), ("attention.value_length", head_dim)] {
            if let Some(value) = keys.int(key)?
                && value != whole
            {
                return Err(keys.wrong(key, format!("{value} of a head of {head_dim} is not supported")));
            }
        }
        let gemma = architecture == Architecture::Gemma3;
        // The llama family interleaves queries and keys for adjacent pairs when it is converted.
        let pairing = if architecture == Architecture::Llama { Pairing::Adjacent } else { Pairing::Half };
        let rope = Rope {
            theta: keys.float("rope.freq_base")?.unwrap_or(10_000.0),
            scaling: keys.rope_scaling()?,
            divisors: None,
        };
        Ok(Self {
            architecture,
            dim,
            hidden_dim: keys.need("feed_forward_length")?,
            n_layers,
            n_heads,
            n_kv_heads: keys.int("attention.head_count_kv")?.unwrap_or(n_heads),
            head_dim,
            vocab_size: keys.vocab_size()?,
            seq_len: keys.need("context_length")?,
            norm_eps: keys.float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5),
            activation: match architecture {
                Architecture::Gemma3 => Activation::GeluTanh,
                // The first BitNet models (1bitLLM, "bitnet") use SiLU; b1.58 2B-4T squares a ReLU.
                Architecture::BitNet if keys.name != "bitnet" => Activation::Relu2,
                _ => Activation::Silu,
            },
            pairing,
            sliding_window: if gemma { keys.gemma_window(n_layers)? } else { None },
            rope,
            embedding_scale: if gemma { (dim as f32).sqrt() } else { 1.0 },
            attention_scale: 1.0 / (head_dim as f32).sqrt(),
            int8_linear: architecture == Architecture::BitNet,
            norm_weight_offset: 0.0,
        })
    }
}

fn gguf_architecture<'a>(path: &Path, gguf: &Gguf<'a>) -> Result<&'a str, EngineError> {
    let wrong = |source| EngineError::Format { path: path.to_owned(), source };
    gguf.str("general.architecture").map_err(wrong)?.ok_or_else(|| EngineError::Config {
        path: path.to_owned(),
        field: "general.architecture".to_owned(),
        problem: "is missing".to_owned(),
    })
}

/// Reads keys below the architecture's name.
struct Keys<'a, 'g> {
    path: &'a Path,
    gguf: &'a Gguf<'g>,
    name: &'g str,
}

impl Keys<'_, '_> {
    fn int(&self, key: &str) -> Result<Option<usize>, EngineError> {
        let full = format!("{}.{key}", self.name);
        // Some files give one value a layer; a model whose layers differ is not one that we run.
        if let Ok(Some(array)) = self.gguf.array(&full) {
            let mut values = array.u32s().map_err(|e| self.format(e))?;
            let first = values.next();
            if !values.all(|v| Some(v) == first) {
                return Err(self.wrong(key, "differs between layers, which is not supported".to_owned()));
            }
            return Ok(first.map(|v| v as usize));
        }
        let value = self.gguf.u64(&full).map_err(|e| self.format(e))?;
        value
            .map(|v| usize::try_from(v).map_err(|_| self.wrong(key, format!("{v} is too large"))))
            .transpose()
    }

    fn need(&self, key: &str) -> Result<usize, EngineError> {
        self.int(key)?.ok_or_else(|| self.wrong(key, "is missing".to_owned()))
    }

    fn float(&self, key: &str) -> Result<Option<f32>, EngineError> {
        self.gguf.f32(&format!("{}.{key}", self.name)).map_err(|e| self.format(e))
    }

    fn rope_scaling(&self) -> Result<Option<RopeScaling>, EngineError> {
        let kind = self.gguf.str(&format!("{}.rope.scaling.type", self.name)).map_err(|e| self.format(e))?;
        match kind {
            None | Some("none") => Ok(None),
            Some("linear") => {
                let factor = self.float("rope.scaling.factor")?.unwrap_or(1.0);
                Ok((factor != 1.0).then_some(RopeScaling::Linear { factor }))
            }
            Some(other) => Err(self.wrong(
                "rope.scaling.type",
                format!("{other:?} is not supported; known are none, linear and Llama 3's rope_freqs"),
            )),
        }
    }

    /// The number of embeddings, which is what the tokenizer's list must have too.
    fn vocab_size(&self) -> Result<usize, EngineError> {
        match self.gguf.tensor("token_embd.weight") {
            Some(tensor) => Ok(usize::try_from(tensor.rows()).unwrap_or(0)),
            None => Err(self.format(FormatError::MissingTensor { tensor: "token_embd.weight".to_owned() })),
        }
    }

    /// Which layers have a window: one bool a layer, or every so many layers one without; llama.cpp assumes
    /// five with and one without where the file is silent.
    fn gemma_window(&self, n_layers: usize) -> Result<Option<SlidingWindow>, EngineError> {
        let Some(window) = self.int("attention.sliding_window")? else { return Ok(None) };
        let theta = self.float("rope.freq_base_swa")?.unwrap_or(10_000.0);
        let key = "attention.sliding_window_pattern";
        let array = self.gguf.array(&format!("{}.{key}", self.name));
        let layers: Vec<bool> = match array {
            Ok(Some(array)) => array.values().map(|v| matches!(v, Value::Bool(true))).collect(),
            _ => match self.int(key)?.unwrap_or(6) {
                0 => return Err(self.wrong(key, "is 0".to_owned())),
                pattern => (0..n_layers.min(4096)).map(|layer| (layer + 1) % pattern != 0).collect(),
            },
        };
        if layers.len() != n_layers {
            return Err(self.wrong(key, format!("has {} entries for {n_layers} layers", layers.len())));
        }
        Ok(Some(SlidingWindow { window, layers, rope: Rope::new(theta) }))
    }

    fn wrong(&self, key: &str, problem: String) -> EngineError {
        EngineError::Config { path: self.path.to_owned(), field: format!("{}.{key}", self.name), problem }
    }

    fn format(&self, source: FormatError) -> EngineError {
        EngineError::Format { path: self.path.to_owned(), source }
    }
}
