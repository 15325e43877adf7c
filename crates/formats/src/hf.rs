//! The JSON files beside the weights of a Hugging Face model: `config.json`, `generation_config.json` and the
//! index of a model in several safetensors files.
//!
//! Field names are transformers'. Where its versions moved a field (`rope_theta` into `rope_parameters`,
//! `torch_dtype` to `dtype`, Gemma 3's text model into `text_config`) both places are read.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::FormatError;
use crate::limits::{MAX_JSON, MAX_TENSORS};

const CONFIG: &str = "config.json";

/// What `config.json` says of a text model. Absent fields are `None`: their defaults are the architecture's.
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(missing_docs, reason = "transformers' own names, explained in its documentation")]
pub struct HfConfig {
    pub model_type: String,
    pub architectures: Vec<String>,
    pub hidden_size: Option<u64>,
    pub intermediate_size: Option<u64>,
    pub num_hidden_layers: Option<u64>,
    pub num_attention_heads: Option<u64>,
    pub num_key_value_heads: Option<u64>,
    pub head_dim: Option<u64>,
    pub vocab_size: Option<u64>,
    pub max_position_embeddings: Option<u64>,
    pub rms_norm_eps: Option<f64>,
    pub tie_word_embeddings: Option<bool>,
    /// `hidden_act` or Gemma's `hidden_activation`.
    pub hidden_act: Option<String>,
    pub attention_bias: Option<bool>,
    pub mlp_bias: Option<bool>,
    /// `rope_parameters`, `rope_scaling` and `rope_theta`; of the layers with full attention where there are two kinds.
    pub rope: Rope,
    /// RoPE of the layers with sliding attention where it differs (`rope_local_base_freq`, `rope_parameters.sliding_attention`).
    pub local_rope: Option<Rope>,
    /// Window of the layers with sliding attention; `None` when `use_sliding_window` is false.
    pub sliding_window: Option<u64>,
    /// `full_attention` or `sliding_attention` for each layer.
    pub layer_types: Option<Vec<String>>,
    /// Every so many layers one has full attention.
    pub sliding_window_pattern: Option<u64>,
    pub query_pre_attn_scalar: Option<f64>,
    pub attn_logit_softcapping: Option<f64>,
    pub final_logit_softcapping: Option<f64>,
    pub quantization_config: Option<QuantizationConfig>,
    pub bos_token_id: Option<u32>,
    /// One or many.
    pub eos_token_id: Vec<u32>,
    /// `dtype` or `torch_dtype`.
    pub dtype: Option<String>,
}

/// Rotary embedding. Fields that a `rope_type` does not use are `None`.
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(missing_docs, reason = "transformers' own names, explained in its documentation")]
pub struct Rope {
    pub rope_theta: Option<f64>,
    /// `default`, `linear`, `llama3`, `dynamic`, `yarn`, …; older files say `type`.
    pub rope_type: Option<String>,
    pub factor: Option<f64>,
    pub low_freq_factor: Option<f64>,
    pub high_freq_factor: Option<f64>,
    pub original_max_position_embeddings: Option<u64>,
}

/// How the weights are quantized.
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(missing_docs, reason = "transformers' own names, explained in its documentation")]
pub struct QuantizationConfig {
    pub quant_method: String,
    pub linear_class: Option<String>,
    pub quantization_mode: Option<String>,
}

impl HfConfig {
    /// Reads a `config.json`. Of a multimodal Gemma 3 it takes `text_config`, with what only the outside says.
    ///
    /// # Errors
    /// [`FormatError::Json`] with the name of the field that is of the wrong type, negative or not finite.
    pub fn parse(json: &[u8]) -> Result<Self, FormatError> {
        let root = object(json, CONFIG)?;
        let outer = Fields { what: CONFIG, path: "", map: &root };
        let config = match outer.fields("text_config")? {
            Some(inner) => Self::read(&inner, &outer)?,
            None => Self::read(&outer, &outer)?,
        };
        if config.model_type.is_empty() {
            return Err(outer.wrong("model_type", "is missing"));
        }
        Ok(config)
    }

