//! What a fine-tuning has learned so far, to and from checkpoints.

use std::path::Path;

use kernels::gemm::Precision;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Finetune, Method};
use crate::checkpoint;
use crate::data::{Example, fingerprint, read_text, write_text};
use crate::error::TrainError;
use crate::model::{Adapters, Frozen, Kind, Layout};
use crate::optimizer::{AdamWOptions, Optimizer, Rates};
use crate::peft;
use crate::tensors::{File, write};

/// Of a fine-tuning.
#[derive(Debug)]
pub(super) struct State {
    /// What is trained: the adapters, or all parameters.
    pub(super) values: Vec<f32>,
    optimizer: Optimizer,
    /// Steps done.
    pub(super) step: u64,
    /// Tokens learned from.
    pub(super) tokens: u64,
    best: Option<Best>,
    /// Validations since then, once all is rounded.
    pub(super) stale: u64,
}

/// The parameters of the smallest divergence from the teacher.
#[derive(Debug)]
struct Best {
    kl: f64,
    values: Vec<f32>,
}

/// `state.json` of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    step: u64,
    adam_steps: u64,
    #[serde(default)]
    tokens: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    best_kl: Option<f64>,
    #[serde(default)]
    stale: u64,
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
        Method::Ternary { planes, gradual, hidden, patience, start, embedding } => {
            put("method", json!("qat"));
            put("planes", json!(planes.number()));
            put("gradual", json!(gradual));
            put("hidden-weight", json!(f64::from(*hidden)));
            put("patience", json!(patience));
            put("train-embedding", json!(embedding));
            put("start", json!(start.as_ref().map(|path| path.display().to_string())));
            // When it ends depends on what is measured, and when.
            put("validate-every", json!(options.validate_every));
        }
    }
    put("epochs", json!(options.epochs));
    put("batch-size", json!(options.batch_size));
    put("learning-rate", json!(f64::from(options.learning_rate)));
    put("muon-learning-rate", json!(options.muon_learning_rate.map(f64::from)));
    put("weight-decay", json!(f64::from(options.weight_decay)));
    put("warmup", json!(options.warmup));
    put("micro-tokens", json!(options.micro_tokens));
    put("precision", json!(precision_name(options.precision)));
    put("seed", json!(options.seed));
    let words = rows.iter().flat_map(|row| {
        let ends = row.answers.iter().flat_map(|a| [a.start as u32, a.end as u32]);
        row.ids.iter().copied().chain(ends).chain([u32::MAX])
    });
    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    put("data", json!(format!("{:032x}", fingerprint(&bytes))));
    identity
}

fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    }
}

impl State {
    /// Before the first step. B of an adapter begins at 0, A with numbers between plus and minus the root of 1 over its
    /// inputs, as PEFT's do.
    pub(super) fn new(
        finetune: &Finetune,
        adapters: Option<&Adapters>,
        layout: &Layout,
        frozen: &Frozen,
    ) -> Self {
        let values = match adapters {
            None => frozen.to_floats(layout),
            Some(adapters) => {
                let mut random = ChaCha8Rng::seed_from_u64(finetune.seed);
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
        let adam = AdamWOptions { beta2: 0.999, ..AdamWOptions::default() };
        let mut optimizer = Optimizer::new(values.len(), adam);
        if finetune.muon_learning_rate.is_some() && adapters.is_none() {
            optimizer = optimizer.with_muon(finetune.threads, finetune.precision);
        }
        Self { optimizer, values, step: 0, tokens: 0, best: None, stale: 0 }
    }

    /// Keeps the parameters if their divergence is the smallest so far; else they count as no better, if `counts`.
    pub(super) fn judge(&mut self, kl: f64, counts: bool) {
        if self.best.as_ref().is_none_or(|best| kl < best.kl) {
            self.best = Some(Best { kl, values: self.values.clone() });
            self.stale = 0;
        } else if counts {
            self.stale += 1;
        }
    }

    /// The parameters that were judged best, or else the last.
    pub(super) fn into_best(self) -> Vec<f32> {
        self.best.map_or(self.values, |best| best.values)
    }

    /// One step, of all parameters of those kinds that are `trained`, or of the adapters.
    pub(super) fn update(&mut self, layout: &Layout, trained: &[Kind], d: &[f32], rates: Rates) {
        if self.values.len() == layout.len() {
            self.optimizer.step_model(layout, trained, &mut self.values, d, rates);
        } else {
            self.optimizer.step(&mut self.values, d, rates);
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
        let memory = self.optimizer.views();
        let saved = Saved {
            step: self.step,
            adam_steps: self.optimizer.steps(),
            tokens: self.tokens,
            best_kl: self.best.as_ref().map(|best| best.kl),
            stale: self.stale,
            run: identity.clone(),
        };
        let json = serde_json::to_string_pretty(&saved)
            .map_err(|e| TrainError::input("state.json", e.to_string()))?;
        checkpoint::write(output, self.step, keep, |part| {
            match adapters {
                Some(adapters) => peft::save(part, adapters, &self.values, base)?,
                None => write(&part.join("model.safetensors"), &layout.views(&self.values))?,
            }
            if let Some(best) = &self.best {
                write(&part.join("best.safetensors"), &layout.views(&best.values))?;
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
            None => read_model(&folder.join("model.safetensors"), layout, &mut self.values)?,
        }
        let file = File::open(&folder.join("optimizer.safetensors"))?;
        self.optimizer.read(&file, saved.adam_steps)?;
        if let Some(kl) = saved.best_kl {
            let mut values = vec![0.0; layout.len()];
            read_model(&folder.join("best.safetensors"), layout, &mut values)?;
            self.best = Some(Best { kl, values });
        }
        (self.step, self.tokens, self.stale) = (saved.step, saved.tokens, saved.stale);
        Ok(true)
    }
}

/// All parameters of a file.
fn read_model(path: &Path, layout: &Layout, values: &mut [f32]) -> Result<(), TrainError> {
    let file = File::open(path)?;
    for tensor in &layout.tensors {
        file.read(&tensor.name, &mut values[tensor.range.clone()])?;
    }
    Ok(())
}
