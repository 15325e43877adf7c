//! Multiple-choice questions, one JSON object a line: `{"question": …, "choices": […], "answer": …}`.

use serde_json::{Map, Value};
use thiserror::Error;

/// Choices of a question at most.
pub const MAX_CHOICES: usize = 256;
/// Bytes of a line at most.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// A question, its choices, and which of them is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its line in the file, from 1.
    pub line: usize,
    /// What stands before each choice.
    pub question: String,
    /// Two or more, none empty.
    pub choices: Vec<String>,
    /// Index of the right one.
    pub answer: usize,
}

/// A line that is no question.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {field}{problem}")]
pub struct RowError {
    /// From 1.
    pub line: usize,
    /// The field with a colon and a space, or nothing when it is the whole line.
    field: String,
    /// What is wrong.
    problem: String,
}

impl RowError {
    pub(super) fn new(line: usize, field: &str, problem: impl Into<String>) -> Self {
        Self { line, field: format!("{field}: "), problem: problem.into() }
    }

    fn of_line(line: usize, problem: impl Into<String>) -> Self {
        Self { line, field: String::new(), problem: problem.into() }
    }

    /// The field's name, if it is not the whole line that is wrong.
    pub fn field(&self) -> Option<&str> {
        self.field.strip_suffix(": ")
    }
}

/// Reads all lines; empty ones count and are passed over. `answer` is the index of the right choice from 0, or its text,
/// or its letter (`"A"` is the first). Fields of other names are ignored.
///
/// # Errors
/// The first line that is no question: too long, not UTF-8, not JSON, a field that is missing, of the wrong type, or whose
/// value cannot be.
pub fn parse_questions(bytes: &[u8]) -> Result<Vec<Question>, RowError> {
    let mut questions = Vec::new();
    for (line, bytes) in (1..).zip(bytes.split(|&b| b == b'\n')) {
        if bytes.len() > MAX_LINE_BYTES {
            return Err(RowError::of_line(
                line,
                format!("{} bytes: at most {MAX_LINE_BYTES} are read", bytes.len()),
            ));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|err| RowError::of_line(line, format!("byte {}: not UTF-8", err.valid_up_to())))?;
        if !text.trim().is_empty() {
            questions.push(parse_line(line, text)?);
        }
    }
    Ok(questions)
}

fn parse_line(line: usize, text: &str) -> Result<Question, RowError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|err| RowError::of_line(line, format!("byte {}: not JSON: {err}", err.column())))?;
    let Value::Object(row) = value else {
        return Err(RowError::of_line(line, format!("{}, not an object", kind(&value))));
    };
    let question = match need(&row, line, "question")? {
        Value::String(text) => text.clone(),
        other => return Err(RowError::new(line, "question", format!("{}, not a text", kind(other)))),
    };
    let choices = choices(&row, line)?;
    let answer = answer(&row, line, &choices)?;
    Ok(Question { line, question, choices, answer })
}

fn need<'r>(row: &'r Map<String, Value>, line: usize, field: &str) -> Result<&'r Value, RowError> {
    row.get(field).ok_or_else(|| RowError::new(line, field, "missing"))
}

fn choices(row: &Map<String, Value>, line: usize) -> Result<Vec<String>, RowError> {
    let wrong = |problem: String| RowError::new(line, "choices", problem);
    let value = need(row, line, "choices")?;
    let list = value.as_array().ok_or_else(|| wrong(format!("{}, not a list", kind(value))))?;
    if list.len() < 2 || list.len() > MAX_CHOICES {
        return Err(wrong(format!("{} of them: take 2 to {MAX_CHOICES}", list.len())));
    }
    let text = |(i, choice): (usize, &Value)| match choice {
        Value::String(text) if text.trim().is_empty() => {
            Err(RowError::new(line, &format!("choices[{i}]"), "empty"))
        }
        Value::String(text) => Ok(text.clone()),
        other => Err(RowError::new(line, &format!("choices[{i}]"), format!("{}, not a text", kind(other)))),
    };
    list.iter().enumerate().map(text).collect()
}

fn answer(row: &Map<String, Value>, line: usize, choices: &[String]) -> Result<usize, RowError> {
    let wrong = |problem: String| RowError::new(line, "answer", problem);
    let n = choices.len();
    match need(row, line, "answer")? {
        Value::Number(number) => {
            let index = number.as_u64().and_then(|i| usize::try_from(i).ok()).filter(|&i| i < n);
            index.ok_or_else(|| wrong(format!("{number} is no index of {n} choices, 0 to {}", n - 1)))
        }
        Value::String(text) => {
            let mut equal = (0..n).filter(|&i| choices[i] == *text);
            match (equal.next(), equal.next()) {
                (Some(i), None) => Ok(i),
                (Some(_), Some(_)) => {
                    Err(wrong("more than one choice has this text: give its index".to_owned()))
                }
                (None, _) => letter(text)
                    .filter(|&i| i < n)
                    .ok_or_else(|| wrong("neither the text nor the letter of a choice".to_owned())),
            }
        }
        other => Err(wrong(format!("{}, not an index or a text", kind(other)))),
    }
}

/// `A` is 0.
fn letter(text: &str) -> Option<usize> {
    match text.as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        _ => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