    /// Reads `fields`, and from `outer` what may stand outside a nested text model.
    fn read(fields: &Fields<'_>, outer: &Fields<'_>) -> Result<Self, FormatError> {
        let (rope, nested_local) = read_rope(fields)?;
        let local_rope = match fields.float("rope_local_base_freq")? {
            Some(theta) => Some(Rope { rope_theta: Some(theta), ..Rope::default() }),
            None => nested_local,
        };
        let uses_window = fields.flag("use_sliding_window")?.unwrap_or(true);
        let eos = fields.ids("eos_token_id")?;
        Ok(Self {
            model_type: fields.text("model_type")?.unwrap_or_default(),
            architectures: outer.texts("architectures")?.unwrap_or_default(),
            hidden_size: fields.uint("hidden_size")?,
            intermediate_size: fields.uint("intermediate_size")?,
            num_hidden_layers: fields.uint("num_hidden_layers")?,
            num_attention_heads: fields.uint("num_attention_heads")?,
            num_key_value_heads: fields.uint("num_key_value_heads")?,
            head_dim: fields.uint("head_dim")?,
            vocab_size: fields.uint("vocab_size")?,
            max_position_embeddings: fields.uint("max_position_embeddings")?,
            rms_norm_eps: fields.float("rms_norm_eps")?,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?.or(outer.flag("tie_word_embeddings")?),
            hidden_act: fields.text("hidden_act")?.or(fields.text("hidden_activation")?),
            attention_bias: fields.flag("attention_bias")?,
            mlp_bias: fields.flag("mlp_bias")?,
            rope,
            local_rope,
            sliding_window: fields.uint("sliding_window")?.filter(|_| uses_window),
            layer_types: fields.texts("layer_types")?,
            sliding_window_pattern: fields
                .uint("sliding_window_pattern")?
                .or(fields.uint("_sliding_window_pattern")?),
            query_pre_attn_scalar: fields.float("query_pre_attn_scalar")?,
            attn_logit_softcapping: fields.float("attn_logit_softcapping")?,
            final_logit_softcapping: fields.float("final_logit_softcapping")?,
            quantization_config: read_quantization(outer)?,
            bos_token_id: fields.id("bos_token_id")?.or(outer.id("bos_token_id")?),
            eos_token_id: if eos.is_empty() { outer.ids("eos_token_id")? } else { eos },
            dtype: match fields.text("dtype")?.or(fields.text("torch_dtype")?) {
                Some(dtype) => Some(dtype),
                None => outer.text("dtype")?.or(outer.text("torch_dtype")?),
            },
        })
    }
}

/// The RoPE of full attention, and that of sliding attention where `rope_parameters` has both.
fn read_rope(fields: &Fields<'_>) -> Result<(Rope, Option<Rope>), FormatError> {
    let mut global = Rope::default();
    let mut local = None;
    // `rope_parameters` (transformers 5) before `rope_scaling` (before 5): a file with both means the newer.
    let parameters = match fields.fields("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => fields.fields("rope_scaling")?,
    };
    if let Some(parameters) = parameters {
        let full = parameters.fields("full_attention")?;
        global = Rope::read(full.as_ref().unwrap_or(&parameters))?;
        if let Some(sliding) = parameters.fields("sliding_attention")? {
            local = Some(Rope::read(&sliding)?);
        }
    }
    global.rope_theta = global.rope_theta.or(fields.float("rope_theta")?);
    Ok((global, local))
}

impl Rope {
    fn read(fields: &Fields<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            rope_theta: fields.float("rope_theta")?,
            rope_type: fields.text("rope_type")?.or(fields.text("type")?),
            factor: fields.float("factor")?,
            low_freq_factor: fields.float("low_freq_factor")?,
            high_freq_factor: fields.float("high_freq_factor")?,
            original_max_position_embeddings: fields.uint("original_max_position_embeddings")?,
        })
    }
}

fn read_quantization(outer: &Fields<'_>) -> Result<Option<QuantizationConfig>, FormatError> {
    let Some(fields) = outer.fields("quantization_config")? else { return Ok(None) };
    Ok(Some(QuantizationConfig {
        quant_method: fields
            .text("quant_method")?
            .ok_or_else(|| fields.wrong("quant_method", "is missing"))?,
        linear_class: fields.text("linear_class")?,
        quantization_mode: fields.text("quantization_mode")?,
    }))
}

