//! The measurements: rounds of prefill, decode and a read of plain memory, one after the other, so that a machine
//! that changes its speed changes it for all of them.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use engine::machine::ReadBandwidth;
use engine::profile::Profile;
use engine::sampler::{Sampler, Sampling};
use engine::{Batch, LogitsOf, Model, Sequence, Slot};

use crate::commands::system;
use crate::output;

/// Passes over the memory in each round, of which the fastest counts.
const BANDWIDTH_PASSES: usize = 3;

/// Tokens that are run before anything is measured.
const WARM_UP: usize = 4;

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Lengths of prompts.
    pub(super) prompt_lengths: Vec<usize>,
    /// Numbers of tokens that are generated.
    pub(super) decode_lengths: Vec<usize>,
    /// Tokens in the context before those that are generated.
    pub(super) depth: usize,
    /// Numbers of sequences that are generated together, as long as the longest decode.
    pub(super) batch_sizes: Vec<usize>,
    /// Rounds.
    pub(super) repeat: usize,
    /// Whether the time of each operation is taken too, in runs of their own.
    pub(super) profile: bool,
    /// Megabytes that are read to measure the bandwidth.
    pub(super) bandwidth_mb: usize,
}

impl Plan {
    /// Positions that the longest run takes. Decoding begins with a token that is given.
    fn context(&self) -> usize {
        let prompt = self.prompt_lengths.iter().copied().max().unwrap_or(0);
        prompt.max(self.depth.saturating_add(self.longest_decode()))
    }

    /// The most tokens that are generated at once.
    pub(super) fn longest_decode(&self) -> usize {
        self.decode_lengths.iter().copied().max().unwrap_or(0)
    }
}

/// What came out, one value a round.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Tokens a second of each prompt length, in the plan's order.
    pub(super) prefill: Vec<Vec<f64>>,
    /// Tokens a second of each number of generated tokens, in the plan's order.
    pub(super) decode: Vec<Vec<f64>>,
    /// Tokens a second, of all sequences together, of each number of sequences, in the plan's order.
    pub(super) batch: Vec<Vec<f64>>,
    /// Seconds from the first prompt length's start to its first token.
    pub(super) ttft: Vec<f64>,
    /// Seconds between tokens, of all rounds of the longest decode in the order in which they came.
    pub(super) gaps: Vec<f64>,
    /// Operations of a prompt of the first length.
    pub(super) prefill_profile: Option<Profile>,
    /// Operations of the longest decode.
    pub(super) decode_profile: Option<Profile>,
    /// Bytes a second of plain reading.
    pub(super) bandwidth: Vec<f64>,
    /// The most memory held while running, in bytes.
    pub(super) peak_memory: Option<u64>,
}

/// Carries out the plan.
pub(super) fn measure(model: &Model, plan: &Plan) -> Result<Measured> {
    let context = plan.context().max(WARM_UP);
    if context > model.config.seq_len {
        bail!(
            "a run takes {context} positions: this model was made for {}; take shorter lengths",
            model.config.seq_len
        );
    }
    let mut runner = Runner { model, sequence: Sequence::new(model, context)?, greedy: greedy() };
    runner.prefill(WARM_UP)?;
    runner.decode(0, WARM_UP)?;
    let mut measured = Measured {
        prefill: vec![Vec::new(); plan.prompt_lengths.len()],
        decode: vec![Vec::new(); plan.decode_lengths.len()],
        batch: vec![Vec::new(); plan.batch_sizes.len()],
        ..Measured::default()
    };
    let longest = plan.longest_decode();
    let progress = output::step_progress()?;
    progress.set_length(plan.repeat as u64);
    let mut memory = None;
    for round in 0..plan.repeat {
        for (i, &length) in plan.prompt_lengths.iter().enumerate() {
            progress.set_message(format!("prefill {length}"));
            let (prefill, first) = runner.prefill(length)?;
            measured.prefill[i].push(length as f64 / prefill.as_secs_f64());
            if i == 0 {
                measured.ttft.push(first.as_secs_f64());
            }
        }
        for (i, &length) in plan.decode_lengths.iter().enumerate() {
            progress.set_message(format!("decode {length}"));
            let gaps = runner.decode(plan.depth, length)?;
            measured.decode[i].push(length as f64 / gaps.iter().sum::<f64>());
            if length == longest {
                measured.gaps.extend(gaps);
            }
        }
        for (i, &sequences) in plan.batch_sizes.iter().enumerate() {
            progress.set_message(format!("{sequences} sequences"));
            let time = runner.batch(sequences, longest)?;
            measured.batch[i].push((sequences * longest) as f64 / time.as_secs_f64());
        }
        // What follows takes memory of its own, and every later round needs no more than this one.
        if round == 0 {
            measured.peak_memory = system::peak_memory();
        }
        progress.set_message("memory bandwidth");
        if memory.is_none() {
            memory = Some(ReadBandwidth::new(model.threads(), system::bandwidth_bytes(plan.bandwidth_mb))?);
        }
        if let Some(memory) = &memory {
            measured.bandwidth.push(memory.best_of(BANDWIDTH_PASSES));
        }
        progress.inc(1);
    }
    if plan.profile {
        runner.sequence.start_profile();
        runner.prefill(plan.prompt_lengths.first().copied().unwrap_or(WARM_UP))?;
        measured.prefill_profile = runner.sequence.take_profile();
        runner.sequence.start_profile();
        runner.decode(0, longest)?;
        measured.decode_profile = runner.sequence.take_profile();
    }
    progress.finish_and_clear();
    Ok(measured)
}

