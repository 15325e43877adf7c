//! The loop: steps, validation, checkpoints, log.

mod config;
mod export;
mod state;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::SourceFile;
use engine::tokenizer::Tokenizer;
use formats::token_shard::TokenShard;
use serde::Serialize;

pub use config::{Config, Stage, Training};
pub use export::export;

use crate::checkpoint;
use crate::data::{Sampler, Source, read_text, validation};
use crate::error::TrainError;
use crate::log::Log;
use crate::model::{Batch, Network, Wanted};
use crate::optimizer::clip;
use state::State;

/// A training to run.
#[derive(Debug, Clone)]
pub struct Run {
    /// What is trained and how.
    pub config: Config,
    /// Folders that [`crate::data::prepare()`] wrote; each is known by its name.
    pub data: Vec<PathBuf>,
    /// Where checkpoints, the log and the model go.
    pub output: PathBuf,
    /// Threads that share a step's sequences. Sums depend on their number, so a training that is to be repeated exactly
    /// needs the same.
    pub threads: usize,
    /// Whether to go on from the last checkpoint of `output`.
    pub resume: bool,
}

/// What happens in a training.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It goes on from a checkpoint.
    Resumed {
        /// Steps done.
        step: u64,
    },
    /// A step is done.
    Step {
        /// Steps done.
        step: u64,
        /// Mean loss of its tokens before it, in nats.
        loss: f64,
        /// Length of the gradient before it was shortened.
        gradient: f64,
        /// What the learning rates are multiplied with.
        rate: f64,
        /// Tokens trained on since this run began, over the time.
        tokens_per_second: f64,
    },
    /// A validation is done.
    Validation {
        /// Steps done.
        step: u64,
        /// The data set.
        name: String,
        /// Mean loss of its tokens, in nats.
        nll: f64,
        /// The same in bits a byte of text.
        bits_per_byte: f64,
    },
    /// A sample text of the model as it is.
    Sample {
        /// Steps done.
        step: u64,
        /// What it wrote behind the prompt.
        text: String,
    },
    /// A checkpoint, and the model as a folder that the engine reads, are written.
    Checkpoint {
        /// Steps done.
        step: u64,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Done,
    /// It was stopped; a checkpoint holds what was done.
    Stopped,
}

/// An opened data set.
struct Set {
    name: String,
    train: Option<SourceFile>,
    valid: Option<SourceFile>,
}

fn open(folder: &Path) -> Result<Set, TrainError> {
    let file = |name: &str| {
        let path = folder.join(name);
        if path.is_file() { SourceFile::open(&path).map(Some) } else { Ok(None) }
    };
    let set = Set {
        name: folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        train: file("train.tokens")?,
        valid: file("valid.tokens")?,
    };
    if set.train.is_none() && set.valid.is_none() {
        let problem = "neither train.tokens nor valid.tokens is there: `edgellm data prepare` makes them";
        return Err(TrainError::input(folder.display().to_string(), problem));
    }
    Ok(set)
}

/// A shard of an opened file.
fn parse(file: Option<&SourceFile>) -> Result<Option<TokenShard<'_>>, TrainError> {
    let Some(file) = file else { return Ok(None) };
    let wrong = |source| TrainError::Format { path: file.path().to_owned(), source };
    TokenShard::parse(file.bytes()).map(Some).map_err(wrong)
}

/// Tokens of a part of a validation.
const VALIDATION_TOKENS: usize = 4096;

