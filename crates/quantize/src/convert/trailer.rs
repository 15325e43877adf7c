//! The metadata trailer of a T-MAC v2 file: what its header has no place for, so that the file serves alone.

use std::collections::HashMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use engine::TokenizerFormat;
use engine::config::{Activation, Pairing};
use formats::tmac_v2::Variant;
use serde_json::{Map, Value, json};

use super::error::ConvertError;
use super::{Source, llama2c, vocabulary};

/// Configuration, tokenizer, chat template, end tokens, and the `scales` that f16 rounds.
pub(super) fn of(
    source: &Source<'_>,
    variant: Variant,
    scales: &HashMap<String, f32>,
    notes: &mut Vec<String>,
) -> Result<Value, ConvertError> {
    let config = &source.model.config;
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| {
        fields.insert(key.to_owned(), value);
    };
    put("architecture", json!(config.architecture.name()));
    put("rope_theta", json!(f64::from(config.rope.theta)));
    put("norm_eps", json!(f64::from(config.norm_eps)));
    let adjacent = llama2c::pairing(variant) == Pairing::Adjacent;
    put("rope_pairing", json!(if adjacent { "adjacent" } else { "half" }));
    put(
        "activation",
        json!(match config.activation {
            Activation::Silu => "silu",
            Activation::Relu2 => "relu2",
            Activation::GeluTanh => "gelu_tanh",
        }),
    );
    if !source.model.eos.is_empty() {
        put("eos_token_ids", json!(source.model.eos));
    }
    if let Some(template) = &source.model.chat_template {
        put("chat_template", json!(template.source()));
    }
    if !scales.is_empty() {
        let scales: Map<String, Value> =
            scales.iter().map(|(name, &scale)| (name.clone(), json!(f64::from(scale)))).collect();
        put("scales", Value::Object(scales));
    }
    match &source.tokenizer {
        Some(tokenizer) if tokenizer.format() == TokenizerFormat::HuggingFace => {
            put("tokenizer_json", json!(String::from_utf8_lossy(tokenizer.bytes())));
            if let Some(config) = tokenizer.config() {
                put("tokenizer_config_json", json!(String::from_utf8_lossy(config)));
            }
        }
        Some(_) => {
            if let Some(vocabulary) = vocabulary::alone(source, notes)? {
                put("tokenizer_gguf", json!(BASE64_STANDARD.encode(vocabulary)));
            }
        }
        None => {}
    }
    Ok(Value::Object(fields))
}
