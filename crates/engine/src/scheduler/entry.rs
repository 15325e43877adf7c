//! A job on its way: the tokens it has, and the state that its next choice depends on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::attention::{PAGE, Page};

use super::job::{Constraint, Event, Job, Reason, TokenLogprob, Usage};
use super::logprobs::logprob;
use super::pages::{Pages, root};
use super::plan::Pending;
use crate::batch::LogitsOf;
use crate::error::EngineError;
use crate::kv_cache::KvCache;
use crate::model::Model;
use crate::sampler::Sampler;
use crate::stop::StopStrings;
use crate::tokenizer::StreamDecoder;

use super::job::Task;

/// A job with its tokens so far.
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) user: u64,
    /// The prompt's tokens and those that were chosen.
    pub(super) ids: Vec<u32>,
    prompt: usize,
    max_tokens: usize,
    task: Task,
    /// Index of the adapter that it runs with.
    adapter: Option<usize>,
    /// Keys and values of the tokens that were run; none while it waits.
    pub(super) cache: Option<KvCache>,
    /// Whether it has computed something since it was started.
    has_run: bool,
    /// The last of its pages that [`Pages`] remembers, and how many these are.
    node: u64,
    remembered: usize,
    sampler: Sampler,
    decoder: Option<StreamDecoder>,
    stop: StopStrings,
    ignore_eos: bool,
    /// The logits that a choice needs: all where their values are told, or a grammar may want an unlikely token.
    needs: LogitsOf,
    logprobs: Option<usize>,
    prompt_logprobs: Option<Vec<TokenLogprob>>,
    constraint: Option<Box<dyn Constraint>>,
    /// Sum of the hidden states of an embedding.
    hidden: Vec<f32>,
    cached_tokens: usize,
    times: Times,
}

/// When things happened.
struct Times {
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

impl Entry {
    /// A job that [`super::Scheduler::submit`] has checked, with room for `context` positions.
    pub(super) fn new(job: Job, model: &Model, context: usize) -> Result<Self, EngineError> {
        let vocab_size = model.config.vocab_size;
        job.sampling.check(vocab_size)?;
        if let Some(&id) = job.prompt.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(EngineError::TokenId { id, vocab_size });
        }
        let adapter = job.adapter.or(model.adapter);
        if let Some(index) = adapter.filter(|&index| index >= model.adapters.len()) {
            return Err(EngineError::Request(format!("the model has no adapter {index}")));
        }
        let known: Vec<u32> = job.prompt.iter().copied().filter(|&id| has_text(model, id)).collect();
        let decoder = model.tokenizer.as_ref().map(|t| t.decoder_after(&known)).transpose()?;
        // The last token of an answer need not be run, so one more fits than there are positions.
        let room = context.saturating_sub(job.prompt.len()) + 1;
        let tells = job.logprobs.is_some() || job.constraint.is_some();
        let needs = if tells { LogitsOf::Last } else { job.sampling.logits() };
        let repeats = job.sampling.repetition_penalty != 1.0;
        let mut sampler = Sampler::new(job.sampling);
        // OpenAI's penalties count what was answered, Keskar's the whole text.
        if repeats {
            job.prompt.iter().for_each(|&id| sampler.accept(id));
        }
        Ok(Self {
            id: job.id,
            user: job.user,
            prompt: job.prompt.len(),
            ids: job.prompt,
            max_tokens: job.max_tokens.unwrap_or(usize::MAX).min(room),
            task: job.task,
            adapter,
            cache: None,
            has_run: false,
            node: root(adapter),
            remembered: 0,
            sampler,
            decoder,
            stop: StopStrings::new(&job.stop),
            ignore_eos: job.ignore_eos,
            needs,
            logprobs: job.logprobs,
            prompt_logprobs: job.prompt_logprobs.then(Vec::new),
            constraint: job.constraint,
            hidden: Vec::new(),
            cached_tokens: 0,
            times: Times { submitted: Instant::now(), started: None, first_token: None },
        })
    }

    /// Pages that it needs to begin: those of its tokens, and one to go on.
    pub(super) fn pages_to_start(&self) -> usize {
        self.ids.len() / PAGE + 1
    }

    /// Begins, or begins anew after it had to give way, with an empty cache.
    pub(super) fn start(&mut self, cache: KvCache) {
        self.times.started.get_or_insert_with(Instant::now);
        self.has_run = false;
        self.node = root(self.adapter);
        self.remembered = 0;
        self.cache = Some(cache.with_adapter(self.adapter));
    }

