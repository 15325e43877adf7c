//! What answers requests.

mod model;
mod null;

use engine::scheduler::{Event, Job, Load, Refused, Stepped};

pub use crate::card::Card;
pub use model::ModelBackend;
pub(crate) use null::placeholders;
pub use null::{NullBackend, null_card};

/// Runs jobs; owned by one thread.
pub trait Backend {
    /// Takes a job.
    ///
    /// # Errors
    /// See [`Refused`].
    fn submit(&mut self, job: Job) -> Result<(), Refused>;

    /// Forgets all jobs for which `gone` is true; they get no more events. Gives their number.
    fn cancel(&mut self, gone: &mut dyn FnMut(u64) -> bool) -> usize;

    /// Runs one step and tells what came of it; `None` when there is nothing to do.
    fn step(&mut self, sink: &mut dyn FnMut(u64, Event)) -> Option<Stepped>;

    /// How busy it is.
    fn load(&self) -> Load;
}
