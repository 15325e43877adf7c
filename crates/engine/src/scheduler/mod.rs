//! Many requests on one model: who runs when, and with how many tokens in each step.
//!
//! Requests join and leave between any two steps (Yu et al., "Orca", OSDI 2022). A step takes one token of every sequence
//! that answers, and pieces of prompts beside them that are short enough not to be noticed. It decides nothing by the
//! clock but the length of these pieces; no threads, no channels: [`Scheduler::step`] runs one batch and says what came of
//! it.

mod entry;
mod job;
mod logprobs;
mod pace;
mod pages;
mod plan;
mod queue;

use std::time::Instant;

use kernels::attention::PAGE;

pub use job::{Constraint, Event, Job, Reason, Refused, Task, TokenLogprob, Usage};
pub use pace::Pace;
pub use plan::{Pending, plan};

use crate::batch::{Batch, Slot};
use crate::error::EngineError;
use crate::forward::MAX_BATCH;
use crate::kv_cache::KvCache;
use crate::model::Model;
use entry::Entry;
use pages::Pages;
use queue::FairQueue;

/// What a scheduler may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Positions of a sequence at most.
    pub context: usize,
    /// Sequences in a step at most; never more than [`MAX_BATCH`].
    pub running: usize,
    /// Sequences that wait at most.
    pub waiting: usize,
    /// Bytes of keys and values at most; never less than one whole context takes.
    pub kv_bytes: u64,
}

/// How busy a scheduler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Sequences that run.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// Pages of keys and values that sequences use.
    pub pages: usize,
    /// Pages that are only remembered, for prompts that begin alike.
    pub remembered_pages: usize,
    /// Pages that there may be.
    pub page_limit: usize,
}

/// What a step was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stepped {
    /// Sequences in it that were answering.
    pub answers: usize,
    /// Tokens of prompts in it.
    pub prompt_tokens: usize,
}

/// Runs jobs on one model.
pub struct Scheduler<'m> {
    model: &'m Model,
    batch: Batch<'m>,
    limits: Limits,
    queue: FairQueue<Entry>,
    /// In the order in which they were let in.
    running: Vec<Entry>,
    pages: Pages,
    pace: Pace,
}

impl<'m> Scheduler<'m> {
    /// A scheduler without jobs.
    ///
    /// # Errors
    /// A context that the model was not made for.
    pub fn new(model: &'m Model, limits: Limits) -> Result<Self, EngineError> {
        let most = model.config.seq_len;
        if limits.context == 0 || limits.context > most {
            let problem = format!("a context of {} tokens: this model takes 1 to {most}", limits.context);
            return Err(EngineError::Request(problem));
        }
        let page = model.kv_type.bytes(&model.config, PAGE) as u64;
        let pages = usize::try_from(limits.kv_bytes / page.max(1)).unwrap_or(usize::MAX);
        Ok(Self {
            model,
            // One whole context and the page that a sequence needs to be let in.
            pages: Pages::new(pages.max(limits.context / PAGE + 1)),
            batch: Batch::new(model, MAX_BATCH, limits.context),
            limits: Limits { running: limits.running.clamp(1, MAX_BATCH), ..limits },
            queue: FairQueue::new(limits.waiting),
            running: Vec::new(),
            pace: Pace::default(),
        })
    }

    /// Takes a job; its first event comes from a later [`Scheduler::step`].
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn submit(&mut self, job: Job) -> Result<(), Refused> {
        let (tokens, context) = (job.prompt.len(), self.limits.context);
        if tokens == 0 {
            return Err(Refused::Invalid(EngineError::Request("the prompt has no tokens".to_owned())));
        }
        if tokens > context {
            return Err(Refused::PromptTooLong { tokens, context });
        }
        // Those for whom there is a place among the running leave the queue with the next step.
        let free = self.limits.running.saturating_sub(self.running.len());
        if self.queue.is_full(free) && !job.follows {
            return Err(Refused::QueueFull { waiting: self.queue.len() });
        }
        let entry = Entry::new(job, self.model, context)?;
        self.queue.push(entry.user, entry);
        Ok(())
    }

    /// Forgets all jobs for which `gone` is true; they get no more events. Gives their number.
    pub fn cancel(&mut self, mut gone: impl FnMut(u64) -> bool) -> usize {
        let waiting = self.queue.remove(|entry| gone(entry.id)).len();
        let leaves: Vec<bool> = self.running.iter().map(|entry| gone(entry.id)).collect();
        self.leave(&leaves);
        waiting + leaves.into_iter().filter(|leaves| *leaves).count()
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        let (pages, remembered_pages) = self.pages.in_use();
        Load {
            running: self.running.len(),
            waiting: self.queue.len(),
            pages,
            remembered_pages,
            page_limit: self.pages.limit(),
        }
    }