/// The end-of-generation ids of a `generation_config.json`; empty when it names none.
pub fn generation_eos_ids(json: &[u8]) -> Result<Vec<u32>, FormatError> {
    let what = "generation_config.json";
    Fields { what, path: "", map: &object(json, what)? }.ids("eos_token_id")
}

/// `model.safetensors.index.json`: which file holds which tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardIndex {
    /// File name, in the index's own folder, of each tensor.
    pub weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads an index.
    ///
    /// # Errors
    /// [`FormatError::Json`]: no `weight_map`, or a file name that leaves the folder (a path separator, a drive,
    /// `.` or `..`).
    pub fn parse(json: &[u8]) -> Result<Self, FormatError> {
        let what = "model.safetensors.index.json";
        let root = object(json, what)?;
        let root = Fields { what, path: "", map: &root };
        let map = root.fields("weight_map")?.ok_or_else(|| root.wrong("weight_map", "is missing"))?;
        if map.map.len() as u64 > MAX_TENSORS {
            let (field, value) = ("weight_map".to_owned(), map.map.len() as u64);
            return Err(FormatError::Limit { field, value, limit: MAX_TENSORS });
        }
        let mut weight_map = BTreeMap::new();
        for name in map.map.keys() {
            let file = map.text(name)?.unwrap_or_default();
            if file.is_empty() || file == "." || file == ".." || file.contains(['/', '\\', ':', '\0']) {
                return Err(
                    map.wrong(name, &format!("{file:?} is not the name of a file in the same folder"))
                );
            }
            weight_map.insert(name.clone(), file);
        }
        Ok(Self { weight_map })
    }

    /// The files, each once, in the order of their names.
    pub fn files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = self.weight_map.values().map(String::as_str).collect();
        files.sort_unstable();
        files.dedup();
        files
    }
}

fn object(json: &[u8], what: &str) -> Result<Map<String, Value>, FormatError> {
    if json.len() as u64 > MAX_JSON {
        return Err(FormatError::Limit { field: what.into(), value: json.len() as u64, limit: MAX_JSON });
    }
    serde_json::from_slice(json).map_err(|e| FormatError::Json { what: what.into(), problem: e.to_string() })
}

/// The members of a JSON object, with errors that name them. `null` counts as absent.
struct Fields<'a> {
    what: &'static str,
    path: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn wrong(&self, name: &str, problem: &str) -> FormatError {
        let dot = if self.path.is_empty() { "" } else { "." };
        let problem = format!("{}{dot}{name} {problem}", self.path);
        FormatError::Json { what: self.what.into(), problem }
    }

    fn typed<T>(
        &self,
        name: &str,
        wanted: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match convert(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(name, &format!("is not {wanted}"))),
            },
        }
    }

    fn fields(&self, name: &'a str) -> Result<Option<Fields<'a>>, FormatError> {
        let map = self.typed(name, "an object", Value::as_object)?;
        Ok(map.map(|map| Fields { what: self.what, path: name, map }))
    }

    fn uint(&self, name: &str) -> Result<Option<u64>, FormatError> {
        self.typed(name, "a non-negative integer", |value| {
            // Some converters write 32768.0.
            value.as_u64().or_else(|| {
                let float = value.as_f64()?;
                (float.fract() == 0.0 && (0.0..9e15).contains(&float)).then_some(float as u64)
            })
        })
    }

    fn float(&self, name: &str) -> Result<Option<f64>, FormatError> {
        self.typed(name, "a finite number", |value| value.as_f64().filter(|v| v.is_finite()))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, FormatError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    fn text(&self, name: &str) -> Result<Option<String>, FormatError> {
        self.typed(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    fn texts(&self, name: &str) -> Result<Option<Vec<String>>, FormatError> {
        self.typed(name, "a list of strings", |value| {
            value.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect()
        })
    }

    fn id(&self, name: &str) -> Result<Option<u32>, FormatError> {
        self.typed(name, "a token id", token_id)
    }

    /// One id or a list of them.
    fn ids(&self, name: &str) -> Result<Vec<u32>, FormatError> {
        let ids = self.typed(name, "a token id or a list of them", |value| match value {
            Value::Array(ids) => ids.iter().map(token_id).collect(),
            id => token_id(id).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }
}

fn token_id(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}