impl Run {
    /// Trains. `events` hears of everything that happens and is also written to `log.jsonl`; `sample` is asked for a text of
    /// the model that was just written, given its folder and the prompt; `stop`: set it to end after the step in progress.
    ///
    /// # Errors
    /// Data or a configuration that do not go together, a loss that is no number any more, a full disk; the last checkpoint
    /// stays as it is.
    pub fn train(
        &self,
        stop: &AtomicBool,
        sample: &mut dyn FnMut(&Path, &str) -> Result<String, TrainError>,
        events: &mut dyn FnMut(&Event),
    ) -> Result<Ended, TrainError> {
        let (shape, training) = (&self.config.model, &self.config.training);
        let sets: Vec<Set> = self.data.iter().map(|folder| open(folder)).collect::<Result<_, _>>()?;
        let mut shards = Vec::new();
        for set in &sets {
            shards.push((set.name.as_str(), parse(set.train.as_ref())?, parse(set.valid.as_ref())?));
        }
        let bos = self.tokenizer(&shards)?;
        std::fs::create_dir_all(&self.output).map_err(TrainError::io(&self.output))?;
        let mut network =
            Network::new(shape.clone(), self.threads, training.recompute).with_precision(training.precision);
        let layout = network.layout().clone();
        let mut state = State::new(shape, &layout, training, self.threads);
        if self.resume {
            if state.resume(&self.output, shape, &layout)? {
                events(&Event::Resumed { step: state.step });
            }
        } else {
            checkpoint::check_new(&self.output)?;
        }
        let mut log = Log::open(&self.output)?;
        let mut happened = |event: Event| -> Result<(), TrainError> {
            log.write(&event)?;
            events(&event);
            Ok(())
        };

        let schedule = self.config.schedule();
        let mut saved = state.step;
        let mut sampler: Option<(usize, Sampler<'_>)> = None;
        let mut d = vec![0.0; layout.len()];
        let mut part_d = vec![0.0; layout.len()];
        let (start, mut tokens) = (Instant::now(), 0);
        while state.step < training.steps && !stop.load(Ordering::Relaxed) {
            let (stage, first) = self.config.stage(state.step);
            let seq_len = self.config.stages[stage].seq_len;
            let sequences = (training.batch_tokens / seq_len).max(1);
            if sampler.as_ref().is_none_or(|(of, _)| *of != stage) {
                let seed = training.seed.wrapping_add(stage as u64 + 1);
                let (_, sources) = self.sources(stage, &shards)?;
                let mut new = Sampler::new(sources, seq_len, bos, seed);
                new.skip(sequences * usize::try_from(state.step - first).unwrap_or(usize::MAX));
                sampler = Some((stage, new));
            }
            let Some((_, sampler)) = &mut sampler else { continue };
            let micro = (training.micro_tokens / seq_len).clamp(1, sequences);
            let mut loss = 0.0;
            d.fill(0.0);
            let mut left = sequences;
            while left > 0 {
                let batch = sampler.batch(micro.min(left));
                let part = micro.min(left) as f64 / sequences as f64;
                left -= micro.min(left);
                loss += part * network.run(&state.parameters, None, &batch, Wanted::Model(&mut part_d));
                let factor = part as f32;
                d.iter_mut().zip(&part_d).for_each(|(d, p)| *d += factor * p);
            }
            let gradient = clip(&mut d, training.clip);
            for (what, value) in [("loss", loss), ("gradient", gradient)] {
                if !value.is_finite() {
                    let batch = self.documents(state.step, &shards)?;
                    let step = state.step;
                    return Err(TrainError::NotFinite { step, what, value, batch, checkpoint: saved });
                }
            }
            let factors = schedule.at(state.step);
            state.update(&layout, training, &d, factors);
            tokens += sequences * seq_len;
            let tokens_per_second = tokens as f64 / start.elapsed().as_secs_f64();
            happened(Event::Step { step: state.step, loss, gradient, rate: factors.0, tokens_per_second })?;

            let due =
                |every: u64| state.step == training.steps || (every > 0 && state.step.is_multiple_of(every));
            let stopped = stop.load(Ordering::Relaxed);
            let validate = due(training.validate_every);
            if validate {
                for (name, _, valid) in &shards {
                    if let Some(valid) = valid {
                        happened(validate_on(&mut network, &state, name, *valid, bos))?;
                    }
                }
            }
            if due(training.checkpoint_every) || stopped {
                state.save(&self.output, shape, &layout, training.keep)?;
                saved = state.step;
                let model = self.output.join("model");
                export(&model, shape, &layout, &state.parameters, bos)?;
                self.copy_tokenizer(&model)?;
                happened(Event::Checkpoint { step: state.step })?;
                if let Some(prompt) = training.sample_prompt.as_deref().filter(|_| !stopped) {
                    happened(Event::Sample { step: state.step, text: sample(&model, prompt)? })?;
                }
            }
        }
        // Stopped between the end of a step and the beginning of the next.
        if state.step > saved {
            state.save(&self.output, shape, &layout, training.keep)?;
        }
        Ok(if state.step >= training.steps { Ended::Done } else { Ended::Stopped })
    }

    /// The token that begins a text. All data must be of one vocabulary: the model's.
    fn tokenizer(
        &self,
        shards: &[(&str, Option<TokenShard<'_>>, Option<TokenShard<'_>>)],
    ) -> Result<u32, TrainError> {
        let Some(folder) = self.data.first() else {
            return Err(TrainError::input("data", "there is none"));
        };
        let json = read_text(&folder.join("tokenizer.json"))?;
        for (other, (name, train, valid)) in self.data.iter().zip(shards) {
            if read_text(&other.join("tokenizer.json"))? != json {
                let problem = format!("its tokenizer is not that of {}", folder.display());
                return Err(TrainError::input(other.display().to_string(), problem));
            }
            let known = self.config.model.vocab_size;
            if let Some(shard) = [train, valid].into_iter().flatten().find(|s| s.vocab_size as usize != known)
            {
                let problem = format!("{} tokens in the data {name}, {known} in the model", shard.vocab_size);
                return Err(TrainError::input("model.vocab_size", problem));
            }
        }
        let config = read_text(&folder.join("tokenizer_config.json"))?;
        let tokenizer = Tokenizer::from_hf(json.as_bytes(), Some(config.as_bytes()))?;
        tokenizer.bos().ok_or_else(|| {
            TrainError::input(folder.display().to_string(), "no token of its tokenizer begins a text")
        })
    }

    fn copy_tokenizer(&self, model: &Path) -> Result<(), TrainError> {
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            if let Some(folder) = self.data.first() {
                crate::data::write_text(&model.join(name), &read_text(&folder.join(name))?)?;
            }
        }
        Ok(())
    }