    /// Ends or gives way: its pages.
    pub(super) fn stop(&mut self) -> Vec<Arc<Page>> {
        self.cache.take().map(KvCache::into_pages).unwrap_or_default()
    }

    /// Takes pages that hold its next tokens, as long as it has computed none itself and at least one token is left to
    /// run.
    pub(super) fn adopt(&mut self, pages: &mut Pages) {
        if self.has_run || !self.takes_prefix() {
            return;
        }
        let Some(cache) = &mut self.cache else { return };
        // A page that it was given already is for positions that it will compute.
        while cache.pages().len() * PAGE == cache.position() && cache.position() + PAGE < self.ids.len() {
            let tokens = &self.ids[cache.position()..cache.position() + PAGE];
            let Some((node, page)) = pages.find(self.node, tokens) else { break };
            cache.adopt(page);
            self.node = node;
            self.remembered += 1;
        }
        if self.ids.len() == self.prompt {
            self.cached_tokens = cache.position();
        }
    }

    /// Whether `older`, which computes its prompt, will know more of this one's beginning than this one does.
    pub(super) fn waits_for(&self, older: &Self) -> bool {
        let same = self.adapter == older.adapter;
        if !same || self.has_run || !self.takes_prefix() || older.pending().decodes {
            return false;
        }
        let common = self.ids.iter().zip(&older.ids).take_while(|(a, b)| a == b).count();
        let whole = common.min(self.ids.len() - 1) / PAGE * PAGE;
        whole > self.position()
    }

    /// Lets others know of the pages that have become full.
    pub(super) fn remember(&mut self, pages: &mut Pages) {
        self.has_run = true;
        let Some(cache) = &mut self.cache else { return };
        while (self.remembered + 1) * PAGE <= cache.position() {
            let at = self.remembered;
            let tokens = &self.ids[at * PAGE..(at + 1) * PAGE];
            let (node, known) = pages.remember(self.node, tokens, &cache.pages()[at]);
            if let Some(known) = known {
                // Somebody computed the same meanwhile: one of the two is enough.
                let own = cache.replace(at, known);
                pages.give_back([own]);
            }
            self.node = node;
            self.remembered += 1;
        }
    }

    /// Tokens that were run.
    pub(super) fn position(&self) -> usize {
        self.cache.as_ref().map_or(0, KvCache::position)
    }

    /// Whether keys and values of a prefix that others have computed are all that it needs of these tokens.
    fn takes_prefix(&self) -> bool {
        self.task == Task::Generate && self.prompt_logprobs.is_none()
    }

    pub(super) fn pending(&self) -> Pending {
        let tokens = self.ids.len() - self.position();
        Pending { tokens, decodes: tokens == 1 && self.ids.len() > self.prompt }
    }

    /// Which logits a step of `tokens` tokens must give.
    pub(super) fn logits_of(&self, tokens: usize) -> LogitsOf {
        let in_prompt = self.position() < self.prompt;
        if self.task == Task::Embed || (in_prompt && self.prompt_logprobs.is_some()) {
            LogitsOf::All
        } else if self.position() + tokens == self.ids.len() {
            self.needs
        } else {
            LogitsOf::None
        }
    }

    /// Takes what a step of `tokens` tokens gave: logits `[rows, vocab_size]` and hidden states `[rows, dim]` of
    /// those rows that it asked for. True when it has ended.
    pub(super) fn take(
        &mut self,
        model: &Model,
        (logits, hidden): (&[f32], &[f32]),
        sink: &mut dyn FnMut(u64, Event),
    ) -> bool {
        if self.task == Task::Embed {
            return self.embed(model, hidden, sink);
        }
        let vocab_size = model.config.vocab_size;
        let rows = logits.len() / vocab_size;
        if let Some(prompt) = &mut self.prompt_logprobs {
            let top = self.logprobs.unwrap_or(0);
            let first = self.cache.as_ref().map_or(0, KvCache::position) - rows;
            for (row, logits) in logits.chunks_exact(vocab_size).enumerate() {
                if first + row + 1 < self.prompt {
                    prompt.push(logprob(logits, self.ids[first + row + 1], top));
                }
            }
        }
        if rows == 0 || self.position() < self.ids.len() {
            return false;
        }
        if let Some(prompt) = self.prompt_logprobs.take() {
            sink(self.id, Event::Prompt(prompt));
        }
        if self.max_tokens == 0 {
            sink(self.id, self.finished(String::new(), Reason::Length));
            return true;
        }
        match self.choose(model, &logits[(rows - 1) * vocab_size..], sink) {
            Ok(None) => false,
            Ok(Some(reason)) => {
                let text = self.rest();
                sink(self.id, self.finished(text, reason));
                true
            }
            Err(error) => {
                sink(self.id, Event::Failed(error));
                true
            }
        }
    }

