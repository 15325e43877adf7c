//! Streams of other interfaces, made from the events of OpenAI's chat.

use engine::scheduler::{Event, Reason, Usage};
use serde_json::Value;

use crate::card::Card;
use crate::collect::collect;
use crate::error::ApiError;
use crate::generation::Generation;
use crate::openai::chat::{ChatStream, Completion};
use crate::sse::Lines;
use crate::stream::Render;
use crate::tools::Format;

/// Turns the events of a chat with one choice into those of another interface.
pub(crate) trait Translate: Send + 'static {
    /// What comes first.
    fn start(&mut self, out: &mut Vec<u8>);

    /// What a change of the message becomes: `delta` of a choice.
    fn delta(&mut self, delta: &Value, out: &mut Vec<u8>);

    /// The answer has ended, for this reason as OpenAI calls it and as the scheduler does.
    fn finish(&mut self, finish_reason: &str, reason: Reason, usage: Usage, out: &mut Vec<u8>);

    /// The answer cannot go on; the error object as OpenAI has it.
    fn fail(&mut self, error: &Value, out: &mut Vec<u8>);

    /// See [`Render::keep_alive`].
    fn keep_alive(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b": keep-alive\n\n");
    }
}

/// A chat with one choice that has been answered.
pub(crate) struct Whole {
    /// As `/v1/chat/completions` would answer.
    pub(crate) chat: Value,
    pub(crate) reason: Reason,
    pub(crate) usage: Usage,
}

/// Waits for the answer.
///
/// # Errors
/// Those of the generation.
pub(crate) async fn whole(
    card: &Card,
    generation: Generation,
    logprobs: bool,
    calls: Option<Format>,
) -> Result<Whole, ApiError> {
    let answers = collect(generation).await?;
    let first = answers.first().ok_or_else(|| ApiError::internal("There is no answer"))?;
    let (reason, usage) = (first.reason.unwrap_or(Reason::End), first.usage);
    let completion = Completion::new(card, answers, logprobs, calls);
    let chat = serde_json::to_value(completion).map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(Whole { chat, reason, usage })
}

/// A chat's stream in another interface.
pub(crate) struct Translated<T> {
    chat: ChatStream,
    translate: T,
    /// How the answer ended, once it has.
    ended: Option<(Reason, Usage)>,
    lines: Lines,
}

impl<T: Translate> Translated<T> {
    pub(crate) fn new(chat: ChatStream, translate: T) -> Self {
        Self { chat, translate, ended: None, lines: Lines::default() }
    }

    fn pass(&mut self, events: &[u8], out: &mut Vec<u8>) {
        for data in self.lines.events(events) {
            let Ok(chunk) = serde_json::from_str::<Value>(&data) else { continue };
            if let Some(error) = chunk.get("error") {
                self.translate.fail(error, out);
            }
            let Some(choice) = chunk.pointer("/choices/0") else { continue };
            self.translate.delta(&choice["delta"], out);
            if let (Some(reason), Some((ended, usage))) = (choice["finish_reason"].as_str(), self.ended) {
                self.translate.finish(reason, ended, usage, out);
            }
        }
    }
}

impl<T: Translate> Render for Translated<T> {
    fn start(&mut self, out: &mut Vec<u8>) {
        self.translate.start(out);
        let mut events = Vec::new();
        self.chat.start(&mut events);
        self.pass(&events, out);
    }

    fn event(&mut self, index: usize, event: Event, out: &mut Vec<u8>) {
        if let Event::Finished { reason, usage, .. } = &event {
            self.ended = Some((*reason, *usage));
        }
        let mut events = Vec::new();
        self.chat.event(index, event, &mut events);
        self.pass(&events, out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let mut events = Vec::new();
        self.chat.end(&mut events);
        self.pass(&events, out);
    }

    fn keep_alive(&self, out: &mut Vec<u8>) {
        self.translate.keep_alive(out);
    }
}
