//! A model of the engine behind its scheduler.

use engine::scheduler::{Event, Job, Limits, Load, Refused, Scheduler, Stepped};
use engine::{EngineError, Model};

use super::Backend;

/// Answers with a model.
pub struct ModelBackend<'m> {
    scheduler: Scheduler<'m>,
}

impl<'m> ModelBackend<'m> {
    /// A backend on a loaded model.
    ///
    /// # Errors
    /// Those of [`Scheduler::new`].
    pub fn new(model: &'m Model, limits: Limits) -> Result<Self, EngineError> {
        Ok(Self { scheduler: Scheduler::new(model, limits)? })
    }
}

impl Backend for ModelBackend<'_> {
    fn submit(&mut self, job: Job) -> Result<(), Refused> {
        self.scheduler.submit(job)
    }

    fn cancel(&mut self, gone: &mut dyn FnMut(u64) -> bool) -> usize {
        self.scheduler.cancel(gone)
    }

    fn step(&mut self, sink: &mut dyn FnMut(u64, Event)) -> Option<Stepped> {
        self.scheduler.step(sink)
    }

    fn load(&self) -> Load {
        self.scheduler.load()
    }
}
