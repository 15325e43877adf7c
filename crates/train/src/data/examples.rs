//! Rows of a data set as what a model reads and what it should answer.
//!
//! A row is a JSON object: `messages`, `instruction` with `input` and `output` (Alpaca), `prompt` with `completion`, or
//! `text`. A model with a chat template sees the first three as conversations.

use std::ops::Range;
use std::path::Path;

use engine::chat_template::{ChatTemplate, Message};
use engine::tokenizer::{EncodeOptions, Tokenizer};
use serde::Serialize;
use serde_json::{Map, Value};

use super::text::each_line;
use crate::error::TrainError;
use crate::model::Batch;

/// A row in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Its line in the file, from 1 on.
    pub line: usize,
    /// What the model reads, and what it should say, one behind the other.
    pub ids: Vec<u32>,
    /// Which of them it should say; never the first.
    pub answers: Vec<Range<usize>>,
}

impl Example {
    /// Positions that it takes: the last token is said, not read.
    pub fn positions(&self) -> usize {
        self.ids.len() - 1
    }

    /// Tokens that count.
    pub fn answer_tokens(&self) -> usize {
        self.answers.iter().map(Range::len).sum()
    }

    /// Appends it to a batch as a document of its own that begins at position `start` of its sequence.
    pub(crate) fn push(&self, start: usize, batch: &mut Batch) {
        let n = self.positions();
        batch.inputs.extend_from_slice(&self.ids[..n]);
        batch.targets.extend_from_slice(&self.ids[1..]);
        let from = batch.weights.len();
        batch.weights.resize(from + n, 0.0);
        for answer in &self.answers {
            batch.weights[from + answer.start - 1..from + answer.end - 1].fill(1.0);
        }
        batch.starts.extend(std::iter::repeat_n(u32::try_from(start).unwrap_or(u32::MAX), n));
    }
}

/// What became of a file's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ExamplesReport {
    /// Rows that are used.
    pub rows: usize,
    /// Those of them whose end was cut off, because they are longer than allowed.
    pub cut: usize,
    /// Rows that are not used, because nothing of their answers is within the length allowed.
    pub left_out: usize,
    /// Tokens of the rows that are used.
    pub tokens: usize,
    /// Those of them that the model should say.
    pub answer_tokens: usize,
}

/// How rows become tokens: the model's own way.
#[derive(Debug, Clone, Copy)]
pub struct Encoding<'a> {
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Its chat template, if any.
    pub template: Option<&'a ChatTemplate>,
    /// Tokens that end an answer.
    pub eos: &'a [u32],
    /// Tokens of a row at most, at least 2: what comes behind is cut off.
    pub max_length: usize,
}

/// Reads all rows of a file of JSON lines, also compressed (`.xz`, `.zst`, `.gz`).
///
/// # Errors
/// A row that is no JSON, lacks a field, or whose answer is empty: with the line and the field. A file none of whose rows can
/// be used.
pub fn examples(path: &Path, encoding: &Encoding<'_>) -> Result<(Vec<Example>, ExamplesReport), TrainError> {
    let (mut examples, mut report) = (Vec::new(), ExamplesReport::default());
    each_line(path, &mut |line, text| {
        if text.trim().is_empty() {
            return Ok(());
        }
        let wrong = |problem: String| TrainError::Row { path: path.to_owned(), line, problem };
        let value: Value = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let row = Row::parse(&value).map_err(wrong)?;
        let (mut ids, mut answers) = encoding.tokens(&row).map_err(wrong)?;
        if ids.len() > encoding.max_length {
            ids.truncate(encoding.max_length);
            answers.iter_mut().for_each(|a| *a = a.start.min(ids.len())..a.end.min(ids.len()));
            answers.retain(|a| !a.is_empty());
            match answers.is_empty() {
                true => report.left_out += 1,
                false => report.cut += 1,
            }
        }
        if !answers.is_empty() {
            examples.push(Example { line, ids, answers });
        }
        Ok(())
    })?;
    report.rows = examples.len();
    report.tokens = examples.iter().map(|e| e.ids.len()).sum();
    report.answer_tokens = examples.iter().map(Example::answer_tokens).sum();
    if examples.is_empty() {
        let problem = match report.left_out {
            0 => "the file has no rows".to_owned(),
            rows => {
                format!("nothing of the answers of its {rows} rows is within {} tokens", encoding.max_length)
            }
        };
        return Err(TrainError::input(path.display().to_string(), problem));
    }
    Ok((examples, report))
}

/// What a row says.
#[derive(Debug, PartialEq)]
enum Row {
    /// All of it counts.
    Text(String),
    /// The answers count.
    Chat(Vec<Message>),
    /// The second counts; without a chat template they stand one behind the other.
    Pair { prompt: String, answer: String, system: Option<String> },
}