    /// Runs one batch, and gives `sink` what came of it: the job's id and the event. Nothing when there is nothing to do.
    pub fn step(&mut self, sink: &mut dyn FnMut(u64, Event)) -> Option<Stepped> {
        self.admit();
        let (pending, shares) = self.shares();
        let answers = pending.iter().filter(|p| p.decodes).count();
        let tokens: usize = shares.iter().sum();
        if tokens == 0 {
            return None;
        }
        let started = Instant::now();
        let mut ended = vec![false; self.running.len()];
        if self.run(&shares, &mut ended, sink).is_err() {
            // One of them is to blame: each alone, and those that fail again are out.
            for i in 0..shares.len() {
                let alone: Vec<usize> =
                    (0..shares.len()).map(|j| if i == j { shares[i] } else { 0 }).collect();
                if let Err(error) = self.run(&alone, &mut ended, sink) {
                    sink(self.running[i].id, Event::Failed(error));
                    ended[i] = true;
                }
            }
        }
        self.pace.measured(answers, tokens - answers, started.elapsed());
        for (entry, share) in self.running.iter_mut().zip(&shares).filter(|(_, share)| **share > 0) {
            self.queue.served(entry.user, *share);
            entry.remember(&mut self.pages);
        }
        self.leave(&ended);
        Some(Stepped { answers, prompt_tokens: tokens - answers })
    }

    /// Lets waiting sequences run while there is room.
    fn admit(&mut self) {
        while self.running.len() < self.limits.running {
            let Some((_, next)) = self.queue.peek() else { return };
            // Alone it always fits.
            if !self.running.is_empty() && next.pages_to_start() > self.pages.available() {
                return;
            }
            let Some((_, mut entry)) = self.queue.pop() else { return };
            let model = self.model;
            entry.start(KvCache::growing(model.kv_type, self.limits.context, &model.config));
            self.running.push(entry);
        }
    }

    /// How many tokens each sequence gets in the next step, for which it has the pages: the youngest give way to the others
    /// when there are not enough.
    fn shares(&mut self) -> (Vec<Pending>, Vec<usize>) {
        loop {
            let mut pending = Vec::with_capacity(self.running.len());
            for i in 0..self.running.len() {
                let (older, rest) = self.running.split_at_mut(i);
                let Some(entry) = rest.first_mut() else { break };
                entry.adopt(&mut self.pages);
                let waits = older.iter().any(|older| entry.waits_for(older));
                let Pending { tokens, decodes } = entry.pending();
                pending.push(Pending { tokens: if waits { 0 } else { tokens }, decodes });
            }
            let answers = pending.iter().filter(|p| p.decodes).count();
            let shares = plan(&pending, MAX_BATCH, self.pace.chunk(answers, MAX_BATCH));
            if self.provide(&shares) {
                return (pending, shares);
            }
            let Some(mut youngest) = self.running.pop() else { return (Vec::new(), Vec::new()) };
            self.pages.give_back(youngest.stop());
            self.queue.put_back(youngest.user, youngest);
        }
    }

    /// Gives each sequence the pages that its share needs; false when there are not enough.
    fn provide(&mut self, shares: &[usize]) -> bool {
        for (entry, &share) in self.running.iter_mut().zip(shares) {
            let Some(cache) = &mut entry.cache else { continue };
            for _ in 0..cache.lacks(share) {
                let Some(page) = self.pages.take() else { return false };
                cache.add_page(page);
            }
        }
        true
    }

    /// Takes the sequences marked in `leaves` out.
    fn leave(&mut self, leaves: &[bool]) {
        let mut index = 0;
        let (queue, pages) = (&mut self.queue, &mut self.pages);
        self.running.retain_mut(|entry| {
            index += 1;
            if leaves[index - 1] {
                pages.give_back(entry.stop());
                queue.ended(entry.user);
            }
            !leaves[index - 1]
        });
    }

    /// Runs each sequence's share of tokens in one batch. An error has changed nothing.
    fn run(
        &mut self,
        shares: &[usize],
        ended: &mut [bool],
        sink: &mut dyn FnMut(u64, Event),
    ) -> Result<(), EngineError> {
        let mut slots = Vec::with_capacity(shares.len());
        for (entry, &share) in self.running.iter_mut().zip(shares).filter(|(_, share)| **share > 0) {
            let logits = entry.logits_of(share);
            let position = entry.position();
            let Some(cache) = &mut entry.cache else { continue };
            slots.push(Slot { cache, ids: &entry.ids[position..position + share], logits });
        }
        let rows: Vec<usize> = slots.iter().map(Slot::rows).collect();
        self.batch.forward(&mut slots)?;
        let (mut logits, mut hidden) = (self.batch.logits(), self.batch.hidden());
        let (vocab_size, dim) = (self.model.config.vocab_size, self.model.config.dim);
        let ran = shares.iter().enumerate().filter(|(_, share)| **share > 0);
        for ((i, _), rows) in ran.zip(rows) {
            let (of_logits, other) = logits.split_at(rows * vocab_size);
            logits = other;
            let (of_hidden, other) = hidden.split_at(rows * dim);
            hidden = other;
            ended[i] = self.running[i].take(self.model, (of_logits, of_hidden), sink);
        }
        Ok(())
    }
}
