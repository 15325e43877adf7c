//! The answer of `/v1/messages`, whole and as it comes.

use engine::scheduler::{Reason, Usage};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::ids;
use crate::stream::named;
use crate::translate::Translate;

/// An answered conversation.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessagesAnswer {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: String,
    content: Vec<AnswerBlock>,
    stop_reason: &'static str,
    stop_sequence: Option<String>,
    usage: MessagesUsage,
}

/// A block of an answer.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum AnswerBlock {
    /// What is said.
    Text { text: String },
    /// A tool that is called.
    ToolUse {
        id: String,
        name: String,
        #[schema(value_type = Object)]
        input: Value,
    },
}

/// Tokens of a request.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(crate) struct MessagesUsage {
    /// Tokens of the prompt that were computed.
    input_tokens: usize,
    /// Always 0: the cache has no price.
    cache_creation_input_tokens: usize,
    /// Tokens of the prompt that were known from earlier requests.
    cache_read_input_tokens: usize,
    output_tokens: usize,
}

impl MessagesUsage {
    fn of(usage: &Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.completion_tokens,
        }
    }
}

/// Anthropic's word for why an answer ended, and the stop sequence that did it.
fn stop_reason(
    finish_reason: &str,
    reason: Reason,
    stops: &[String],
    calls: bool,
) -> (&'static str, Option<String>) {
    match (finish_reason, reason) {
        ("tool_calls", _) => ("tool_use", None),
        (_, Reason::StopString(index)) => ("stop_sequence", stops.get(index).cloned()),
        (_, Reason::Length) => ("max_tokens", None),
        _ if calls => ("tool_use", None),
        _ => ("end_turn", None),
    }
}

impl MessagesAnswer {
    /// What a completed chat, as JSON, becomes.
    pub(crate) fn of(chat: &Value, reason: Reason, usage: &Usage, stops: &[String]) -> Self {
        let choice = &chat["choices"][0];
        let text = choice["message"]["content"].as_str().unwrap_or_default();
        let calls = choice["message"]["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut content = Vec::new();
        if !text.is_empty() || calls.is_empty() {
            content.push(AnswerBlock::Text { text: text.to_owned() });
        }
        content.extend(calls.iter().map(|call| {
            let function = &call["function"];
            let arguments = function["arguments"].as_str().unwrap_or_default();
            AnswerBlock::ToolUse {
                id: call["id"].as_str().unwrap_or_default().to_owned(),
                name: function["name"].as_str().unwrap_or_default().to_owned(),
                // An answer that was cut in the middle of its arguments has none.
                input: serde_json::from_str(arguments).unwrap_or_else(|_| json!({})),
            }
        }));
        let finish = choice["finish_reason"].as_str().unwrap_or_default();
        let (stop_reason, stop_sequence) = stop_reason(finish, reason, stops, !calls.is_empty());
        Self {
            id: ids::new("msg_"),
            kind: "message",
            role: "assistant",
            model: chat["model"].as_str().unwrap_or_default().to_owned(),
            content,
            stop_reason,
            stop_sequence,
            usage: MessagesUsage::of(usage),
        }
    }
}

/// Which block is open.
#[derive(PartialEq, Eq)]
enum Open {
    Nothing,
    Text,
    /// The call of this place among the calls.
    Call(u64),
}

/// Writes Anthropic's events.
pub(crate) struct MessagesStream {
    model: String,
    prompt_tokens: usize,
    stops: Vec<String>,
    open: Open,
    /// Blocks so far.
    blocks: usize,
    calls: bool,
}

impl MessagesStream {
    pub(crate) fn new(model: String, prompt_tokens: usize, stops: Vec<String>) -> Self {
        Self { model, prompt_tokens, stops, open: Open::Nothing, blocks: 0, calls: false }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open != Open::Nothing {
            let index = self.blocks - 1;
            named("content_block_stop", &json!({ "type": "content_block_stop", "index": index }), out);
            self.open = Open::Nothing;
        }
    }

    fn begin(&mut self, open: Open, block: &Value, out: &mut Vec<u8>) {
        self.close(out);
        self.open = open;
        let start = json!({ "type": "content_block_start", "index": self.blocks, "content_block": block });
        named("content_block_start", &start, out);
        self.blocks += 1;
    }

    fn change(&self, delta: &Value, out: &mut Vec<u8>) {
        let index = self.blocks - 1;
        named(
            "content_block_delta",
            &json!({ "type": "content_block_delta", "index": index, "delta": delta }),
            out,
        );
    }

    fn call(&mut self, call: &Value, out: &mut Vec<u8>) {
        let place = call["index"].as_u64().unwrap_or_default();
        let function = &call["function"];
        if self.open != Open::Call(place) {
            self.calls = true;
            let block =
                json!({ "type": "tool_use", "id": call["id"], "name": function["name"], "input": {} });
            self.begin(Open::Call(place), &block, out);
        }
        if let Some(arguments) = function["arguments"].as_str().filter(|arguments| !arguments.is_empty()) {
            self.change(&json!({ "type": "input_json_delta", "partial_json": arguments }), out);
        }
    }
}

impl Translate for MessagesStream {
    fn start(&mut self, out: &mut Vec<u8>) {
        let message = json!({
            "id": ids::new("msg_"), "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null,
            "usage": { "input_tokens": self.prompt_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                       "output_tokens": 0 }
        });
        named("message_start", &json!({ "type": "message_start", "message": message }), out);
    }

    fn delta(&mut self, delta: &Value, out: &mut Vec<u8>) {
        if let Some(text) = delta["content"].as_str().filter(|text| !text.is_empty()) {
            if self.open != Open::Text {
                self.begin(Open::Text, &json!({ "type": "text", "text": "" }), out);
            }
            self.change(&json!({ "type": "text_delta", "text": text }), out);
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(call, out);
        }
    }

    fn finish(&mut self, finish_reason: &str, reason: Reason, usage: Usage, out: &mut Vec<u8>) {
        if self.blocks == 0 {
            self.begin(Open::Text, &json!({ "type": "text", "text": "" }), out);
        }
        self.close(out);
        let (stop_reason, stop_sequence) = stop_reason(finish_reason, reason, &self.stops, self.calls);
        let delta = json!({ "stop_reason": stop_reason, "stop_sequence": stop_sequence });
        let usage = MessagesUsage::of(&usage);
        named("message_delta", &json!({ "type": "message_delta", "delta": delta, "usage": usage }), out);
        named("message_stop", &json!({ "type": "message_stop" }), out);
    }

    fn fail(&mut self, error: &Value, out: &mut Vec<u8>) {
        let error = json!({ "type": "api_error", "message": error["message"] });
        named("error", &json!({ "type": "error", "error": error }), out);
    }

    fn keep_alive(&self, out: &mut Vec<u8>) {
        named("ping", &json!({ "type": "ping" }), out);
    }
}
