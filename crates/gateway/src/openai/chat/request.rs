//! The body of `/v1/chat/completions`.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::format::ResponseFormat;
use super::message::ChatMessage;
use super::tools::{ToolChoice, ToolDefinition};
use crate::error::ApiError;
use crate::openai::knobs::Knobs;
use crate::openai::types::{OneOrMany, StreamOptions};

/// A conversation to be answered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatRequest {
    /// Name of a model; the server's first by default.
    pub(crate) model: Option<String>,
    /// The conversation so far.
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) stream: Option<bool>,
    #[serde(default, deserialize_with = "crate::body::object")]
    pub(crate) stream_options: Option<StreamOptions>,
    /// Choices, each with a seed of its own.
    #[schema(minimum = 1, maximum = 16)]
    pub(crate) n: Option<usize>,
    /// Texts that end the answer.
    pub(crate) stop: Option<OneOrMany>,
    /// Tokens at most; until the context is full by default.
    #[schema(minimum = 1)]
    pub(crate) max_tokens: Option<usize>,
    /// The same by its newer name, which wins.
    #[schema(minimum = 1)]
    pub(crate) max_completion_tokens: Option<usize>,
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
    pub(crate) logprobs: Option<bool>,
    #[schema(minimum = 0, maximum = 20)]
    pub(crate) top_logprobs: Option<usize>,
    /// Not OpenAI's: the model's end tokens are generated through.
    pub(crate) ignore_eos: Option<bool>,
    /// What the answer must be: text, JSON, or JSON of a schema.
    pub(crate) response_format: Option<ResponseFormat>,
    /// Functions that the model may call.
    #[schema(max_items = 128)]
    pub(crate) tools: Option<Vec<ToolDefinition>>,
    /// Whether it must call one; `auto` by default.
    pub(crate) tool_choice: Option<ToolChoice>,
    /// Whether it may call several at once; true by default.
    pub(crate) parallel_tool_calls: Option<bool>,
    /// Whose request it is: users get equal shares of the server.
    pub(crate) user: Option<String>,
    /// The same by its newer name.
    pub(crate) safety_identifier: Option<String>,
    /// Accepted; prompts with the same beginning share it whatever the key.
    #[expect(dead_code, reason = "accepted, and nothing follows from it")]
    pub(crate) prompt_cache_key: Option<String>,
    /// Accepted and not kept.
    #[schema(value_type = Option<HashMap<String, String>>)]
    #[expect(dead_code, reason = "accepted, and nothing follows from it")]
    pub(crate) metadata: Option<Value>,
    /// Only false: nothing is stored.
    pub(crate) store: Option<bool>,
    /// Only `auto` and `default`.
    pub(crate) service_tier: Option<String>,
    /// Only `["text"]`.
    pub(crate) modalities: Option<Vec<String>>,
}

impl ChatRequest {
    /// 400 for what is known and cannot be done.
    pub(crate) fn refuse_what_is_not_done(&self) -> Result<(), ApiError> {
        if self.store == Some(true) {
            return Err(ApiError::unsupported("store", "answers are not stored"));
        }
        if self.service_tier.as_ref().is_some_and(|tier| !["auto", "default"].contains(&tier.as_str())) {
            return Err(ApiError::unsupported("service_tier", "there is only one"));
        }
        if self.modalities.as_ref().is_some_and(|m| m.iter().any(|m| m != "text")) {
            return Err(ApiError::unsupported("modalities", "answers are text"));
        }
        Ok(())
    }

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
