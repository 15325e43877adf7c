//! Jobs that a model has taken.

use std::sync::Arc;

use engine::scheduler::{Event, Job};

use crate::engine_thread::{Handle, Update, Updates};
use crate::error::ApiError;

/// The jobs of a request, taken and not yet ended. Dropping it cancels them.
pub(crate) struct Generation {
    /// Keeps the model loaded until they have ended.
    _handle: Arc<Handle>,
    /// How many there are.
    pub(crate) jobs: usize,
    updates: Updates,
    /// Updates that came before all jobs were taken.
    early: Vec<(usize, Event)>,
}

/// Hands jobs to a model and waits until it has taken them all.
///
/// # Errors
/// 400 when one cannot be run, 429 when too many are waiting.
pub(crate) async fn submit(handle: Arc<Handle>, jobs: Vec<Job>) -> Result<Generation, ApiError> {
    let n = jobs.len();
    let updates = handle.submit(jobs)?;
    let mut generation = Generation { _handle: handle, jobs: n, updates, early: Vec::new() };
    let mut accepted = 0;
    while accepted < n {
        match generation.updates.recv().await {
            Some((_, Update::Accepted)) => accepted += 1,
            Some((_, Update::Refused(refused))) => return Err(refused.into()),
            Some((_, Update::Event(Event::Failed(error)))) => return Err(error.into()),
            Some((index, Update::Event(event))) => generation.early.push((index, event)),
            None => return Err(ApiError::internal("The model's thread has ended")),
        }
    }
    Ok(generation)
}

impl Generation {
    /// Adds the next events to `events`, at most `most`: as many as there are, and at least one. False when there
    /// will be none any more.
    pub(crate) async fn next(&mut self, events: &mut Vec<(usize, Event)>, most: usize) -> bool {
        if !self.early.is_empty() {
            events.append(&mut self.early);
            return true;
        }
        let mut updates = Vec::new();
        if self.updates.recv_many(&mut updates, most).await == 0 {
            return false;
        }
        events.extend(updates.into_iter().filter_map(|(index, update)| match update {
            Update::Event(event) => Some((index, event)),
            Update::Accepted | Update::Refused(_) => None,
        }));
        true
    }
}
