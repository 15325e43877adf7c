//! What was said so far, and the model's view of it.

use std::ops::ControlFlow;

use anyhow::Result;
use engine::chat_template::Message;
use engine::generate::{FinishReason, GenerateOptions, generate};
use engine::{Model, Sequence};

use crate::commands::load;
use crate::failure::Failure;

/// Positions that are kept unless the user says otherwise.
const DEFAULT_CONTEXT: usize = 4096;
/// Share of the context that is kept free for the answer: one part in this many.
const ANSWER_SHARE: usize = 8;

/// A conversation with one model. Each turn runs only the tokens that the sequence has not seen.
pub(super) struct Conversation<'m> {
    model: &'m Model,
    options: GenerateOptions,
    sequence: Sequence<'m>,
    /// Tokens whose keys and values the sequence holds.
    seen: Vec<u32>,
    system: Option<String>,
    /// Questions and answers in turn.
    messages: Vec<Message>,
}

/// What became of a question.
pub(super) struct Answered {
    pub(super) finish_reason: FinishReason,
    /// Old messages that had to go to make room.
    pub(super) forgotten: usize,
}

impl<'m> Conversation<'m> {
    /// An empty conversation. Errors: a model without tokenizer or chat template.
    pub(super) fn new(model: &'m Model, options: GenerateOptions, context: Option<usize>) -> Result<Self> {
        model.need_tokenizer()?;
        if model.chat_template.is_none() {
            let problem = format!("{}: the model has no chat template", model.info.path.display());
            let hint = "use edgellm generate, or give a template with --chat-template FILE";
            return Err(Failure::new(problem, hint).into());
        }
        let context = context.unwrap_or(model.config.seq_len.min(DEFAULT_CONTEXT));
        let sequence = Sequence::new(model, context)?;
        load::note_refused(&sequence);
        Ok(Self { model, options, sequence, seen: Vec::new(), system: None, messages: Vec::new() })
    }

    /// Forgets questions and answers, but not the system's message.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
    }

    /// The system's message from the next question on.
    pub(super) fn set_system(&mut self, text: Option<String>) {
        self.system = text;
    }

    /// Takes the last question and its answer back.
    pub(super) fn take_last_question(&mut self) -> Option<String> {
        let last = self.messages.iter().rposition(|message| message.role == "user")?;
        let question = self.messages.swap_remove(last).content;
        self.messages.truncate(last);
        Some(question)
    }

    /// Asks, and gives the answer to `each` piece by piece until it says stop. A question that fails is not
    /// part of the conversation.
    pub(super) fn answer(
        &mut self,
        question: &str,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answered> {
        let before = self.messages.len();
        self.messages.push(Message::new("user", question));
        match self.answer_last(each) {
            Ok(answered) => Ok(answered),
            Err(err) => {
                self.messages.truncate(before);
                self.sequence.truncate(0);
                self.seen.clear();
                Err(err)
            }
        }
    }

    fn answer_last(&mut self, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<Answered> {
        let (prompt, forgotten) = self.fitting_prompt()?;
        let common = self.seen.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
        // At least one token must be run to have logits.
        let known = common.min(prompt.len().saturating_sub(1));
        self.sequence.truncate(known);
        let mut on_step = |step: engine::generate::Step<'_>| each(step.text);
        let generated =
            generate(self.model, &mut self.sequence, &prompt[known..], &self.options, &mut on_step)?;
        self.seen = prompt;
        self.seen.extend(&generated.ids);
        // The last token of an answer has not been run.
        self.seen.truncate(self.sequence.position());
        self.messages.push(Message::new("assistant", generated.text));
        Ok(Answered { finish_reason: generated.finish_reason, forgotten })
    }

    /// The prompt's ids, after the oldest turns have been forgotten as far as room for an answer needs it.
    fn fitting_prompt(&mut self) -> Result<(Vec<u32>, usize)> {
        let room = self.sequence.context() - self.sequence.context() / ANSWER_SHARE;
        let mut forgotten = 0;
        loop {
            let prompt = self.prompt()?;
            if prompt.len() <= room || self.messages.len() <= 2 {
                return Ok((prompt, forgotten));
            }
            self.messages.drain(..2);
            forgotten += 2;
        }
    }

    fn prompt(&self) -> Result<Vec<u32>> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        let messages: Vec<Message> = system.chain(self.messages.iter().cloned()).collect();
        let Some(template) = &self.model.chat_template else {
            return Err(
                Failure::new("the model has no chat template", "give one with --chat-template FILE").into()
            );
        };
        Ok(template.encode(self.model.need_tokenizer()?, &messages, None, true)?)
    }
}