    /// Chooses the next token; the reason when it is the last.
    fn choose(
        &mut self,
        model: &Model,
        logits: &[f32],
        sink: &mut dyn FnMut(u64, Event),
    ) -> Result<Option<Reason>, EngineError> {
        let outside = |problem: String| EngineError::Request(format!("the grammar of the answer: {problem}"));
        let id = match &mut self.constraint {
            Some(constraint) => {
                let id = self.sampler.sample_allowed(logits, constraint.allowed().map_err(outside)?);
                let ends = model.eos.binary_search(&id).is_ok();
                if !ends {
                    constraint.accept(id).map_err(outside)?;
                }
                id
            }
            None => self.sampler.sample(logits),
        };
        self.sampler.accept(id);
        self.ids.push(id);
        self.times.first_token.get_or_insert_with(Instant::now);
        let ends = !self.ignore_eos && model.eos.binary_search(&id).is_ok();
        // A model may have more embeddings than its tokenizer has tokens: the padding has no text.
        if let Some(decoder) = self.decoder.as_mut().filter(|_| !ends && has_text(model, id)) {
            let mut text = String::new();
            decoder.push_to(id, &mut text)?;
            self.stop.push(&text);
        }
        let mut text = String::new();
        self.stop.take_certain(&mut text);
        let logprob = self.logprobs.map(|top| logprob(logits, id, top));
        sink(self.id, Event::Token { id, text, logprob });
        if let Some(index) = self.stop.found() {
            return Ok(Some(Reason::StopString(index)));
        }
        let whole = self.constraint.as_mut().is_some_and(|constraint| constraint.is_finished());
        if ends || whole {
            return Ok(Some(Reason::End));
        }
        Ok((self.ids.len() - self.prompt >= self.max_tokens).then_some(Reason::Length))
    }

    /// What was held back as the possible start of a stop string or of a character is text after all.
    fn rest(&mut self) -> String {
        let Some(decoder) = self.decoder.take().filter(|_| self.stop.found().is_none()) else {
            return String::new();
        };
        self.stop.push(&decoder.finish());
        self.stop.finish()
    }

    fn embed(&mut self, model: &Model, hidden: &[f32], sink: &mut dyn FnMut(u64, Event)) -> bool {
        let dim = model.config.dim;
        self.hidden.resize(dim, 0.0);
        for row in hidden.chunks_exact(dim) {
            let mean_square = row.iter().map(|x| x * x).sum::<f32>() / dim as f32;
            let scale = (mean_square + model.config.norm_eps).sqrt().recip();
            for ((sum, x), weight) in self.hidden.iter_mut().zip(row).zip(&model.weights.rms_final) {
                *sum += x * scale * weight;
            }
        }
        if self.position() < self.ids.len() {
            return false;
        }
        let tokens = self.ids.len() as f32;
        let vector = self.hidden.iter().map(|x| x / tokens).collect();
        sink(self.id, Event::Embedded { vector, usage: self.usage() });
        true
    }

    fn finished(&self, text: String, reason: Reason) -> Event {
        Event::Finished { text, reason, usage: self.usage() }
    }

    fn usage(&self) -> Usage {
        let Times { submitted, started, first_token } = self.times;
        let now = Instant::now();
        let started = started.unwrap_or(now);
        let first = first_token.unwrap_or(now);
        Usage {
            prompt_tokens: self.prompt,
            cached_tokens: self.cached_tokens,
            completion_tokens: self.ids.len() - self.prompt,
            queued: started - submitted,
            prefill: first.saturating_duration_since(started),
            decode: if first_token.is_some() { now - first } else { Duration::ZERO },
        }
    }
}

fn has_text(model: &Model, id: u32) -> bool {
    model.tokenizer.as_ref().is_some_and(|t| (id as usize) < t.vocab_size())
}
