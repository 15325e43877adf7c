//! Jobs that a model has taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use engine::EngineError;
use engine::scheduler::{Event, Job};
use tokio::sync::mpsc;

use crate::auth::{Demand, Metered, current};
use crate::engine_thread::{Handle, NotSent, Update, Updates};
use crate::error::ApiError;
use crate::openai::knobs::user;
use crate::trace::Work;

/// Jobs of one request that are with the model at a time: a request with hundreds of prompts must not fill the queue.
const AT_ONCE: usize = 8;

/// Before a job is handed over again that found no room on its way to the model's thread.
const AGAIN: Duration = Duration::from_millis(5);

/// The jobs of a request, taken and not yet ended. Dropping it cancels them.
pub(crate) struct Generation {
    /// Keeps the model loaded until they have ended.
    handle: Arc<Handle>,
    /// How many there are.
    pub(crate) jobs: usize,
    updates: Updates,
    /// Jobs that come when others have ended, and the sender of their updates.
    later: VecDeque<(usize, Job)>,
    sender: Option<mpsc::Sender<(usize, Update)>>,
    /// Jobs that are with the model.
    open: usize,
    /// Counts what they use, where somebody must be known.
    metered: Option<Metered>,
    /// Tells what they do, where requests are traced.
    traced: Option<Work>,
}

/// Hands jobs to a model and waits until it has taken the first: then it takes the others too.
///
/// # Errors
/// 400 when it cannot be run, 429 when too many are waiting.
pub(crate) async fn submit(handle: Arc<Handle>, mut jobs: Vec<Job>) -> Result<Generation, ApiError> {
    let n = jobs.len();
    let metered = match current() {
        Some(call) => {
            let demand = Demand::of(&jobs, handle.card.context);
            Some(call.begin(&handle.card.name, demand).await?)
        }
        None => None,
    };
    if let Some(metered) = &metered {
        // Nobody gets a larger share by inventing users.
        let user = user(Some(metered.subject()));
        jobs.iter_mut().for_each(|job| job.user = user);
    }
    let (sender, updates) = handle.channel(&jobs);
    let later = jobs.into_iter().enumerate().map(|(i, job)| (i, Job { follows: i > 0, ..job })).collect();
    let traced = Work::of_this_request(&handle.card.name);
    let mut generation =
        Generation { handle, jobs: n, updates, later, sender: Some(sender), open: 0, metered, traced };
    if !generation.hand_over(1)? && n > 0 {
        return Err(ApiError::overloaded());
    }
    match generation.updates.recv().await {
        Some((_, Update::Accepted)) => {}
        Some((_, Update::Refused(refused))) => return Err(refused.into()),
        Some((_, Update::Event(_))) | None => {
            return Err(ApiError::internal("The model's thread has ended"));
        }
    }
    generation.hand_over(AT_ONCE)?;
    Ok(generation)
}

impl Generation {
    /// Gives the model jobs until `most` are with it; false when one found no room on the way.
    fn hand_over(&mut self, most: usize) -> Result<bool, ApiError> {
        while self.open < most {
            let Some(sender) = self.sender.as_ref() else { break };
            let Some((index, job)) = self.later.pop_front() else { break };
            match self.handle.send(index, job, sender) {
                Ok(()) => self.open += 1,
                Err(NotSent::NoRoom(job)) => {
                    self.later.push_front((index, *job));
                    return Ok(false);
                }
                Err(NotSent::Ended) => return Err(ApiError::internal("The model's thread has ended")),
            }
        }
        if self.later.is_empty() {
            // Now the channel ends with the last job.
            self.sender = None;
        }
        Ok(true)
    }

    /// Adds the next events to `events`, at most `most`: as many as there are, and at least one. False when there
    /// will be none any more.
    pub(crate) async fn next(&mut self, events: &mut Vec<(usize, Event)>, most: usize) -> bool {
        while self.open == 0 && !self.later.is_empty() {
            match self.hand_over(AT_ONCE) {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(AGAIN).await,
                Err(_) => return false,
            }
        }
        let mut updates = Vec::new();
        if self.updates.recv_many(&mut updates, most).await == 0 {
            return false;
        }
        for (index, update) in updates {
            let event = match update {
                Update::Event(event) => event,
                Update::Accepted => continue,
                Update::Refused(refused) => Event::Failed(EngineError::Request(refused.to_string())),
            };
            self.open -= usize::from(event.is_last());
            if let Some(metered) = &mut self.metered {
                metered.event(index, &event);
            }
            if let Some(traced) = &mut self.traced {
                traced.event(&event);
            }
            events.push((index, event));
        }
        if self.open == 0 && self.later.is_empty() {
            // What was used is written down before the end of the answer leaves.
            self.metered = None;
        }
        // What finds no room now is handed over with the next event.
        self.hand_over(AT_ONCE).is_ok()
    }
}
