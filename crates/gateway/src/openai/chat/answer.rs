//! The answer of `/v1/chat/completions` when it is sent whole.

use engine::scheduler::TokenLogprob;
use serde::Serialize;
use utoipa::ToSchema;

use crate::card::Card;
use crate::collect::Answer;
use crate::ids;
use crate::openai::types::{TokenUsage, finish_reason};
use crate::tools::{Format, Piece, Splitter};

/// Names the build, as OpenAI names the system.
pub(crate) const FINGERPRINT: &str = concat!("b-edgellm-", env!("CARGO_PKG_VERSION"));

/// An answered conversation.
#[derive(Serialize, ToSchema)]
pub(crate) struct Completion {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<Choice>,
    usage: TokenUsage,
    system_fingerprint: &'static str,
}

/// One of the answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct Choice {
    index: usize,
    message: AnswerMessage,
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
}

/// What the assistant says.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnswerMessage {
    role: &'static str,
    content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<MadeCall>,
}

/// A call of a tool.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeCall {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: MadeFunction,
}

/// What is called, with which arguments.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeFunction {
    name: String,
    /// JSON as a text.
    arguments: String,
}

impl AnswerMessage {
    /// A text, and the calls in it.
    fn new(text: &str, calls: Option<Format>) -> Self {
        let mut splitter = Splitter::new(calls);
        let mut pieces = splitter.push(text);
        pieces.extend(splitter.finish());
        let (mut content, mut tool_calls) = (String::new(), Vec::new());
        for piece in pieces {
            match piece {
                Piece::Text(text) => content.push_str(&text),
                Piece::Call(call) => tool_calls.push(MadeCall {
                    id: call.id,
                    kind: "function",
                    function: MadeFunction { name: call.name, arguments: call.arguments.to_string() },
                }),
            }
        }
        let content = (!content.is_empty() || tool_calls.is_empty()).then_some(content);
        Self { role: "assistant", content, refusal: None, tool_calls }
    }
}

/// Log-probabilities of an answer's tokens.
#[derive(Serialize, ToSchema)]
pub(crate) struct Logprobs {
    pub(crate) content: Vec<Logprob>,
    pub(crate) refusal: Option<Vec<Logprob>>,
}

/// A token and the likeliest at its place.
#[derive(Serialize, ToSchema)]
pub(crate) struct Logprob {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<TopLogprob>,
}

/// One of the likeliest tokens.
#[derive(Serialize, ToSchema)]
pub(crate) struct TopLogprob {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl Logprob {
    /// As OpenAI tells it.
    pub(crate) fn new(card: &Card, logprob: &TokenLogprob) -> Self {
        let top = |&(id, logprob): &(u32, f32)| TopLogprob {
            token: card.token_text(id),
            logprob,
            bytes: card.token_bytes(id).to_vec(),
        };
        Self {
            token: card.token_text(logprob.id),
            logprob: logprob.logprob,
            bytes: card.token_bytes(logprob.id).to_vec(),
            top_logprobs: logprob.top.iter().map(top).collect(),
        }
    }
}

impl Completion {
    /// The answers of all choices.
    pub(crate) fn new(card: &Card, answers: Vec<Answer>, logprobs: bool, calls: Option<Format>) -> Self {
        let usages: Vec<_> = answers.iter().map(|answer| answer.usage).collect();
        let choice = |(index, answer): (usize, Answer)| {
            let message = AnswerMessage::new(&answer.text, calls);
            let reason = if message.tool_calls.is_empty() { "stop" } else { "tool_calls" };
            Choice {
                index,
                logprobs: logprobs.then(|| Logprobs {
                    content: answer.logprobs.iter().map(|l| Logprob::new(card, l)).collect(),
                    refusal: None,
                }),
                finish_reason: if reason == "stop" {
                    answer.reason.map_or(reason, finish_reason)
                } else {
                    reason
                },
                message,
            }
        };
        Self {
            id: ids::new("chatcmpl-"),
            object: "chat.completion",
            created: ids::now(),
            model: card.name.clone(),
            usage: TokenUsage::of(&usages, usages.len()),
            choices: answers.into_iter().enumerate().map(choice).collect(),
            system_fingerprint: FINGERPRINT,
        }
    }
}
