//! Conversations to learn from: their tokens, and which of them the assistant says.

use std::ops::Range;

use super::{ChatTemplate, Message, TemplateError};
use crate::tokenizer::{EncodeOptions, Tokenizer, TokenizerError};

/// The role of a model's own turns.
const ASSISTANT: &str = "assistant";

/// A text that grows, and its tokens.
struct Text<'t> {
    tokenizer: &'t Tokenizer,
    text: String,
    ids: Vec<u32>,
}

impl Text<'_> {
    /// Becomes `next`, which begins with the text so far, and keeps the tokens of that: one that would reach over the place
    /// where the model begins to speak is none that it could say.
    fn extend(&mut self, next: String) -> Result<usize, TemplateError> {
        let Some(rest) = next.strip_prefix(&self.text) else {
            let message =
                "it lays out a turn otherwise once others follow: give each answer a row of its own";
            return Err(TemplateError::Refused { message: message.to_owned() });
        };
        let whole = self.encode(&next, true)?;
        if whole.starts_with(&self.ids) {
            self.ids = whole;
        } else {
            let rest = self.encode(rest, false)?;
            self.ids.extend(rest);
        }
        self.text = next;
        Ok(self.ids.len())
    }

    fn encode(&self, text: &str, begins: bool) -> Result<Vec<u32>, TokenizerError> {
        let options = EncodeOptions { add_special: false, parse_special: true };
        let mut ids = self.tokenizer.encode(text, options)?;
        let bos = self.tokenizer.bos().filter(|_| begins && self.tokenizer.adds_bos());
        if let Some(bos) = bos.filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }
}

impl ChatTemplate {
    /// The tokens of a finished conversation up to its last answer, as the model sees them when it answers, and the range of
    /// each answer in them: what a prompt of [`ChatTemplate::encode`] leaves to the model, and all that the template puts
    /// behind it.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::encode`]; [`TemplateError::Refused`] for a template that lays out a turn otherwise once
    /// others follow.
    pub fn encode_answers(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<(Vec<u32>, Vec<Range<usize>>), TemplateError> {
        let messages: Vec<Message> = messages.iter().map(|message| message.guarded(tokenizer)).collect();
        let mut text = Text { tokenizer, text: String::new(), ids: Vec::new() };
        let mut answers = Vec::new();
        for i in (0..messages.len()).filter(|&i| messages[i].role == ASSISTANT) {
            let start = text.extend(self.render(&messages[..i], None, true)?)?;
            let end = text.extend(self.render(&messages[..=i], None, false)?)?;
            answers.push(start..end);
        }
        Ok((text.ids, answers))
    }
}
