//! Fine-tuning: a model of a file learns from rows of questions and answers.
//!
//! Either its frozen matrices get adapters (LoRA; with the matrices in few bits, QLoRA), or all parameters are trained.

mod pack;
mod state;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::LoadOptions;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::base::{Base, Storage};
use crate::checkpoint;
use crate::data::{Encoding, Example, ExamplesReport, examples};
use crate::error::TrainError;
use crate::log::Log;
use crate::model::{Adapters, Batch, Layout, Network, Wanted};
use crate::optimizer::{Course, Schedule, clip};
use crate::peft;
use pack::{Room, pack};
use state::State;

/// Gradients longer than this are shortened to it.
const CLIP: f32 = 1.0;

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
}

/// A fine-tuning to run.
#[derive(Debug, Clone)]
pub struct Finetune {
    /// The model, in any format that the engine reads.
    pub base: PathBuf,
    /// Its tokenizer and chat template, where they are not its own.
    pub load: LoadOptions,
    /// Rows to learn from: see [`crate::data::examples`].
    pub data: PathBuf,
    /// Rows to validate on.
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
        /// Mean loss of its answers before it, in nats a token.
        loss: f64,
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
        /// Mean loss of all answers, in nats a token.
        nll: f64,
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
    /// All steps are done; these are the parameters, for [`crate::base::place`].
    Model {
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
        while session.state.step < steps && !stop.load(Ordering::Relaxed) {
            session.step()?;
            let step = session.state.step;
            let epoch_done = step.is_multiple_of(session.per_epoch);
            let due = match self.checkpoint_every {
                0 => epoch_done,
                every => step.is_multiple_of(every),
            };
            if epoch_done {
                session.validate()?;
            }
            if due || step == steps || stop.load(Ordering::Relaxed) {
                session.save()?;
            }
        }
        if session.state.step < steps {
            // Stopped between the end of a step and the beginning of the next.
            session.save()?;
            return Ok(Finished::Stopped);
        }
        let Session { base, layout, adapters, state, .. } = session;
        let Some(adapters) = adapters else {
            return Ok(Finished::Model { layout, parameters: state.values });
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
        match checks.iter().find(|(_, fine)| !fine) {
            Some((option, _)) => Err(TrainError::input(*option, "is out of its range")),
            None => Ok(()),
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

/// A fine-tuning in progress.
struct Session<'a> {
    options: &'a Finetune,
    base: Base,
    layout: Layout,
    adapters: Option<Adapters>,
    network: Network,
    state: State,
    /// All that decides how it goes on, by name.
    identity: Map<String, Value>,
    rows: Vec<Example>,
    valid: Vec<Batch>,
    room: Room,
    per_epoch: u64,
    steps: u64,
    schedule: Schedule,
    log: Log,
    events: &'a mut dyn FnMut(&Event),
    /// The last step that is in a checkpoint.
    saved: u64,
    started: Instant,
    tokens: usize,
    d: Vec<f32>,
    part_d: Vec<f32>,
}

impl<'a> Session<'a> {
    /// Reads everything, and takes up the last checkpoint if asked to.
    fn open(options: &'a Finetune, events: &'a mut dyn FnMut(&Event)) -> Result<Self, TrainError> {
        let (storage, adapted) = match &options.method {
            Method::Adapters { storage, .. } => (*storage, true),
            Method::Full => (Storage::File, false),
        };
        let mut base = Base::load(&options.base, &options.load, storage)?;
        if !adapted && base.shape.ternary {
            let problem = "full: the linear layers of this model are ternary; adapters can be trained";
            return Err(TrainError::input("method", problem));
        }
        let max_length = options.max_length.min(base.shape.seq_len);
        let (template, eos) = (base.template.as_ref(), &base.eos);
        let encoding = Encoding { tokenizer: &base.tokenizer, template, eos, max_length };
        let (rows, train) = examples(&options.data, &encoding)?;
        let valid = options.valid.as_deref().map(|file| examples(file, &encoding)).transpose()?;
        let room = Room { tokens: options.micro_tokens, threads: options.threads.max(1) };
        // Rows stand behind one another in sequences that may be longer than the context; no row is.
        base.shape.seq_len = max_length.max(room.tokens.div_ceil(room.threads));
        let layout = Layout::new(&base.shape);
        let adapters = options.adapters(&layout)?;
        let identity = state::identity(options, &rows);
        let mut state = State::new(adapters.as_ref(), &layout, &base.frozen, options.seed);
        std::fs::create_dir_all(&options.output).map_err(TrainError::io(&options.output))?;
        let mut resumed = false;
        if options.resume {
            resumed = state.resume(&options.output, adapters.as_ref(), &layout, &identity)?;
        } else {
            checkpoint::check_new(&options.output)?;
        }
        let (per_epoch, len) = (rows.len().div_ceil(options.batch_size) as u64, state.values.len());
        let steps = per_epoch * options.epochs;
        let warmup = (steps as f64 * options.warmup).round() as u64;
        let valid_report = valid.as_ref().map(|(_, report)| *report);
        let valid = valid.map(|(rows, _)| pack(&rows.iter().collect::<Vec<_>>(), room));
        let mut session = Self {
            network: Network::new(base.shape.clone(), room.threads, options.recompute),
            schedule: Schedule { steps, warmup, course: Course::Cosine, least: 0.0, decay: 0.0 },
            log: Log::open(&options.output)?,
            valid: valid.unwrap_or_default(),
            saved: state.step,
            started: Instant::now(),
            tokens: 0,
            d: vec![0.0; len],
            part_d: Vec::new(),
            options,
            base,
            layout,
            adapters,
            state,
            identity,
            rows,
            room,
            per_epoch,
            steps,
            events,
        };
        let (trained, parameters) = (len, session.layout.len());
        session.happened(Event::Data { train, valid: valid_report, steps, trained, parameters })?;
        if resumed {
            session.happened(Event::Resumed { step: session.state.step })?;
        }
        Ok(session)
    }

    fn happened(&mut self, event: Event) -> Result<(), TrainError> {
        self.log.write(&event)?;
        (self.events)(&event);
        Ok(())
    }

    /// Mean loss of a batch; `d` becomes its derivatives.
    fn loss(&mut self, batch: &Batch, d: Option<&mut [f32]>) -> f64 {
        let values = &self.state.values;
        match &self.adapters {
            Some(adapters) => {
                let adapters = Some((adapters, &values[..]));
                self.network.run(&self.base.frozen, adapters, batch, d.map_or(Wanted::Loss, Wanted::Adapters))
            }
            None => self.network.run(values, None, batch, d.map_or(Wanted::Loss, Wanted::Model)),
        }
    }

    fn validate(&mut self) -> Result<(), TrainError> {
        if self.valid.is_empty() {
            return Ok(());
        }
        let batches = std::mem::take(&mut self.valid);
        let (mut sum, mut total) = (0.0, 0.0);
        for batch in &batches {
            let weight = batch.weight();
            sum += weight * self.loss(batch, None);
            total += weight;
        }
        self.valid = batches;
        self.happened(Event::Validation { step: self.state.step, nll: sum / f64::max(total, 1.0) })
    }

    /// The rows of the step that comes: every epoch has each once, in an order of its own.
    fn batches(&self) -> Vec<Batch> {
        let (epoch, at) = (self.state.step / self.per_epoch, self.state.step % self.per_epoch);
        let mut random = ChaCha8Rng::seed_from_u64(self.options.seed);
        random.set_stream(1 + epoch);
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, (random.next_u64() % (i as u64 + 1)) as usize);
        }
        let size = self.options.batch_size;
        let first = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(size);
        let chosen: Vec<&Example> = order.iter().skip(first).take(size).map(|&i| &self.rows[i]).collect();
        pack(&chosen, self.room)
    }

    fn step(&mut self) -> Result<(), TrainError> {
        let batches = self.batches();
        let weights: f64 = batches.iter().map(Batch::weight).sum();
        let (mut d, mut part_d) = (std::mem::take(&mut self.d), std::mem::take(&mut self.part_d));
        let mut loss = 0.0;
        for (i, batch) in batches.iter().enumerate() {
            self.network.seed_dropout(self.options.seed ^ (self.state.step << 24) ^ i as u64);
            let part = batch.weight() / weights;
            if i == 0 {
                loss = part * self.loss(batch, Some(&mut d));
                d.iter_mut().for_each(|d| *d *= part as f32);
                continue;
            }
            part_d.resize(d.len(), 0.0);
            loss += part * self.loss(batch, Some(&mut part_d));
            d.iter_mut().zip(&part_d).for_each(|(d, p)| *d += part as f32 * p);
        }
        let gradient = clip(&mut d, CLIP);
        for (what, value) in [("loss", loss), ("gradient", gradient)] {
            if !value.is_finite() {
                let (step, checkpoint) = (self.state.step, self.saved);
                return Err(TrainError::NotFinite { step, what, value, checkpoint });
            }
        }
        let learning_rate = f64::from(self.options.learning_rate) * self.schedule.at(self.state.step).0;
        self.state.update(&self.layout, &d, learning_rate as f32, self.options.weight_decay);
        (self.d, self.part_d) = (d, part_d);
        self.tokens += batches.iter().map(|batch| batch.inputs.len()).sum::<usize>();
        let tokens_per_second = self.tokens as f64 / self.started.elapsed().as_secs_f64();
        let step = self.state.step;
        self.happened(Event::Step { step, loss, gradient, learning_rate, tokens_per_second })
    }

    fn save(&mut self) -> Result<(), TrainError> {
        let base = self.base.path.display().to_string();
        let (options, identity) = (self.options, &self.identity);
        self.state.save(
            &options.output,
            self.adapters.as_ref(),
            &self.layout,
            identity,
            &base,
            options.keep,
        )?;
        self.saved = self.state.step;
        self.happened(Event::Checkpoint { step: self.state.step })
    }
}
