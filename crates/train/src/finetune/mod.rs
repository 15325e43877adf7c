//! Fine-tuning: a model of a file learns from rows of questions and answers.
//!
//! Its frozen matrices get adapters (LoRA; with the matrices in few bits, QLoRA), or all parameters are trained, or its linear
//! layers become ternary beside the model that it was.

mod pack;
mod rows;
mod session;
mod state;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::LoadOptions;
pub use kernels::gemm::Precision;
use serde::Serialize;

use crate::base::{Base, FloatType, Storage, Written};
use crate::data::ExamplesReport;
use crate::error::TrainError;
pub use crate::model::Planes;
use crate::model::{Adapters, Frozen, Kind, Layout, Shape};
use crate::peft;
use session::Session;

/// What is trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    /// Adapters beside frozen matrices.
    Adapters {
        /// Columns of B, rows of A.
        rank: usize,
        /// The factor on what an adapter adds is this over the rank.
        alpha: f32,
        /// The part of its inputs that an adapter is not shown.
        dropout: f32,
        /// Names of the linear layers that get one: `q_proj`, ...
        targets: Vec<String>,
        /// How the frozen matrices are kept.
        storage: Storage,
    },
    /// All parameters.
    Full,
    /// The linear layers, while they become ternary, and the norms: fitted to what the model said before, whose predictions and
    /// residual stream they are to keep ([`crate::model::Network::distill`]).
    Ternary {
        /// The planes that a layer becomes.
        planes: Planes,
        /// The part of the steps over which the share of rounding rises from 0 to 1.
        gradual: f64,
        /// How much the residual streams' distance counts beside the predictions' divergence.
        hidden: f32,
        /// Validations without a smaller divergence, once all is rounded, after which the training ends.
        patience: u64,
        /// What the layers begin as instead of the model itself: one of the same shape, like a ternary one that was made of it.
        start: Option<PathBuf>,
        /// Whether embedding and classifier are trained, too.
        embedding: bool,
    },
}

/// A fine-tuning to run.
#[derive(Debug, Clone)]
pub struct Finetune {
    /// The model, in any format that the engine reads.
    pub base: PathBuf,
    /// Its tokenizer and chat template, where they are not its own.
    pub load: LoadOptions,
    /// Rows to learn from: see [`crate::data::examples`], or a folder with token shards ([`crate::data::shard_rows`]).
    pub data: PathBuf,
    /// Rows to validate on, likewise; the folder of `data` may have some, too.
    pub valid: Option<PathBuf>,
    /// Where checkpoints, the log and the adapters go.
    pub output: PathBuf,
    /// What is trained.
    pub method: Method,
    /// How often each row is learned from.
    pub epochs: u64,
    /// Rows of a step.
    pub batch_size: usize,
    /// The peak of AdamW's learning rate; it falls to 0 in half a cosine.
    pub learning_rate: f32,
    /// Muon's learning rate at its peak: with it the linear layers, if they are trained, are Muon's, all else AdamW's.
    pub muon_learning_rate: Option<f32>,
    /// Weight decay of matrices, in terms of the learning rate.
    pub weight_decay: f32,
    /// The part of the steps over which the learning rate rises.
    pub warmup: f64,
    /// Tokens of a row at most.
    pub max_length: usize,
    /// Tokens of which the derivatives are computed at once, if no row is longer.
    pub micro_tokens: usize,
    /// Compute layers anew in the backward pass instead of keeping them: less memory, a third more time.
    pub recompute: bool,
    /// How the matrix products of a step are made; validations make them in f32.
    pub precision: Precision,
    /// Steps from one validation to the next; 0: after each epoch. There is one at the end in any case.
    pub validate_every: u64,
    /// Steps from one checkpoint to the next; 0: after each epoch.
    pub checkpoint_every: u64,
    /// Checkpoints that are kept.
    pub keep: usize,
    /// Decides the initial adapters, the order of the rows and what dropout leaves out.
    pub seed: u64,
    /// Threads that share a step's rows. Sums depend on their number, so a training that is to be repeated exactly needs the
    /// same.
    pub threads: usize,
    /// Whether to go on from the last checkpoint of `output`.
    pub resume: bool,
}

/// What happens in a fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The rows are read.
    Data {
        /// Rows to learn from.
        train: ExamplesReport,
        /// Rows to validate on.
        valid: Option<ExamplesReport>,
        /// Steps in all.
        steps: u64,
        /// Parameters that are trained.
        trained: usize,
        /// Parameters in all.
        parameters: usize,
    },
    /// It goes on from a checkpoint.
    Resumed {
        /// Steps done.
        step: u64,
    },
    /// A step is done.
    Step {
        /// Steps done.
        step: u64,
        /// Mean loss of its answers before it, in nats a token; of a model that becomes ternary the distance from its teacher.
        loss: f64,
        /// How much of the rounding a model that becomes ternary has.
        #[serde(skip_serializing_if = "Option::is_none")]
        share: Option<f32>,
        /// Length of the gradient before it was shortened.
        gradient: f64,
        /// The learning rate.
        learning_rate: f64,
        /// Tokens read since this run began, over the time.
        tokens_per_second: f64,
    },
    /// A validation is done.
    Validation {
        /// Steps done.
        step: u64,
        /// Tokens learned from.
        tokens: u64,
        /// Mean loss of all answers, in nats a token.
        nll: f64,
        /// Mean divergence from the teacher, in nats a token, of a model that becomes ternary: with all of it rounded.
        #[serde(skip_serializing_if = "Option::is_none")]
        kl: Option<f64>,
        /// Likewise the distance of the residual streams.
        #[serde(skip_serializing_if = "Option::is_none")]
        hidden: Option<f64>,
    },
    /// A checkpoint is written.
    Checkpoint {
        /// Steps done.
        step: u64,
    },
}