impl Row {
    /// The error names the field.
    fn parse(value: &Value) -> Result<Self, String> {
        let Value::Object(row) = value else { return Err("the row is no JSON object".to_owned()) };
        if let Some(messages) = row.get("messages") {
            return Self::chat(messages);
        }
        if row.contains_key("instruction") {
            let (instruction, input) = (text(row, "instruction")?, optional(row, "input")?);
            let prompt = match input.as_deref() {
                None | Some("") => instruction,
                Some(input) => format!("{instruction}\n\n{input}"),
            };
            return Ok(Self::Pair { prompt, answer: text(row, "output")?, system: optional(row, "system")? });
        }
        if row.contains_key("prompt") {
            let (prompt, answer) = (text(row, "prompt")?, text(row, "completion")?);
            return Ok(Self::Pair { prompt, answer, system: None });
        }
        if row.contains_key("text") {
            return Ok(Self::Text(text(row, "text")?));
        }
        Err("none of the fields messages, instruction, prompt, text".to_owned())
    }

    fn chat(messages: &Value) -> Result<Self, String> {
        let list = messages.as_array().ok_or("messages is no list")?;
        let message = |(i, message): (usize, &Value)| {
            let at = |problem: String| format!("messages[{i}].{problem}");
            let Value::Object(fields) = message else { return Err(format!("messages[{i}] is no object")) };
            let role = text(fields, "role").map_err(at)?;
            // Answers must say something; what is asked may be empty.
            let content = match role == "assistant" {
                true => text(fields, "content"),
                false => optional(fields, "content").map(Option::unwrap_or_default),
            };
            let mut message = Message::new(role, content.map_err(at)?);
            let others = fields.iter().filter(|(name, _)| *name != "role" && *name != "content");
            message.fields.extend(others.map(|(name, value)| (name.clone(), value.clone())));
            Ok(message)
        };
        let messages: Vec<Message> = list.iter().enumerate().map(message).collect::<Result<_, String>>()?;
        if !messages.iter().any(|message| message.role == "assistant") {
            return Err("messages: none is the assistant's".to_owned());
        }
        Ok(Self::Chat(messages))
    }
}

/// A field that must say something.
fn text(row: &Map<String, Value>, field: &str) -> Result<String, String> {
    match optional(row, field)? {
        Some(text) if !text.trim().is_empty() => Ok(text),
        Some(_) => Err(format!("{field} is empty")),
        None => Err(format!("{field} is missing")),
    }
}

fn optional(row: &Map<String, Value>, field: &str) -> Result<Option<String>, String> {
    match row.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{field} is no text")),
    }
}

impl Encoding<'_> {
    /// The tokens of a row, and which of them the model should say.
    fn tokens(&self, row: &Row) -> Result<(Vec<u32>, Vec<Range<usize>>), String> {
        match (row, self.template) {
            (Row::Text(text), _) => {
                let mut ids = self.encode(text, true)?;
                ids.extend(self.end());
                let end = ids.len();
                if end < 2 {
                    return Err("text is a single token, which nothing can be learned from".to_owned());
                }
                Ok((ids, std::iter::once(1..end).collect()))
            }
            (Row::Chat(messages), Some(template)) => self.chat(template, messages),
            (Row::Chat(_), None) => {
                Err("messages: the model has no chat template (--chat-template gives one)".to_owned())
            }
            (Row::Pair { prompt, answer, system }, Some(template)) => {
                let system = system.iter().map(|system| Message::new("system", system));
                let turns = [Message::new("user", prompt), Message::new("assistant", answer)];
                self.chat(template, &system.chain(turns).collect::<Vec<_>>())
            }
            (Row::Pair { prompt, answer, system }, None) => {
                let system = system.iter().map(|system| format!("{system}\n\n"));
                let prompt: String = system.chain([prompt.clone()]).collect();
                let mut ids = self.encode(&prompt, true)?;
                let start = ids.len().max(1);
                let whole = self.encode(&format!("{prompt}{answer}"), true)?;
                match whole.starts_with(&ids) {
                    true => ids = whole,
                    false => ids.extend(self.encode(answer, false)?),
                }
                ids.extend(self.end());
                let end = ids.len();
                Ok((ids, std::iter::once(start..end).collect()))
            }
        }
    }

    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, String> {
        let options = EncodeOptions { add_special, parse_special: false };
        self.tokenizer.encode(text, options).map_err(|e| e.to_string())
    }

    /// What ends a text.
    fn end(&self) -> Option<u32> {
        self.tokenizer.eos().first().or(self.eos.first()).copied()
    }

    /// A conversation; what a template puts behind an answer's end token does not count.
    fn chat(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
    ) -> Result<(Vec<u32>, Vec<Range<usize>>), String> {
        let (ids, mut answers) =
            template.encode_answers(self.tokenizer, messages).map_err(|e| e.to_string())?;
        for answer in &mut answers {
            if let Some(last) = ids[answer.clone()].iter().rposition(|id| self.eos.contains(id)) {
                answer.end = answer.start + last + 1;
            }
            answer.start = answer.start.max(1);
        }
        answers.retain(|answer| !answer.is_empty());
        if answers.is_empty() {
            return Err("the chat template leaves nothing of the answers".to_owned());
        }
        Ok((ids, answers))
    }
}
