//! The body of `/v1/completions`.

use std::collections::HashMap;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::openai::knobs::Knobs;
use crate::openai::types::{OneOrMany, StreamOptions};

/// What is to go on.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Prompt {
    /// A text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Tokens.
    Ids(Vec<u32>),
    /// Several lists of tokens.
    IdLists(Vec<Vec<u32>>),
}

/// A text to go on with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompletionRequest {
    /// Name of a model; the server's first by default.
    pub(crate) model: Option<String>,
    pub(crate) prompt: Option<Prompt>,
    pub(crate) stream: Option<bool>,
    #[serde(default, deserialize_with = "crate::body::object")]
    pub(crate) stream_options: Option<StreamOptions>,
    /// Choices of each prompt.
    #[schema(minimum = 1, maximum = 16)]
    pub(crate) n: Option<usize>,
    /// Answers of which the `n` likeliest are given.
    #[schema(minimum = 1, maximum = 16)]
    pub(crate) best_of: Option<usize>,
    /// Whether the prompt is given back before the answer.
    pub(crate) echo: Option<bool>,
    /// Log-probabilities, and those of this many of the likeliest tokens.
    #[schema(minimum = 0, maximum = 20)]
    pub(crate) logprobs: Option<usize>,
    pub(crate) stop: Option<OneOrMany>,
    /// Tokens at most, 16 by default.
    pub(crate) max_tokens: Option<usize>,
    /// Only the empty one: what comes after the gap.
    #[schema(max_length = 0)]
    pub(crate) suffix: Option<String>,
    #[schema(minimum = 0, maximum = 2)]
    pub(crate) temperature: Option<f32>,
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) top_p: Option<f32>,
    /// Not OpenAI's: only the k likeliest tokens, 0 for all.
    pub(crate) top_k: Option<usize>,
    /// Not OpenAI's: only tokens at least this likely relative to the likeliest.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) min_p: Option<f32>,
    /// Not OpenAI's: divides the logits of tokens seen.
    #[schema(minimum = 0.01, maximum = 100)]
    pub(crate) repetition_penalty: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    pub(crate) frequency_penalty: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    pub(crate) presence_penalty: Option<f32>,
    /// Token id to what is added to its logit.
    pub(crate) logit_bias: Option<HashMap<String, f32>>,
    pub(crate) seed: Option<i64>,
    /// Not OpenAI's: the model's end tokens are generated through.
    pub(crate) ignore_eos: Option<bool>,
    /// Whose request it is: users get equal shares of the server.
    pub(crate) user: Option<String>,
}

impl CompletionRequest {
    /// How tokens are chosen.
    pub(crate) fn knobs(&self) -> Knobs {
        Knobs {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed,
        }
    }
}
