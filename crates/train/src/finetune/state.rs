//! What a fine-tuning has learned so far, to and from checkpoints.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Finetune, Method};
use crate::checkpoint;
use crate::data::{Example, fingerprint, read_text, write_text};
use crate::error::TrainError;
use crate::model::{Adapters, Frozen, Kind, Layout};
use crate::optimizer::{AdamW, AdamWOptions};
use crate::peft;
use crate::tensors::{Data, File, Tensor, write};

/// Of a fine-tuning.
#[derive(Debug)]
pub(super) struct State {
    /// What is trained: the adapters, or all parameters.
    pub(super) values: Vec<f32>,
    adam: AdamW,
    /// Steps done.
    pub(super) step: u64,
}

/// `state.json` of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    step: u64,
    adam_steps: u64,
    run: Map<String, Value>,
}

/// All that decides how a training goes on, by the names of the options.
pub(super) fn identity(options: &Finetune, rows: &[Example]) -> Map<String, Value> {
    let mut identity = Map::new();
    let mut put = |name: &str, value: Value| {
        identity.insert(name.to_owned(), value);
    };
    put("base-model", json!(options.base.display().to_string()));
    match &options.method {
        Method::Adapters { rank, alpha, dropout, targets, storage } => {
            put("lora-r", json!(rank));
            put("lora-alpha", json!(f64::from(*alpha)));
            put("lora-dropout", json!(f64::from(*dropout)));
            put("target-modules", json!(targets));
            put("base-type", json!(storage.name()));
        }
        Method::Full => put("method", json!("full")),
    }
    put("epochs", json!(options.epochs));
    put("batch-size", json!(options.batch_size));
    put("learning-rate", json!(f64::from(options.learning_rate)));
    put("weight-decay", json!(f64::from(options.weight_decay)));
    put("warmup", json!(options.warmup));
    put("micro-tokens", json!(options.micro_tokens));
    put("seed", json!(options.seed));
    let words = rows.iter().flat_map(|row| {
        let ends = row.answers.iter().flat_map(|a| [a.start as u32, a.end as u32]);
        row.ids.iter().copied().chain(ends).chain([u32::MAX])
    });
    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    put("data", json!(format!("{:032x}", fingerprint(&bytes))));
    identity
}

impl State {
    /// Before the first step. B of an adapter begins at 0, A with numbers between plus and minus the root of 1 over its
    /// inputs, as PEFT's do.
    pub(super) fn new(adapters: Option<&Adapters>, layout: &Layout, frozen: &Frozen, seed: u64) -> Self {
        let values = match adapters {
            None => frozen.to_floats(layout),
            Some(adapters) => {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                let mut values = vec![0.0; adapters.len()];
                for (name, _, cols, range) in adapters.tensors() {
                    if name.contains(".lora_A.") {
                        let bound = (1.0 / cols as f64).sqrt();
                        let mut uniform = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
                        values[range].fill_with(|| ((2.0 * uniform() - 1.0) * bound) as f32);
                    }
                }
                values
            }
        };
        let options = AdamWOptions { beta2: 0.999, ..AdamWOptions::default() };
        Self { adam: AdamW::new(values.len(), options), values, step: 0 }
    }

    /// One step of AdamW. Norms and embeddings do not decay.
    pub(super) fn update(&mut self, layout: &Layout, d: &[f32], learning_rate: f32, decay: f32) {
        self.adam.begin_step();
        if self.values.len() != layout.len() {
            self.adam.update(0, &mut self.values, d, learning_rate, decay);
        } else {
            for tensor in &layout.tensors {
                let decay = if matches!(tensor.kind, Kind::Linear | Kind::Head) { decay } else { 0.0 };
                let range = tensor.range.clone();
                let values = &mut self.values[range.clone()];
                self.adam.update(range.start, values, &d[range], learning_rate, decay);
            }
        }
        self.step += 1;
    }

    /// Writes a checkpoint; adapters as PEFT has them.
    pub(super) fn save(
        &self,
        output: &Path,
        adapters: Option<&Adapters>,
        layout: &Layout,
        identity: &Map<String, Value>,
        base: &str,
        keep: usize,
    ) -> Result<(), TrainError> {
        let memory = [("adam.mean", &self.adam.mean), ("adam.square", &self.adam.square)];
        let memory = memory.map(|(name, values)| Tensor {
            name: name.to_owned(),
            shape: vec![values.len()],
            data: Data::F32(values),
        });
        let saved = Saved { step: self.step, adam_steps: self.adam.steps, run: identity.clone() };
        let json = serde_json::to_string_pretty(&saved)
            .map_err(|e| TrainError::input("state.json", e.to_string()))?;
        checkpoint::write(output, self.step, keep, |part| {
            match adapters {
                Some(adapters) => peft::save(part, adapters, &self.values, base)?,
                None => write(&part.join("model.safetensors"), &layout.views(&self.values))?,
            }
            write(&part.join("optimizer.safetensors"), &memory)?;
            write_text(&part.join("state.json"), &json)
        })
    }

    /// Takes up the last checkpoint, if there is one, and says whether there was.
    pub(super) fn resume(
        &mut self,
        output: &Path,
        adapters: Option<&Adapters>,
        layout: &Layout,
        identity: &Map<String, Value>,
    ) -> Result<bool, TrainError> {
        let Some(&last) = checkpoint::steps(output)?.last() else { return Ok(false) };
        let folder = checkpoint::folder(output, last);
        let path = folder.join("state.json");
        let wrong = |problem: String| TrainError::input(path.display().to_string(), problem);
        let saved: Saved = serde_json::from_str(&read_text(&path)?).map_err(|e| wrong(e.to_string()))?;
        let other = identity.iter().find(|(name, value)| saved.run.get(*name) != Some(value));
        if let Some((name, value)) = other {
            let before = saved.run.get(name).unwrap_or(&Value::Null);
            return Err(wrong(format!("{name} was {before}, not {value}: a training goes on as it began")));
        }
        match adapters {
            Some(adapters) => {
                let file = File::open(&folder.join("adapter_model.safetensors"))?;
                for (name, _, _, range) in adapters.tensors() {
                    file.read(&format!("{}{name}", peft::PREFIX), &mut self.values[range])?;
                }
            }
            None => {
                let file = File::open(&folder.join("model.safetensors"))?;
                for tensor in &layout.tensors {
                    file.read(&tensor.name, &mut self.values[tensor.range.clone()])?;
                }
            }
        }
        let file = File::open(&folder.join("optimizer.safetensors"))?;
        file.read("adam.mean", &mut self.adam.mean)?;
        file.read("adam.square", &mut self.adam.square)?;
        (self.step, self.adam.steps) = (saved.step, saved.adam_steps);
        Ok(true)
    }
}
