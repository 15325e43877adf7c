//! The configuration of a training: a TOML file.

use std::collections::BTreeMap;
use std::path::Path;

use kernels::gemm::Precision;
use serde::{Deserialize, Serialize};

use crate::data::read_text;
use crate::error::TrainError;
use crate::model::Shape;
use crate::optimizer::{Course, Schedule};

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is trained.
    pub model: Shape,
    /// How.
    pub training: Training,
    /// Parts of the training one after another; without any, one with the model's context and all data.
    #[serde(default, rename = "stage")]
    pub stages: Vec<Stage>,
}

/// How a model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Decides the initial weights and the order of the data.
    #[serde(default)]
    pub seed: u64,
    /// Steps in all.
    pub steps: u64,
    /// Tokens of a step.
    pub batch_tokens: usize,
    /// Tokens of which the derivatives are computed at once; a step adds up as many such parts as it takes.
    #[serde(default = "default_micro")]
    pub micro_tokens: usize,
    /// The peak of AdamW's learning rate.
    pub learning_rate: f32,
    /// The peak of Muon's, for the matrices of the linear layers; without it AdamW takes them, too.
    pub muon_learning_rate: Option<f32>,
    /// Muon's momentum.
    #[serde(default = "default_momentum")]
    pub momentum: f32,
    /// Decay of AdamW's mean of derivatives.
    #[serde(default = "default_beta1")]
    pub beta1: f32,
    /// Decay of AdamW's mean of squares.
    #[serde(default = "default_beta2")]
    pub beta2: f32,
    /// Weight decay of matrices, in terms of the learning rate; norms and the embedding have none.
    #[serde(default)]
    pub weight_decay: f32,
    /// Steps over which the learning rate rises.
    #[serde(default)]
    pub warmup_steps: u64,
    /// How it goes on: constant, cosine, trapezoid or two-phase.
    #[serde(default = "default_course")]
    pub course: Course,
    /// The least learning rate, as a fraction of the peak.
    #[serde(default)]
    pub least: f64,
    /// The last part of a trapezoid, over which it falls.
    #[serde(default = "default_decay")]
    pub decay: f64,
    /// Gradients longer than this are shortened to it; 0: never.
    #[serde(default = "default_clip")]
    pub clip: f32,
    /// How the products of matrices are made: "f32", or "bf16", which is faster on processors that have it.
    #[serde(default, with = "precision")]
    pub precision: Precision,
    /// Compute layers anew in the backward pass instead of keeping them: less memory, a third more time.
    #[serde(default)]
    pub recompute: bool,
    /// Steps from one validation to the next; 0: only at the end.
    #[serde(default)]
    pub validate_every: u64,
    /// Steps from one checkpoint to the next; 0: only at the end.
    #[serde(default)]
    pub checkpoint_every: u64,
    /// Checkpoints that are kept.
    #[serde(default = "default_keep")]
    pub keep: usize,
    /// What a sample text begins with at each validation; without it none is written.
    pub sample_prompt: Option<String>,
}

/// A part of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The step before which it ends; the last stage ends with the training.
    pub until: Option<u64>,
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// How often each data set is drawn from, by its folder's name; without it as often as it is long.
    #[serde(default)]
    pub mix: BTreeMap<String, f64>,
}

/// The names of [`Precision`], which does not know of files.
mod precision {
    use kernels::gemm::Precision;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Name {
        F32,
        Bf16,
    }

    pub(super) fn serialize<S: Serializer>(precision: &Precision, to: S) -> Result<S::Ok, S::Error> {
        match precision {
            Precision::F32 => Name::F32,
            Precision::Bf16 => Name::Bf16,
        }
        .serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Precision, D::Error> {
        Ok(match Name::deserialize(from)? {
            Name::F32 => Precision::F32,
            Name::Bf16 => Precision::Bf16,
        })
    }
}

fn default_micro() -> usize {
    8192
}
fn default_momentum() -> f32 {
    0.95
}
fn default_beta1() -> f32 {
    0.9
}
fn default_beta2() -> f32 {
    0.95
}
fn default_course() -> Course {
    Course::Cosine
}
fn default_decay() -> f64 {
    0.2
}
fn default_clip() -> f32 {
    1.0
}
fn default_keep() -> usize {
    2
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is no TOML, an unknown or missing field by its name, a value that does not do.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let wrong = |problem: String| TrainError::input(path.display().to_string(), problem);
        let mut config: Self = toml::from_str(&read_text(path)?).map_err(|e| wrong(e.to_string()))?;
        if config.stages.is_empty() {
            config.stages.push(Stage { until: None, seq_len: config.model.seq_len, mix: BTreeMap::new() });
        }
        config.check().map_err(wrong)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        self.model.check().map_err(|e| format!("model.{e}"))?;
        if self.model.ternary && !self.model.sub_norms {
            return Err("model: ternary models have sub_norms (BitNet b1.58)".to_owned());
        }
        if self.model.sub_norms && !self.model.ternary {
            return Err("model: models with sub_norms are ternary (BitNet b1.58)".to_owned());
        }
        let t = &self.training;
        let positive = [
            ("steps", t.steps > 0),
            ("batch_tokens", t.batch_tokens > 0),
            ("micro_tokens", t.micro_tokens > 0),
            ("keep", t.keep > 0),
            ("learning_rate", t.learning_rate > 0.0 && t.learning_rate.is_finite()),
            ("muon_learning_rate", t.muon_learning_rate.is_none_or(|r| r > 0.0 && r.is_finite())),
        ];
        if let Some((field, _)) = positive.iter().find(|(_, fine)| !fine) {
            return Err(format!("training.{field} is not positive"));
        }
        let fractions = [
            ("momentum", f64::from(t.momentum)),
            ("beta1", f64::from(t.beta1)),
            ("beta2", f64::from(t.beta2)),
            ("least", t.least),
            ("decay", t.decay),
        ];
        if let Some((field, value)) = fractions.iter().find(|(_, v)| !(0.0..=1.0).contains(v)) {
            return Err(format!("training.{field}: {value} is not between 0 and 1"));
        }
        let mut from = 0;
        for (i, stage) in self.stages.iter().enumerate() {
            let last = i + 1 == self.stages.len();
            if stage.seq_len == 0 || stage.seq_len > self.model.seq_len {
                let most = self.model.seq_len;
                return Err(format!("stage {i}: seq_len {} is not between 1 and {most}", stage.seq_len));
            }
            match stage.until {
                Some(until) if until <= from => {
                    return Err(format!("stage {i} ends at step {until}, where it begins or before"));
                }
                None if !last => return Err(format!("stage {i} does not say until which step it goes")),
                until => from = until.unwrap_or(u64::MAX),
            }
            if let Some((name, share)) = stage.mix.iter().find(|(_, s)| !(s.is_finite() && **s >= 0.0)) {
                return Err(format!("stage {i}: the share of {name} is {share}"));
            }
        }
        Ok(())
    }

    /// How the learning rate goes.
    pub fn schedule(&self) -> Schedule {
        let t = &self.training;
        Schedule { steps: t.steps, warmup: t.warmup_steps, course: t.course, least: t.least, decay: t.decay }
    }

    /// The stage that holds a step, and its own first step.
    pub fn stage(&self, step: u64) -> (usize, u64) {
        let mut from = 0;
        for (i, stage) in self.stages.iter().enumerate() {
            match stage.until {
                Some(until) if step >= until && i + 1 < self.stages.len() => from = until,
                _ => return (i, from),
            }
        }
        (0, 0)
    }
}