fn greedy() -> Sampler {
    Sampler::new(Sampling::greedy())
}

/// One sequence, used anew for every run, as a server would.
struct Runner<'m> {
    model: &'m Model,
    sequence: Sequence<'m>,
    greedy: Sampler,
}

impl Runner<'_> {
    /// Runs a prompt: the time of its forward pass, and the time until a token was chosen.
    fn prefill(&mut self, length: usize) -> Result<(Duration, Duration)> {
        let prompt = self.ids(length);
        self.sequence.truncate(0);
        let started = Instant::now();
        let logits = self.sequence.forward_for(&prompt, LogitsOf::Best)?;
        let prefill = started.elapsed();
        self.greedy.sample(logits);
        Ok((prefill, started.elapsed()))
    }

    /// Runs `length` tokens one by one, each the most likely one after those before it, behind `depth` others:
    /// the seconds that each took.
    fn decode(&mut self, depth: usize, length: usize) -> Result<Vec<f64>> {
        let before = self.ids(depth + 1);
        self.sequence.truncate(0);
        let (&first, before) = before.split_last().unwrap_or((&0, &[]));
        if !before.is_empty() {
            self.sequence.forward(before)?;
        }
        let mut next = first;
        let mut gaps = Vec::with_capacity(length);
        let mut last = Instant::now();
        for _ in 0..length {
            next = self.greedy.sample(self.sequence.forward_for(&[next], LogitsOf::Best)?);
            let now = Instant::now();
            gaps.push((now - last).as_secs_f64());
            last = now;
        }
        Ok(gaps)
    }

    /// Generates `length` tokens of so many sequences together, each beginning with a token of its own.
    fn batch(&mut self, sequences: usize, length: usize) -> Result<Duration> {
        let vocab_size = self.model.config.vocab_size;
        let mut batch = Batch::new(self.model, sequences, length);
        let mut next = self.ids(sequences);
        let mut caches = Vec::with_capacity(sequences);
        for _ in 0..sequences {
            caches.push(self.model.cache(length.max(1))?);
        }
        let started = Instant::now();
        for _ in 0..length {
            let ids = next.chunks(1);
            let slot = |(cache, ids)| Slot { cache, ids, logits: LogitsOf::Best };
            let mut slots: Vec<Slot<'_>> = caches.iter_mut().zip(ids).map(slot).collect();
            let logits = batch.forward(&mut slots)?;
            next = logits.chunks_exact(vocab_size).map(|logits| self.greedy.sample(logits)).collect();
        }
        Ok(started.elapsed())
    }

    /// Ids from all over the vocabulary, always the same.
    fn ids(&self, n: usize) -> Vec<u32> {
        let vocab_size = self.model.config.vocab_size as u64;
        // A prime larger than any vocabulary visits all ids before one comes again.
        (1..=n as u64).map(|i| (i * 1_000_003 % vocab_size) as u32).collect()
    }
}
