//! Adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors` in a folder.

use std::path::Path;

use serde_json::{Value, json};

use crate::data::{read_text, write_text};
use crate::error::TrainError;
use crate::model::{Adapters, Layout};
use crate::tensors::{Data, File, Tensor, write};

/// What PEFT puts before a tensor's name in the model.
const PREFIX: &str = "base_model.model.";

/// What changes an adapter's meaning and is not supported: the field, and the value that means "no".
const UNSUPPORTED: [(&str, Value); 5] = [
    ("use_dora", Value::Bool(false)),
    ("fan_in_fan_out", Value::Bool(false)),
    ("modules_to_save", Value::Null),
    ("layers_to_transform", Value::Null),
    ("trainable_token_indices", Value::Null),
];

/// Reads the adapters of a model with this layout, and their values.
///
/// # Errors
/// No LoRA; options that change what an adapter means and are not supported, by name; tensors that are missing or of
/// another shape, and target modules that the model does not have.
pub fn load(folder: &Path, layout: &Layout) -> Result<(Adapters, Vec<f32>), TrainError> {
    let path = folder.join("adapter_config.json");
    let wrong = |problem: String| TrainError::input(path.display().to_string(), problem);
    let config: Value = serde_json::from_str(&read_text(&path)?).map_err(|e| wrong(e.to_string()))?;
    if config["peft_type"] != "LORA" {
        return Err(wrong(format!("peft_type {} is not LORA", config["peft_type"])));
    }
    for (field, no) in &UNSUPPORTED {
        if config.get(field).is_some_and(|value| !value.is_null() && value != no) {
            return Err(wrong(format!("{field} {} is not supported", config[*field])));
        }
    }
    for field in ["rank_pattern", "alpha_pattern"] {
        if config[field].as_object().is_some_and(|map| !map.is_empty()) {
            return Err(wrong(format!("{field} is not supported: all adapters have one rank and alpha")));
        }
    }
    if config["bias"].as_str().is_some_and(|bias| bias != "none") {
        return Err(wrong(format!("bias {} is not supported", config["bias"])));
    }
    let rank = config["r"].as_u64().and_then(|r| usize::try_from(r).ok()).filter(|r| (1..=4096).contains(r));
    let rank = rank.ok_or_else(|| wrong(format!("r {} is not between 1 and 4096", config["r"])))?;
    let alpha = config["lora_alpha"].as_f64().ok_or_else(|| wrong("lora_alpha is missing".to_owned()))?;
    // Rank-stabilized (Kalajdzievski, arXiv 2312.03732): alpha over the root of the rank.
    let alpha = if config["use_rslora"] == true { alpha * (rank as f64).sqrt() } else { alpha };
    let targets = config["target_modules"].as_array();
    let targets = targets.ok_or_else(|| wrong("target_modules is no list of names".to_owned()))?;
    let targets: Vec<String> = targets.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect();
    let adapters = Adapters::new(layout, rank, alpha as f32, &targets);
    if let Some(target) = targets.iter().find(|target| !adapters.has(target)) {
        return Err(wrong(format!("target_modules: the model has no {target}")));
    }
    let mut values = vec![0.0; adapters.len()];
    let file = File::open(&folder.join("adapter_model.safetensors"))?;
    for (name, _, _, range) in adapters.tensors() {
        file.read(&format!("{PREFIX}{name}"), &mut values[range])?;
    }
    Ok((adapters, values))
}

/// Writes adapters so that PEFT loads them beside the model that `base` names, a folder or a name on the hub.
///
/// # Errors
/// Files that cannot be written.
pub fn save(folder: &Path, adapters: &Adapters, values: &[f32], base: &str) -> Result<(), TrainError> {
    std::fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
    let tensors = adapters.tensors().map(|(name, rows, cols, range)| Tensor {
        name: format!("{PREFIX}{name}"),
        shape: vec![rows, cols],
        data: Data::F32(&values[range]),
    });
    write(&folder.join("adapter_model.safetensors"), &tensors.collect::<Vec<_>>())?;
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapters.rank,
        "lora_alpha": adapters.scale * adapters.rank as f32,
        "lora_dropout": 0.0,
        "target_modules": adapters.targets(),
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
    });
    write_text(&folder.join("adapter_config.json"), &config.to_string())
}
