//! A request of somebody who is known: what it has taken, what it has used, and the record of it at its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::http::StatusCode;
use engine::scheduler::{Event, Job, Task};

use super::identity::Identity;
use crate::access::Access;
use crate::error::ApiError;
use crate::ids;
use crate::limiter::{Meter, Place, Rule, Standing, Taken};
use crate::usage::UsageRecord;

/// Tokens that are taken for an answer whose length the request leaves open. It is charged for what it uses.
const OPEN_ANSWER: usize = 1024;

/// What a client that has gone has, as nginx calls it.
const CLIENT_GONE: u16 = 499;

tokio::task_local! {
    /// The request that is being answered. Handlers answer in the task that has asked who is there.
    static CALL: Arc<Call>;
}

/// The request that is being answered, where somebody must be known.
pub(crate) fn current() -> Option<Arc<Call>> {
    CALL.try_with(Arc::clone).ok()
}

/// Whether whoever asks may use this model.
pub(crate) fn may_use(model: &str) -> bool {
    CALL.try_with(|call| call.identity.may_use(model)).unwrap_or(true)
}

/// See the module. It ends when the last part of its answer is made.
pub(crate) struct Call {
    access: Arc<Access>,
    pub(crate) identity: Arc<Identity>,
    /// The route; a record is written if it is one that runs a model.
    endpoint: Option<Arc<str>>,
    at: u64,
    started: Instant,
    state: Mutex<State>,
    /// Left when all is dropped.
    _place: Place,
}

#[derive(Default)]
struct State {
    status: u16,
    model: Arc<str>,
    prompt_tokens: u64,
    cached_tokens: u64,
    completion_tokens: u64,
    standings: Vec<Standing>,
    reserved: Vec<Reserved>,
    /// Those among the requests for the model at a time.
    places: Vec<Place>,
}

/// Tokens that were taken and are settled at the end.
struct Reserved {
    meter: Arc<Meter>,
    rules: Vec<Rule>,
    taken: Taken,
}

/// What a request asks of a model.
pub(crate) struct Demand {
    /// Tokens that it may use at most, as far as it says.
    tokens: u64,
    /// Whether the prompt of each job counts: choices of one prompt come after each other, and it counts once.
    counts_prompt: Vec<bool>,
}

impl Demand {
    /// That of these jobs, of which each has `context` positions at most.
    pub(crate) fn of(jobs: &[Job], context: usize) -> Self {
        let is_new = |(i, job): (usize, &Job)| i == 0 || jobs[i - 1].prompt != job.prompt;
        let counts_prompt: Vec<bool> = jobs.iter().enumerate().map(is_new).collect();
        let tokens = jobs.iter().zip(&counts_prompt).map(|(job, counts)| {
            let room = context.saturating_sub(job.prompt.len());
            let answer = match job.task {
                Task::Embed => 0,
                Task::Generate => job.max_tokens.unwrap_or(OPEN_ANSWER).min(room),
            };
            answer + if *counts { job.prompt.len() } else { 0 }
        });
        Self { tokens: tokens.sum::<usize>() as u64, counts_prompt }
    }
}

impl Call {
    /// A request that was let in.
    pub(super) fn new(
        access: Arc<Access>,
        identity: Arc<Identity>,
        endpoint: Option<Arc<str>>,
        place: Place,
        standings: Vec<Standing>,
    ) -> Self {
        let state = Mutex::new(State { standings, ..State::default() });
        let (at, started) = (ids::now_millis(), Instant::now());
        Self { access, identity, endpoint, at, started, state, _place: place }
    }

