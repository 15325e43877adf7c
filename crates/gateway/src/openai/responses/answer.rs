//! The object of `/v1/responses`.

use engine::scheduler::{Reason, Usage};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::request::Echo;
use crate::ids;

/// An answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ResponseObject {
    pub(crate) id: String,
    object: &'static str,
    created_at: u64,
    pub(crate) status: &'static str,
    #[schema(value_type = Option<Object>)]
    pub(crate) error: Option<Value>,
    incomplete_details: Option<IncompleteDetails>,
    model: String,
    #[schema(value_type = Vec<Object>)]
    pub(crate) output: Vec<Value>,
    previous_response_id: Option<String>,
    reasoning: Reasoning,
    store: bool,
    truncation: &'static str,
    usage: Option<ResponseUsage>,
    #[serde(flatten)]
    echo: Echo,
}

/// Why an answer is not whole.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
struct IncompleteDetails {
    reason: &'static str,
}

/// How the model thought: not told.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
struct Reasoning {
    effort: Option<&'static str>,
    summary: Option<&'static str>,
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
struct ResponseUsage {
    input_tokens: usize,
    input_tokens_details: InputDetails,
    output_tokens: usize,
    output_tokens_details: OutputDetails,
    total_tokens: usize,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
struct InputDetails {
    cached_tokens: usize,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
struct OutputDetails {
    reasoning_tokens: usize,
}

impl ResponseObject {
    /// An answer that has begun.
    pub(crate) fn new(model: &str, echo: Echo) -> Self {
        Self {
            id: ids::new("resp_"),
            object: "response",
            created_at: ids::now(),
            status: "in_progress",
            error: None,
            incomplete_details: None,
            model: model.to_owned(),
            output: Vec::new(),
            previous_response_id: None,
            reasoning: Reasoning::default(),
            store: false,
            truncation: "disabled",
            usage: None,
            echo,
        }
    }

    /// Says how it ended.
    pub(crate) fn finish(&mut self, reason: Reason, usage: &Usage) {
        self.status = status(reason);
        self.incomplete_details =
            (reason == Reason::Length).then_some(IncompleteDetails { reason: "max_output_tokens" });
        self.usage = Some(ResponseUsage {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails { cached_tokens: usage.cached_tokens },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: 0 },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        });
    }

    /// What a completed chat, as JSON, becomes.
    pub(crate) fn of(mut self, chat: &Value, reason: Reason, usage: &Usage) -> Self {
        let message = &chat["choices"][0]["message"];
        let text = message["content"].as_str().unwrap_or_default();
        let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !text.is_empty() || calls.is_empty() {
            self.output.push(text_item(&ids::new("msg_"), text, status(reason)));
        }
        for call in calls {
            let function = &call["function"];
            let arguments = function["arguments"].as_str().unwrap_or_default();
            self.output.push(call_item(
                &ids::new("fc_"),
                &call["id"],
                &function["name"],
                arguments,
                status(reason),
            ));
        }
        self.finish(reason, usage);
        self
    }
}

/// OpenAI's word for how far an answer has come.
pub(crate) fn status(reason: Reason) -> &'static str {
    if reason == Reason::Length { "incomplete" } else { "completed" }
}

/// A message as an item of the output.
pub(crate) fn text_item(id: &str, text: &str, status: &str) -> Value {
    json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": [text_part(text)] })
}

/// The one part of a message.
pub(crate) fn text_part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

/// A call of a tool as an item of the output.
pub(crate) fn call_item(id: &str, call_id: &Value, name: &Value, arguments: &str, status: &str) -> Value {
    json!({ "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name, "arguments": arguments })
}
