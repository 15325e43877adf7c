//! Adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors` in a folder.

use std::path::Path;

use formats::peft::PeftConfig;
use serde_json::json;

use crate::data::{read_text, write_text};
use crate::error::TrainError;
use crate::model::{Adapters, Layout};
use crate::tensors::{Data, File, Tensor, write};

/// What PEFT puts before a tensor's name in the model.
pub(crate) const PREFIX: &str = "base_model.model.";

/// Reads the adapters of a model with this layout, and their values.
///
/// # Errors
/// No LoRA; options that change what an adapter means and are not supported, by name; tensors that are missing or of
/// another shape, and target modules that the model does not have.
pub fn load(folder: &Path, layout: &Layout) -> Result<(Adapters, Vec<f32>), TrainError> {
    let path = folder.join("adapter_config.json");
    let wrong = |problem: String| TrainError::input(path.display().to_string(), problem);
    let config = PeftConfig::parse(read_text(&path)?.as_bytes()).map_err(|e| wrong(e.to_string()))?;
    let (targets, alpha) = (config.target_modules, config.scale * config.rank as f32);
    let adapters = Adapters::new(layout, config.rank, alpha, &targets);
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
        "lora_alpha": f64::from(adapters.scale * adapters.rank as f32),
        "lora_dropout": f64::from(adapters.dropout),
        "target_modules": adapters.targets(),
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
    });
    write_text(&folder.join("adapter_config.json"), &config.to_string())
}