    /// Runs what answers it.
    pub(super) async fn scope<T>(self: Arc<Self>, answer: impl Future<Output = T>) -> T {
        CALL.scope(self, answer).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head of the answer is made; gives how it stands with the limits.
    pub(super) fn answered(&self, status: StatusCode) -> Vec<Standing> {
        let mut state = self.state();
        state.status = status.as_u16();
        state.standings.clone()
    }

    /// Takes the tokens of a request, and what the limits of the model count.
    ///
    /// # Errors
    /// 429, 503.
    pub(crate) async fn begin(self: Arc<Self>, model: &str, demand: Demand) -> Result<Metered, ApiError> {
        self.state().model = model.into();
        let all = self.access.limits();
        let own = self.access.limits_of(&self.identity);
        let Demand { tokens, counts_prompt } = demand;
        self.take(&self.identity.meter, own.of_tokens(), tokens).await?;
        if let Some(limits) = all.models.get(model) {
            let meter = self.access.meter(format!("{}:model:{model}", self.identity.meter.name()));
            let place = self.access.limiter.enter(&meter, limits.parallel_requests).await?;
            let requests = self.access.limiter.take(&meter, &limits.of_requests(), 1).await?;
            self.hold(place, requests.standings);
            self.take(&meter, limits.of_tokens(), tokens).await?;
        }
        let produced = vec![0; counts_prompt.len()];
        Ok(Metered { call: self, counts_prompt, produced })
    }

    /// Keeps a place to the end, and tells how it stands.
    fn hold(&self, place: Place, standings: Vec<Standing>) {
        let mut state = self.state();
        state.places.push(place);
        state.standings.extend(standings);
    }

    async fn take(&self, meter: &Arc<Meter>, rules: Vec<Rule>, tokens: u64) -> Result<(), ApiError> {
        if rules.is_empty() {
            return Ok(());
        }
        let taken = self.access.limiter.take(meter, &rules, tokens).await?;
        let mut state = self.state();
        state.standings.extend_from_slice(&taken.standings);
        state.reserved.push(Reserved { meter: meter.clone(), rules, taken });
        Ok(())
    }
}

impl Drop for Call {
    /// Gives back what was not used, and writes the record.
    fn drop(&mut self) {
        let state = std::mem::take(&mut *self.state());
        for Reserved { meter, rules, taken } in &state.reserved {
            self.access.limiter.settle(meter, rules, taken, state.prompt_tokens + state.completion_tokens);
        }
        let Some(endpoint) = self.endpoint.take() else { return };
        self.access.journal.append(UsageRecord {
            id: ids::in_order("use_"),
            at: self.at as i64,
            subject: self.identity.subject.clone(),
            owner: self.identity.owner.clone(),
            model: state.model,
            endpoint,
            // A head that was never made is one that nobody waits for any more.
            status: if state.status == 0 { CLIENT_GONE } else { state.status },
            prompt_tokens: state.prompt_tokens,
            cached_tokens: state.cached_tokens,
            completion_tokens: state.completion_tokens,
            micros: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
    }
}

/// Counts what the jobs of a request use.
pub(crate) struct Metered {
    call: Arc<Call>,
    /// Whether the prompt of each counts.
    counts_prompt: Vec<bool>,
    /// Tokens of each that has not ended.
    produced: Vec<u64>,
}

impl Metered {
    /// Something happened to job `index`.
    pub(crate) fn event(&mut self, index: usize, event: &Event) {
        match event {
            Event::Token { .. } => {
                if let Some(produced) = self.produced.get_mut(index) {
                    *produced += 1;
                }
            }
            Event::Finished { usage, .. } | Event::Embedded { usage, .. } => {
                let counts_prompt = self.counts_prompt.get(index).copied().unwrap_or(true);
                let mut state = self.call.state();
                if counts_prompt {
                    state.prompt_tokens += usage.prompt_tokens as u64;
                    state.cached_tokens += usage.cached_tokens as u64;
                }
                state.completion_tokens += usage.completion_tokens as u64;
                drop(state);
                if let Some(produced) = self.produced.get_mut(index) {
                    *produced = 0;
                }
            }
            Event::Prompt(_) | Event::Failed(_) => {}
        }
    }

    /// Whose it is, for shares of the model.
    pub(crate) fn subject(&self) -> &str {
        &self.call.identity.subject
    }
}

impl Drop for Metered {
    /// What was generated for a client that has gone counts too.
    fn drop(&mut self) {
        self.call.state().completion_tokens += self.produced.iter().sum::<u64>();
    }
}
