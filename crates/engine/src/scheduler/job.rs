//! What goes into the scheduler and what comes out.

use std::time::Duration;

use thiserror::Error;

use crate::error::EngineError;
use crate::sampler::Sampling;

/// Keeps an answer inside a grammar: says before each choice which tokens may come, and is told the choice.
pub trait Constraint: Send {
    /// The tokens that may come next, one bit each, 32 to a word, the lowest bit first. Ids beyond the last word may not
    /// come.
    ///
    /// # Errors
    /// What the grammar's parser says: the answer ends there.
    fn allowed(&mut self) -> Result<&[u32], String>;

    /// Token `id` was chosen.
    ///
    /// # Errors
    /// It was not allowed.
    fn accept(&mut self, id: u32) -> Result<(), String>;

    /// Whether the answer is whole and nothing may follow.
    fn is_finished(&mut self) -> bool;
}

/// What is wanted of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// Tokens that go on.
    #[default]
    Generate,
    /// The mean of the tokens' hidden states.
    Embed,
}

/// A request, ready to be run.
#[derive(Default)]
pub struct Job {
    /// Names it; the caller chooses, and no two at a time are the same.
    pub id: u64,
    /// Whose it is: users get equal shares.
    pub user: u64,
    /// Whether it belongs to a request of which another job was taken already: it is not refused for the queue's length.
    pub follows: bool,
    /// What is wanted.
    pub task: Task,
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// Tokens at most; `None` until the context is full.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Whether the model's end tokens are generated through like any other.
    pub ignore_eos: bool,
    /// Log-probabilities of each chosen token and of this many of the likeliest.
    pub logprobs: Option<usize>,
    /// The same for the tokens of the prompt, the first apart.
    pub prompt_logprobs: bool,
    /// What the answer must be.
    pub constraint: Option<Box<dyn Constraint>>,
    /// The adapter that it runs with ([`crate::Model::add_adapter`]); the model's own for `None`.
    pub adapter: Option<usize>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("prompt", &self.prompt.len())
            .finish_non_exhaustive()
    }
}

/// A token and how likely it was.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability by the model alone: before temperature, penalties, bias and constraint.
    pub logprob: f32,
    /// The likeliest tokens at its place, likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The model's end token, or a constraint that was fulfilled.
    End,
    /// The stop string of this index.
    StopString(usize),
    /// `max_tokens` or the context was reached.
    Length,
}

/// What an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them whose keys and values were known already.
    pub cached_tokens: usize,
    /// Tokens generated, an end token included.
    pub completion_tokens: usize,
    /// From the submission to the first step.
    pub queued: Duration,
    /// From the first step to the first chosen token.
    pub prefill: Duration,
    /// From the first chosen token to the last.
    pub decode: Duration,
}

/// What happens to a job. The last event of each is `Finished`, `Embedded` or `Failed`, unless it was cancelled.
#[derive(Debug)]
pub enum Event {
    /// Log-probabilities of the prompt, its first token apart, if they were asked for.
    Prompt(Vec<TokenLogprob>),
    /// A token was chosen.
    Token {
        /// The token.
        id: u32,
        /// Text that is certain now: whole characters, nothing that may still become a stop string. May be empty, and
        /// may be that of several tokens.
        text: String,
        /// If asked for.
        logprob: Option<TokenLogprob>,
    },
    /// The answer has ended.
    Finished {
        /// Text that was held back.
        text: String,
        /// Why.
        reason: Reason,
        /// What it took.
        usage: Usage,
    },
    /// The mean of the hidden states, `[dim]`, not yet of length one.
    Embedded {
        /// The vector.
        vector: Vec<f32>,
        /// What it took.
        usage: Usage,
    },
    /// It cannot go on.
    Failed(EngineError),
}

impl Event {
    /// Whether it is the last of its job.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Embedded { .. } | Self::Failed(_))
    }
}

/// Why a job was not taken.
#[derive(Debug, Error)]
pub enum Refused {
    /// Too many are waiting.
    #[error("{waiting} requests are waiting already")]
    QueueFull {
        /// How many.
        waiting: usize,
    },
    /// The prompt is longer than the context, or than all memory for keys and values.
    #[error("the prompt has {tokens} tokens, the context {context}")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// Something in it cannot be.
    #[error(transparent)]
    Invalid(#[from] EngineError),
}
