//! Answers that are sent when they are whole.

use engine::scheduler::{Event, Reason, TokenLogprob, Usage};

use crate::error::ApiError;
use crate::generation::Generation;

/// The whole answer of one job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
    /// Log-probabilities of the prompt's tokens, the first apart.
    pub(crate) prompt: Vec<TokenLogprob>,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) reason: Option<Reason>,
    pub(crate) vector: Vec<f32>,
    pub(crate) usage: Usage,
}

/// Waits for all jobs, and gives their answers in the order of the jobs.
///
/// # Errors
/// The first that one of them has.
pub(crate) async fn collect(mut generation: Generation) -> Result<Vec<Answer>, ApiError> {
    let mut answers = vec![Answer::default(); generation.jobs];
    let mut open = answers.len();
    let mut events = Vec::new();
    while open > 0 {
        if !generation.next(&mut events, 64).await {
            return Err(ApiError::internal("The model's thread has ended"));
        }
        for (index, event) in events.drain(..) {
            open -= usize::from(answers[index].add(event)?);
        }
    }
    Ok(answers)
}

impl Answer {
    /// Adds an event; true when it was the last one.
    pub(crate) fn add(&mut self, event: Event) -> Result<bool, ApiError> {
        match event {
            Event::Prompt(logprobs) => self.prompt = logprobs,
            Event::Token { id, text, logprob } => {
                self.ids.push(id);
                self.text.push_str(&text);
                self.logprobs.extend(logprob);
            }
            Event::Finished { text, reason, usage } => {
                self.text.push_str(&text);
                self.reason = Some(reason);
                self.usage = usage;
                return Ok(true);
            }
            Event::Embedded { vector, usage } => {
                self.vector = vector;
                self.usage = usage;
                return Ok(true);
            }
            Event::Failed(error) => return Err(error.into()),
        }
        Ok(false)
    }
}
