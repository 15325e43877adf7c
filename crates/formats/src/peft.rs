//! PEFT's `adapter_config.json`: low-rank adapters beside a model.

use serde_json::Value;

use crate::error::FormatError;
use crate::limits::MAX_JSON;

/// What the file is called in errors.
const WHAT: &str = "adapter_config.json";

/// Largest rank that is read.
const MAX_RANK: u64 = 4096;

/// Fields that change what an adapter means and are not supported, with the value that means "no".
const UNSUPPORTED: [(&str, Value); 8] = [
    ("use_dora", Value::Bool(false)),
    ("use_bdlora", Value::Bool(false)),
    ("fan_in_fan_out", Value::Bool(false)),
    ("lora_bias", Value::Bool(false)),
    ("modules_to_save", Value::Null),
    ("layers_to_transform", Value::Null),
    ("layer_replication", Value::Null),
    ("trainable_token_indices", Value::Null),
];

/// What the file says.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftConfig {
    /// Rows of A, columns of B.
    pub rank: usize,
    /// What the product of both is multiplied with: alpha over the rank, or with `use_rslora` over its root (Kalajdzievski,
    /// arXiv 2312.03732).
    pub scale: f32,
    /// Last parts of the names of the linear layers that have one.
    pub target_modules: Vec<String>,
}

impl PeftConfig {
    /// Reads the file's bytes.
    ///
    /// # Errors
    /// No LoRA, options that change what it means and are not supported, by name; a rank or an alpha that cannot be.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let wrong = |problem: String| FormatError::Json { what: WHAT.to_owned(), problem };
        if bytes.len() as u64 > MAX_JSON {
            return Err(wrong(format!("{} bytes are more than the limit of {MAX_JSON}", bytes.len())));
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        for (field, no) in &UNSUPPORTED {
            if value.get(field).is_some_and(|value| !value.is_null() && value != no) {
                return Err(wrong(format!("{field} {} is not supported", value[*field])));
            }
        }
        let text = |field: &str| value.get(field).and_then(Value::as_str);
        if text("peft_type") != Some("LORA") {
            return Err(wrong(format!("peft_type {} is not LORA", value["peft_type"])));
        }
        if let Some(bias) = text("bias").filter(|bias| *bias != "none") {
            return Err(wrong(format!("bias {bias:?} is not supported")));
        }
        for field in ["rank_pattern", "alpha_pattern"] {
            if value[field].as_object().is_some_and(|map| !map.is_empty()) {
                return Err(wrong(format!("{field} is not supported: all adapters have one rank and alpha")));
            }
        }
        let rank = value["r"].as_u64().filter(|r| (1..=MAX_RANK).contains(r));
        let rank = rank.ok_or_else(|| wrong(format!("r {} is not between 1 and {MAX_RANK}", value["r"])))?;
        let alpha = value["lora_alpha"].as_f64().filter(|&alpha| (alpha as f32).is_finite());
        let alpha =
            alpha.ok_or_else(|| wrong(format!("lora_alpha {} is no number of f32", value["lora_alpha"])))?;
        let names = value["target_modules"].as_array().and_then(|list| {
            list.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>()
        });
        let target_modules = names.ok_or_else(|| wrong("target_modules is no list of names".to_owned()))?;
        let over = if value["use_rslora"] == true { (rank as f64).sqrt() } else { rank as f64 };
        let rank = usize::try_from(rank).unwrap_or(usize::MAX);
        Ok(Self { rank, scale: (alpha / over) as f32, target_modules })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn parse(change: &str) -> Result<PeftConfig, String> {
        let base =
            r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}"#;
        let mut value: Value = serde_json::from_str(base).unwrap();
        let change: Map<String, Value> = serde_json::from_str(change).unwrap();
        value.as_object_mut().unwrap().extend(change);
        PeftConfig::parse(value.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_scale_is_alpha_over_the_rank() {
        let plain = parse("{}").unwrap();
        assert_eq!((plain.rank, plain.scale, plain.target_modules), (4, 2.0, vec!["q_proj".to_owned()]));
        assert_eq!(parse(r#"{"use_rslora": true}"#).unwrap().scale, 4.0);
        assert_eq!(parse(r#"{"use_dora": false, "modules_to_save": null}"#).unwrap().rank, 4);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let says = |change| parse(change).unwrap_err();
        assert!(says(r#"{"peft_type": "IA3"}"#).contains("peft_type"));
        assert!(says(r#"{"use_dora": true}"#).contains("use_dora true is not supported"));
        assert!(says(r#"{"modules_to_save": ["lm_head"]}"#).contains("modules_to_save"));
        assert!(says(r#"{"rank_pattern": {"q_proj": 8}}"#).contains("rank_pattern"));
        assert!(says(r#"{"bias": "all"}"#).contains("bias"));
        assert!(says(r#"{"r": 0}"#).contains("r 0 is not between"));
        assert!(says(r#"{"target_modules": "all-linear"}"#).contains("no list of names"));
        assert!(says(r#"{"lora_alpha": "8"}"#).contains("lora_alpha \"8\" is no number"));
        assert!(PeftConfig::parse(b"{").is_err());
    }
}
