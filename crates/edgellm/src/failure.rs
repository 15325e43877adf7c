//! Errors of the command itself, and hints for all of them.

use thiserror::Error;

use crate::hub::HubError;

/// An error with advice.
#[derive(Debug, Error)]
#[error("{problem}")]
pub(crate) struct Failure {
    problem: String,
    hint: String,
}

impl Failure {
    /// `problem` says what is wrong, `hint` what the user can do about it.
    pub(crate) fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { problem: problem.into(), hint: hint.into() }
    }
}

/// Ctrl-C ended a training, which can go on later. No failure, but what was to come behind it has nothing to go by.
#[derive(Debug, Error)]
#[error("stopped: a checkpoint holds what was done, --resume goes on")]
pub(crate) struct Stopped;

/// The advice of the first error in the chain that has some.
pub(crate) fn hint(err: &anyhow::Error) -> Option<String> {
    err.chain().find_map(|cause| {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.hint.clone());
        }
        cause.downcast_ref::<HubError>().and_then(HubError::hint)
    })
}
