//! A fine-tuning in progress: its steps, validations and checkpoints.

use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::{Map, Value};

use super::pack::{Room, pack};
use super::state::{self, State};
use super::{Event, Finetune, Method};
use crate::base::{Base, Storage};
use crate::checkpoint;
use crate::data::{Encoding, Example, examples};
use crate::error::TrainError;
use crate::log::Log;
use crate::model::{Adapters, Batch, Layout, Network, Wanted};
use crate::optimizer::{Course, Schedule, clip};

/// Gradients longer than this are shortened to it.
const CLIP: f32 = 1.0;

/// A fine-tuning in progress.
pub(super) struct Session<'a> {
    options: &'a Finetune,
    pub(super) base: Base,
    pub(super) layout: Layout,
    pub(super) adapters: Option<Adapters>,
    network: Network,
    pub(super) state: State,
    /// All that decides how it goes on, by name.
    identity: Map<String, Value>,
    rows: Vec<Example>,
    valid: Vec<Batch>,
    room: Room,
    pub(super) per_epoch: u64,
    pub(super) steps: u64,
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
    pub(super) fn open(options: &'a Finetune, events: &'a mut dyn FnMut(&Event)) -> Result<Self, TrainError> {
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

    pub(super) fn validate(&mut self) -> Result<(), TrainError> {
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

    pub(super) fn step(&mut self) -> Result<(), TrainError> {
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

    pub(super) fn save(&mut self) -> Result<(), TrainError> {
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
