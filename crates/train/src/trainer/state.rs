//! What a training has learned so far: parameters, the optimizers' memory, the step; to and from checkpoints.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use super::config::Training;
use crate::checkpoint;
use crate::data::{read_text, write_text};
use crate::error::TrainError;
use crate::model::{Kind, Layout, Shape};
use crate::optimizer::{AdamWOptions, Optimizer, Rates};
use crate::tensors::{File, write};

/// Of a training.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) parameters: Vec<f32>,
    optimizer: Optimizer,
    /// Steps done.
    pub(crate) step: u64,
}

/// `state.json` of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    step: u64,
    adam_steps: u64,
    model: Shape,
}

impl State {
    /// Before the first step. Matrices are drawn from a normal distribution: of deviation 0.02 for the embedding, of
    /// sqrt(1 / inputs) for linear layers, those that add to the residual stream less the more layers there are.
    pub(crate) fn new(shape: &Shape, layout: &Layout, training: &Training, threads: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(training.seed);
        let mut parameters = vec![0.0; layout.len()];
        for tensor in &layout.tensors {
            let values = &mut parameters[tensor.range.clone()];
            let deviation = match tensor.kind {
                Kind::Norm => {
                    values.fill(1.0);
                    continue;
                }
                Kind::Embedding | Kind::Head => 0.02,
                Kind::Linear => {
                    let adds = tensor.name.contains("o_proj") || tensor.name.contains("down_proj");
                    let less = if adds { (2.0 * shape.n_layers as f64).sqrt() } else { 1.0 };
                    (1.0 / tensor.cols as f64).sqrt() / less
                }
            };
            for value in values {
                *value = (normal(&mut random) * deviation) as f32;
            }
        }
        let options = AdamWOptions { beta1: training.beta1, beta2: training.beta2, eps: 1e-8 };
        let mut optimizer = Optimizer::new(layout.len(), options);
        if training.muon_learning_rate.is_some() {
            optimizer = optimizer.with_muon(threads, training.precision);
        }
        Self { parameters, optimizer, step: 0 }
    }

    /// One step, the learning rates and the decay multiplied by the schedule's factors.
    pub(crate) fn update(&mut self, layout: &Layout, training: &Training, d: &[f32], factors: (f64, f64)) {
        let rate = |peak: f32| (f64::from(peak) * factors.0) as f32;
        let rates = Rates {
            adam: rate(training.learning_rate),
            muon: rate(training.muon_learning_rate.unwrap_or(0.0)),
            momentum: training.momentum,
            decay: (f64::from(training.weight_decay) * factors.1) as f32,
        };
        self.optimizer.step_model(layout, &Kind::ALL, &mut self.parameters, d, rates);
        self.step += 1;
    }

    /// Writes a checkpoint, and takes away all but the last `keep`. It is there whole or not at all.
    pub(crate) fn save(
        &self,
        output: &Path,
        shape: &Shape,
        layout: &Layout,
        keep: usize,
    ) -> Result<(), TrainError> {
        let tensors = layout.views(&self.parameters);
        let memory = self.optimizer.views();
        let saved = Saved { step: self.step, adam_steps: self.optimizer.steps(), model: shape.clone() };
        let json = serde_json::to_string_pretty(&saved)
            .map_err(|e| TrainError::input("state.json", e.to_string()))?;
        checkpoint::write(output, self.step, keep, |part| {
            write(&part.join("model.safetensors"), &tensors)?;
            write(&part.join("optimizer.safetensors"), &memory)?;
            write_text(&part.join("state.json"), &json)
        })
    }

    /// Takes up the last checkpoint, if there is one, and says whether there was.
    pub(crate) fn resume(
        &mut self,
        output: &Path,
        shape: &Shape,
        layout: &Layout,
    ) -> Result<bool, TrainError> {
        let Some(&last) = checkpoint::steps(output)?.last() else { return Ok(false) };
        let folder = checkpoint::folder(output, last);
        let path = folder.join("state.json");
        let wrong = |problem: String| TrainError::input(path.display().to_string(), problem);
        let saved: Saved = serde_json::from_str(&read_text(&path)?).map_err(|e| wrong(e.to_string()))?;
        if saved.model != *shape {
            return Err(wrong("the checkpoint is of another model than the configuration".to_owned()));
        }
        let file = File::open(&folder.join("model.safetensors"))?;
        for tensor in &layout.tensors {
            file.read(&tensor.name, &mut self.parameters[tensor.range.clone()])?;
        }
        let file = File::open(&folder.join("optimizer.safetensors"))?;
        self.optimizer.read(&file, saved.adam_steps)?;
        self.step = saved.step;
        Ok(true)
    }
}

/// A number of the standard normal distribution (Box and Muller).
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let mut uniform = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let (a, b) = (1.0 - uniform(), uniform());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}
