//! A fine-tuning in progress: its steps, validations and checkpoints.

use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::{Map, Value};

use super::pack::{Room, pack};
use super::rows;
use super::state::{self, State};
use super::{Event, Finetune, Method};
use crate::base::{Base, Storage};
use crate::checkpoint;
use crate::data::Example;
use crate::error::TrainError;
use crate::log::Log;
use crate::model::{Adapters, Batch, Distance, Layout, Lesson, Network, Wanted};
use crate::optimizer::{Course, Rates, Schedule, clip};

/// Gradients longer than this are shortened to it.
const CLIP: f32 = 1.0;

/// Muon's.
const MOMENTUM: f32 = 0.95;

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
            Method::Full | Method::Ternary { .. } => (Storage::File, false),
        };
        let mut base = Base::load(&options.base, &options.load, storage)?;
        if !adapted && base.shape.ternary {
            let problem = "the linear layers of this model are ternary; adapters can be trained";
            return Err(TrainError::input("method", problem));
        }
        let max_length = options.max_length.min(base.shape.seq_len);
        let ((rows, train), valid) = rows::read(options, &base, max_length)?;
        let room = Room { tokens: options.micro_tokens, threads: options.threads.max(1) };
        // Rows stand behind one another in sequences that may be longer than the context; no row is.
        base.shape.seq_len = max_length.max(room.tokens.div_ceil(room.threads));
        let layout = Layout::new(&base.shape);
        let adapters = options.adapters(&layout)?;
        let identity = state::identity(options, &rows);
        let start = options.start(&base)?;
        let first = start.as_ref().unwrap_or(&base.frozen);
        let mut state = State::new(options, adapters.as_ref(), &layout, first);
        drop(start);
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
            network: Network::new(base.shape.clone(), room.threads, options.recompute)
                .with_precision(options.precision),
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
        let parameters = session.layout.len();
        let tensors = session.layout.tensors.iter().filter(|t| options.trained().contains(&t.kind));
        let trained = if adapted { len } else { tensors.map(|t| t.range.len()).sum() };
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

    /// Mean loss of a batch in a step; `d` becomes its derivatives.
    fn loss(&mut self, batch: &Batch, d: &mut [f32]) -> f64 {
        if let (Some(share), &Method::Ternary { planes, hidden, embedding, .. }) =
            (self.share(), &self.options.method)
        {
            let lesson = Lesson { teacher: (&self.base.frozen).into(), planes, share, hidden, embedding };
            return self.network.distill(&self.state.values, &lesson, batch, Some(d)).loss(&lesson);
        }
        let values = &self.state.values;
        match &self.adapters {
            Some(adapters) => {
                let adapters = Some((adapters, &values[..]));
                self.network.run(&self.base.frozen, adapters, batch, Wanted::Adapters(d))
            }
            None => self.network.run(values, None, batch, Wanted::Model(d)),
        }
    }

    /// How much of the rounding a model that becomes ternary has in the step that comes.
    fn share(&self) -> Option<f32> {
        let Method::Ternary { gradual, .. } = self.options.method else { return None };
        let over = gradual * self.steps as f64;
        let share = (self.state.step + 1) as f64 / over.max(1.0);
        Some(share.min(1.0) as f32)
    }

    /// Whether more steps would not help a model that becomes ternary.
    pub(super) fn settled(&self) -> bool {
        matches!(self.options.method, Method::Ternary { patience, .. } if self.state.stale >= patience)
    }

    pub(super) fn validate(&mut self) -> Result<(), TrainError> {
        if self.valid.is_empty() {
            return Ok(());
        }
        let (mut sum, mut total) = (Distance::default(), 0.0);
        for batch in &self.valid {
            let (weight, values) = (batch.weight(), &self.state.values);
            sum += match (&self.options.method, &self.adapters) {
                (&Method::Ternary { planes, hidden, embedding, .. }, _) => {
                    let teacher = (&self.base.frozen).into();
                    let lesson = Lesson { teacher, planes, share: 1.0, hidden, embedding };
                    self.network.distill(values, &lesson, batch, None)
                }
                (_, Some(adapters)) => {
                    let adapters = Some((adapters, &values[..]));
                    let nll = self.network.run(&self.base.frozen, adapters, batch, Wanted::Loss);
                    Distance { nll, ..Distance::default() }
                }
                (_, None) => {
                    let nll = self.network.run(values, None, batch, Wanted::Loss);
                    Distance { nll, ..Distance::default() }
                }
            } * weight;
            total += weight;
        }
        let Distance { nll, kl, hidden } = sum * (1.0 / f64::max(total, 1.0));
        let rounded = self.share();
        if let Some(share) = rounded {
            if !kl.is_finite() {
                let (step, checkpoint) = (self.state.step, self.saved);
                let batch = "the rows to validate on".to_owned();
                let what = "divergence";
                return Err(TrainError::NotFinite { step, what, value: kl, batch, checkpoint });
            }
            self.state.judge(kl, share >= 1.0);
        }
        let (kl, hidden) = (rounded.map(|_| kl), rounded.map(|_| hidden));
        let (step, tokens) = (self.state.step, self.state.tokens);
        self.happened(Event::Validation { step, tokens, nll, kl, hidden })
    }

    /// The rows of the step that comes: every epoch has each once, in an order of its own.
    fn chosen(&self) -> Vec<&Example> {
        let (epoch, at) = (self.state.step / self.per_epoch, self.state.step % self.per_epoch);
        let mut random = ChaCha8Rng::seed_from_u64(self.options.seed);
        random.set_stream(1 + epoch);
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, (random.next_u64() % (i as u64 + 1)) as usize);
        }
        let size = self.options.batch_size;
        let first = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(size);
        order.iter().skip(first).take(size).map(|&i| &self.rows[i]).collect()
    }

    pub(super) fn step(&mut self) -> Result<(), TrainError> {
        let batches = pack(&self.chosen(), self.room);
        let weights: f64 = batches.iter().map(Batch::weight).sum();
        let (mut d, mut part_d) = (std::mem::take(&mut self.d), std::mem::take(&mut self.part_d));
        let mut loss = 0.0;
        for (i, batch) in batches.iter().enumerate() {
            self.network.seed_dropout(self.options.seed ^ (self.state.step << 24) ^ i as u64);
            let part = batch.weight() / weights;
            if i == 0 {
                loss = part * self.loss(batch, &mut d);
                d.iter_mut().for_each(|d| *d *= part as f32);
                continue;
            }
            part_d.resize(d.len(), 0.0);
            loss += part * self.loss(batch, &mut part_d);
            d.iter_mut().zip(&part_d).for_each(|(d, p)| *d += part as f32 * p);
        }
        let gradient = clip(&mut d, CLIP);
        for (what, value) in [("loss", loss), ("gradient", gradient)] {
            if !value.is_finite() {
                let (step, checkpoint) = (self.state.step, self.saved);
                let mut lines: Vec<usize> = self.chosen().iter().map(|row| row.line).collect();
                lines.sort_unstable();
                let data = &self.options.data;
                let kind = if data.is_dir() { "documents" } else { "lines" };
                let batch = format!("{kind} {} of {}", TrainError::list(&lines), data.display());
                return Err(TrainError::NotFinite { step, what, value, batch, checkpoint });
            }
        }
        let share = self.share();
        let factor = self.schedule.at(self.state.step).0;
        let learning_rate = f64::from(self.options.learning_rate) * factor;
        let rates = Rates {
            adam: learning_rate as f32,
            muon: (f64::from(self.options.muon_learning_rate.unwrap_or(0.0)) * factor) as f32,
            momentum: MOMENTUM,
            decay: self.options.weight_decay,
        };
        self.state.update(&self.layout, self.options.trained(), &d, rates);
        (self.d, self.part_d) = (d, part_d);
        self.state.tokens += weights as u64;
        self.tokens += batches.iter().map(|batch| batch.inputs.len()).sum::<usize>();
        let tokens_per_second = self.tokens as f64 / self.started.elapsed().as_secs_f64();
        let step = self.state.step;
        self.happened(Event::Step { step, loss, share, gradient, learning_rate, tokens_per_second })
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