/// How a run ended.
#[derive(Debug)]
pub enum Finished {
    /// It was stopped; a checkpoint holds what was done.
    Stopped,
    /// All steps are done, and the adapters are written to the output folder.
    Adapters,
    /// All steps are done, or no more were of use; these are the parameters, for [`crate::base::place`].
    Model {
        /// How they are to be written.
        written: Written,
        /// Where each tensor lies.
        layout: Layout,
        /// All of them.
        parameters: Vec<f32>,
    },
}

impl Finetune {
    /// Trains. `events` hears of everything that happens and is also written to `log.jsonl`; `stop`: set it to end after the
    /// step in progress.
    ///
    /// # Errors
    /// A base that cannot be trained, options that do not go with it, rows that cannot be read, a loss that is no number any
    /// more, a full disk; the last checkpoint stays as it is.
    pub fn run(&self, stop: &AtomicBool, events: &mut dyn FnMut(&Event)) -> Result<Finished, TrainError> {
        self.check()?;
        let mut session = Session::open(self, events)?;
        let steps = session.steps;
        if session.state.step == 0 {
            session.validate()?;
        }
        while session.state.step < steps && !session.settled() && !stop.load(Ordering::Relaxed) {
            session.step()?;
            let step = session.state.step;
            let due = |every: u64| step.is_multiple_of(if every == 0 { session.per_epoch } else { every });
            let (validate, save) = (due(self.validate_every), due(self.checkpoint_every));
            if validate || step == steps {
                session.validate()?;
            }
            if save || step == steps || session.settled() || stop.load(Ordering::Relaxed) {
                session.save()?;
            }
        }
        if session.state.step < steps && !session.settled() {
            // Stopped between the end of a step and the beginning of the next.
            session.save()?;
            return Ok(Finished::Stopped);
        }
        let Session { base, layout, adapters, state, .. } = session;
        let Some(adapters) = adapters else {
            let (written, parameters) = match self.method {
                Method::Ternary { planes, .. } => (Written::Ternary(planes), state.into_best()),
                _ => (Written::Floats(FloatType::F16), state.values),
            };
            return Ok(Finished::Model { written, layout, parameters });
        };
        peft::save(&self.output, &adapters, &state.values, &base.path.display().to_string())?;
        Ok(Finished::Adapters)
    }

    fn check(&self) -> Result<(), TrainError> {
        let positive = |x: f32| x.is_finite() && x > 0.0;
        let mut checks = vec![
            ("epochs", self.epochs > 0),
            ("batch-size", self.batch_size > 0),
            ("micro-tokens", self.micro_tokens > 0),
            ("learning-rate", positive(self.learning_rate)),
            ("muon-learning-rate", self.muon_learning_rate.is_none_or(positive)),
            ("weight-decay", self.weight_decay == 0.0 || positive(self.weight_decay)),
            ("warmup", (0.0..=1.0).contains(&self.warmup)),
            ("max-length", self.max_length > 1),
        ];
        if let Method::Adapters { rank, alpha, dropout, targets, .. } = &self.method {
            checks.extend([
                ("lora-r", (1..=4096).contains(rank)),
                ("lora-alpha", positive(*alpha)),
                ("lora-dropout", (0.0..0.95).contains(dropout)),
                ("target-modules", !targets.is_empty()),
            ]);
        }
        if let Method::Ternary { gradual, hidden, patience, .. } = &self.method {
            checks.extend([
                ("gradual", (0.0..=1.0).contains(gradual)),
                ("hidden-weight", *hidden == 0.0 || positive(*hidden)),
                ("patience", *patience > 0),
            ]);
        }
        match checks.iter().find(|(_, fine)| !fine) {
            Some((option, _)) => Err(TrainError::input(*option, "is out of its range")),
            None => Ok(()),
        }
    }

    /// The kinds of the model's own tensors that are trained.
    fn trained(&self) -> &'static [Kind] {
        match self.method {
            Method::Adapters { .. } => &[],
            Method::Full | Method::Ternary { embedding: true, .. } => &Kind::ALL,
            Method::Ternary { .. } => &[Kind::Norm, Kind::Linear],
        }
    }

    /// What a model that becomes ternary begins as, if not as the base model.
    fn start(&self, base: &Base) -> Result<Option<Frozen>, TrainError> {
        let Method::Ternary { start: Some(path), .. } = &self.method else { return Ok(None) };
        let start = Base::load(path, &self.load, Storage::File)?;
        let Shape { seq_len, ternary, .. } = base.shape;
        let shape = Shape { seq_len, ternary, ..start.shape };
        match shape == base.shape {
            true => Ok(Some(start.frozen)),
            false => {
                let problem = format!("{} has another shape than the base model", path.display());
                Err(TrainError::input("start", problem))
            }
        }
    }

    /// The adapters that the method asks for.
    fn adapters(&self, layout: &Layout) -> Result<Option<Adapters>, TrainError> {
        let Method::Adapters { rank, alpha, dropout, targets, .. } = &self.method else { return Ok(None) };
        let mut adapters = Adapters::new(layout, *rank, *alpha, targets);
        adapters.dropout = *dropout;
        match targets.iter().find(|target| !adapters.has(target)) {
            Some(target) => {
                let known = Adapters::possible(layout).join(", ");
                Err(TrainError::input("target-modules", format!("the model has no {target}, but {known}")))
            }
            None => Ok(Some(adapters)),
        }
    }
}
