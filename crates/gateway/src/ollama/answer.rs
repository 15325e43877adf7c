//! Answers of `/api/generate` and `/api/chat`, whole or line by line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::scheduler::{Event, Reason, TokenLogprob, Usage};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::collect::Answer;
use crate::engine_thread::Handle;
use crate::error::ApiError;
use crate::ids;
use crate::openai::chat::Logprob;
use crate::stream::{Render, json as write_json};
use crate::tools::{Format, Piece, Splitter};

/// A line of an answer, or the whole of it. Times are in nanoseconds.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct Line {
    pub(crate) model: String,
    pub(crate) created_at: String,
    /// Of `/api/generate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<String>,
    /// Of `/api/chat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<OllamaMessage>,
    pub(crate) done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) done_reason: Option<&'static str>,
    /// Of the tokens of this line, if they are wanted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) logprobs: Vec<Logprob>,
    #[serde(flatten)]
    pub(crate) times: Times,
}

/// A time as Ollama tells it.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What an answer took; only in the last line.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct Times {
    #[serde(skip_serializing_if = "Option::is_none")]
    total_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_duration: Option<u64>,
}

/// What the assistant says.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct OllamaMessage {
    role: &'static str,
    content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<OllamaCall>,
}

/// A call of a tool.
#[derive(Serialize, ToSchema)]
pub(crate) struct OllamaCall {
    function: OllamaFunction,
}

/// What is called, with which arguments.
#[derive(Serialize, ToSchema)]
pub(crate) struct OllamaFunction {
    name: String,
    #[schema(value_type = Object)]
    arguments: Value,
}

/// Writes one of the two kinds of answers.
pub(crate) struct Writer {
    pub(crate) handle: Arc<Handle>,
    /// Whether it is a message or a plain text.
    pub(crate) chat: bool,
    pub(crate) calls: Option<Format>,
    /// When the request came.
    pub(crate) started: Instant,
    /// What loading the model took of it.
    pub(crate) load: Duration,
}

impl Writer {
    /// A line with these pieces, made of these tokens.
    pub(crate) fn line(&self, pieces: Vec<Piece>, tokens: Vec<TokenLogprob>) -> Line {
        let (mut content, mut tool_calls) = (String::new(), Vec::new());
        for piece in pieces {
            match piece {
                Piece::Text(text) => content.push_str(&text),
                Piece::Call(call) => tool_calls.push(OllamaCall {
                    function: OllamaFunction { name: call.name, arguments: call.arguments },
                }),
            }
        }
        let line = Line {
            model: self.handle.card.name.clone(),
            created_at: super::time(ids::now()),
            logprobs: tokens.iter().map(|token| Logprob::new(&self.handle.card, token)).collect(),
            ..Line::default()
        };
        if self.chat {
            Line { message: Some(OllamaMessage { role: "assistant", content, tool_calls }), ..line }
        } else {
            Line { response: Some(content), ..line }
        }
    }

    /// The last line.
    pub(crate) fn last(
        &self,
        pieces: Vec<Piece>,
        tokens: Vec<TokenLogprob>,
        reason: Option<Reason>,
        usage: &Usage,
    ) -> Line {
        Line {
            done: true,
            done_reason: Some(if reason == Some(Reason::Length) { "length" } else { "stop" }),
            times: Times {
                total_duration: Some(nanos(self.started.elapsed())),
                load_duration: Some(nanos(self.load)),
                prompt_eval_count: Some(usage.prompt_tokens),
                prompt_eval_duration: Some(nanos(usage.prefill)),
                eval_count: Some(usage.completion_tokens),
                eval_duration: Some(nanos(usage.decode)),
            },
            ..self.line(pieces, tokens)
        }
    }

    /// The whole answer.
    pub(crate) fn whole(&self, answer: &Answer) -> Line {
        let mut splitter = Splitter::new(self.calls);
        let mut pieces = splitter.push(&answer.text);
        pieces.extend(splitter.finish());
        self.last(pieces, answer.logprobs.clone(), answer.reason, &answer.usage)
    }
}

/// Writes an answer line by line.
pub(crate) struct Lines {
    splitter: Splitter,
    writer: Writer,
    /// Tokens whose text has not been certain yet.
    tokens: Vec<TokenLogprob>,
}

impl Lines {
    pub(crate) fn new(writer: Writer) -> Self {
        Self { splitter: Splitter::new(writer.calls), writer, tokens: Vec::new() }
    }
}

fn write_line(line: &impl Serialize, out: &mut Vec<u8>) {
    write_json(line, out);
    out.push(b'\n');
}

impl Render for Lines {
    fn start(&mut self, _out: &mut Vec<u8>) {}

    fn event(&mut self, _index: usize, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Token { text, logprob, .. } => {
                self.tokens.extend(logprob);
                let pieces = self.splitter.push(&text);
                if !pieces.is_empty() {
                    write_line(&self.writer.line(pieces, std::mem::take(&mut self.tokens)), out);
                }
            }
            Event::Finished { text, reason, usage } => {
                let mut pieces = self.splitter.push(&text);
                pieces.extend(self.splitter.finish());
                if !pieces.is_empty() {
                    write_line(&self.writer.line(pieces, std::mem::take(&mut self.tokens)), out);
                }
                let tokens = std::mem::take(&mut self.tokens);
                write_line(&self.writer.last(Vec::new(), tokens, Some(reason), &usage), out);
            }
            Event::Failed(error) => write_line(&json!({ "error": ApiError::from(error).message }), out),
            Event::Prompt(_) | Event::Embedded { .. } => {}
        }
    }

    fn end(&mut self, _out: &mut Vec<u8>) {}

    /// Every line is an object: one that says nothing.
    fn keep_alive(&self, out: &mut Vec<u8>) {
        write_line(&self.writer.line(Vec::new(), Vec::new()), out);
    }

    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }
}