    /// The documents of a step's batch, by data set.
    fn documents(
        &self,
        step: u64,
        shards: &[(&str, Option<TokenShard<'_>>, Option<TokenShard<'_>>)],
    ) -> Result<String, TrainError> {
        let (stage, first) = self.config.stage(step);
        let seq_len = self.config.stages[stage].seq_len;
        let sequences = (self.config.training.batch_tokens / seq_len).max(1);
        let (names, sources) = self.sources(stage, shards)?;
        // Which token begins a text makes no difference to where sequences lie.
        let mut sampler =
            Sampler::new(sources, seq_len, 0, self.config.training.seed.wrapping_add(stage as u64 + 1));
        sampler.skip(sequences * usize::try_from(step - first).unwrap_or(usize::MAX));
        let mut numbers = vec![BTreeSet::new(); names.len()];
        for (source, documents) in sampler.documents(sequences) {
            numbers[source].extend(documents);
        }
        let of_sets = names.iter().zip(numbers).filter(|(_, numbers)| !numbers.is_empty());
        let told = of_sets.map(|(name, numbers)| {
            format!("documents {} of {name}", TrainError::list(&numbers.into_iter().collect::<Vec<_>>()))
        });
        Ok(told.collect::<Vec<_>>().join(", "))
    }

    /// What a stage draws from: the names of the data sets, and they themselves.
    fn sources<'a, 'b>(
        &self,
        stage: usize,
        shards: &[(&'b str, Option<TokenShard<'a>>, Option<TokenShard<'a>>)],
    ) -> Result<(Vec<&'b str>, Vec<Source<'a>>), TrainError> {
        let mix = &self.config.stages[stage].mix;
        if let Some(name) = mix.keys().find(|name| !shards.iter().any(|(known, ..)| known == name)) {
            let known: Vec<&str> = shards.iter().map(|(name, ..)| *name).collect();
            let problem = format!("no data set {name}; there are {}", known.join(", "));
            return Err(TrainError::input(format!("stage {stage}: mix"), problem));
        }
        let share = |name: &str, shard: &TokenShard<'_>| match mix.is_empty() {
            true => shard.len() as f64,
            false => mix.get(name).copied().unwrap_or(0.0),
        };
        let sources = shards.iter().filter_map(|(name, train, _)| {
            let shard = (*train)?;
            Some((*name, Source { shard, share: share(name, &shard) }))
        });
        let (names, sources): (Vec<_>, Vec<Source<'_>>) =
            sources.filter(|(_, s)| s.share > 0.0 && !s.shard.is_empty()).unzip();
        if sources.is_empty() {
            return Err(TrainError::input(format!("stage {stage}"), "no data to train on"));
        }
        Ok((names, sources))
    }
}

/// Loss on all documents of a shard.
fn validate_on(network: &mut Network, state: &State, name: &str, shard: TokenShard<'_>, bos: u32) -> Event {
    let context = network.shape().seq_len;
    let (mut sum, mut weight) = (0.0, 0.0);
    for batch in validation(shard, bos, context, VALIDATION_TOKENS) {
        let scored: f64 = Batch::weight(&batch);
        sum += scored * network.run(&state.parameters, None, &batch, Wanted::Loss);
        weight += scored;
    }
    let bits = sum / std::f64::consts::LN_2;
    Event::Validation {
        step: state.step,
        name: name.to_owned(),
        nll: sum / f64::max(weight, 1.0),
        bits_per_byte: bits / (shard.text_bytes as f64).max(1.0),
    }
}
