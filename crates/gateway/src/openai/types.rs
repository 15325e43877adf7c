//! Objects that several of OpenAI's answers are made of.

use engine::scheduler::{Reason, Usage};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One text or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub(crate) fn all(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// How a stream is told.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// A last event with the usage of the whole.
    pub(crate) include_usage: Option<bool>,
    /// Only false: nothing is added to hide lengths.
    pub(crate) include_obfuscation: Option<bool>,
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct TokenUsage {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
    pub(crate) prompt_tokens_details: PromptDetails,
}

/// Tokens of a prompt.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct PromptDetails {
    /// Those whose keys and values were known from earlier requests.
    pub(crate) cached_tokens: usize,
}

impl TokenUsage {
    /// The usage of jobs, of which `jobs_per_prompt` after each other share a prompt: it counts once.
    pub(crate) fn of(usages: &[Usage], jobs_per_prompt: usize) -> Self {
        let firsts = usages.iter().step_by(jobs_per_prompt.max(1));
        let prompt_tokens = firsts.clone().map(|usage| usage.prompt_tokens).sum();
        let completion_tokens = usages.iter().map(|usage| usage.completion_tokens).sum();
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptDetails {
                cached_tokens: firsts.map(|usage| usage.cached_tokens).sum(),
            },
        }
    }
}

/// OpenAI's word for why an answer ended.
pub(crate) fn finish_reason(reason: Reason) -> &'static str {
    match reason {
        Reason::End | Reason::StopString(_) => "stop",
        Reason::Length => "length",
    }
}
