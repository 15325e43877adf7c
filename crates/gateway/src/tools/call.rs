//! Calls in the text of an answer, found as it comes.

use serde_json::Value;

use super::format::{CLOSE, Format, OPEN};
use crate::ids;

/// A call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: Value,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    /// Words.
    Text(String),
    /// A call of a tool.
    Call(Call),
}

/// Splits an answer into words and calls. Text that is no whole call after all is words.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// None for an answer that can hold no calls.
    format: Option<Format>,
    pending: String,
    inside: bool,
    /// Whether something else than white space was given out.
    begun: bool,
    calls: usize,
}

impl Splitter {
    pub(crate) fn new(format: Option<Format>) -> Self {
        Self { format, pending: String::new(), inside: false, begun: false, calls: 0 }
    }

    /// Calls found so far.
    pub(crate) fn calls(&self) -> usize {
        self.calls
    }

    /// Adds text, and gives what is certain.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        let Some(format) = self.format else {
            return if text.is_empty() { Vec::new() } else { vec![Piece::Text(text.to_owned())] };
        };
        self.pending.push_str(text);
        let mut pieces = Vec::new();
        match format {
            Format::Tagged => while self.tagged(&mut pieces) {},
            // Whether it is a call shows at its first character, and which one at its end.
            Format::Bare => {
                if self.begun || !matches!(self.pending.trim_start().chars().next(), None | Some('{')) {
                    let text = std::mem::take(&mut self.pending);
                    self.text(&text, &mut pieces);
                }
            }
        }
        pieces
    }

    /// What is left at the end.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let rest = std::mem::take(&mut self.pending);
        let call = match self.format {
            Some(Format::Bare) if !self.begun => parse(&rest),
            // The closing tag may be what ended the answer.
            Some(Format::Tagged) if self.inside => parse(&rest),
            _ => None,
        };
        match call {
            Some(call) => self.call(call, &mut pieces),
            None if self.inside => self.text(&format!("{OPEN}{rest}"), &mut pieces),
            None => self.text(&rest, &mut pieces),
        }
        pieces
    }

    /// Takes the next piece that is certain; false when there is none.
    fn tagged(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let tag = if self.inside { CLOSE } else { OPEN };
        if let Some(at) = self.pending.find(tag) {
            let before = self.pending[..at].to_owned();
            self.pending.drain(..at + tag.len());
            if !self.inside {
                self.text(before.trim_end(), pieces);
            } else if let Some(call) = parse(&before) {
                self.call(call, pieces);
            } else {
                self.text(&format!("{OPEN}{before}{CLOSE}"), pieces);
            }
            self.inside = !self.inside;
            return true;
        }
        if !self.inside {
            // White space before a call is not part of the words, and the end may be the beginning of a tag.
            let held = (1..tag.len()).rev().find(|&n| self.pending.ends_with(&tag[..n])).unwrap_or(0);
            let certain = self.pending[..self.pending.len() - held].trim_end().len();
            let text: String = self.pending.drain(..certain).collect();
            self.text(&text, pieces);
        }
        false
    }

    fn text(&mut self, text: &str, pieces: &mut Vec<Piece>) {
        // Between calls there is white space only.
        let text = if self.begun && self.calls == 0 { text } else { text.trim_start() };
        if !text.is_empty() {
            self.begun = true;
            pieces.push(Piece::Text(text.to_owned()));
        }
    }

    fn call(&mut self, call: Call, pieces: &mut Vec<Piece>) {
        self.calls += 1;
        self.begun = true;
        pieces.push(Piece::Call(call));
    }
}

/// A call from its JSON.
fn parse(text: &str) -> Option<Call> {
    let value: Value = serde_json::from_str(text.trim()).ok()?;
    let name = value.get("name")?.as_str()?.to_owned();
    let arguments = value.get("arguments").or_else(|| value.get("parameters"))?.clone();
    // Some models write the arguments as a text.
    let arguments = match arguments {
        Value::String(text) => serde_json::from_str(&text).ok()?,
        value => value,
    };
    Some(Call { id: ids::new("call_"), name, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The words, and the names and arguments of the calls.
    fn split(format: Format, pieces: &[&str]) -> (String, Vec<String>) {
        let mut splitter = Splitter::new(Some(format));
        let mut found: Vec<Piece> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
        found.extend(splitter.finish());
        let (mut words, mut calls) = (String::new(), Vec::new());
        for piece in found {
            match piece {
                Piece::Text(text) => words.push_str(&text),
                Piece::Call(call) => calls.push(format!("{} {}", call.name, call.arguments)),
            }
        }
        (words, calls)
    }

    #[test]
    fn calls_are_found_among_words() {
        let text = "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": 2}}\n</tool_call>\n\
                    <tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>";
        let calls = vec!["f {\"b\":1,\"a\":2}".to_owned(), "g {}".to_owned()];
        assert_eq!(split(Format::Tagged, &[text]), ("Let me see.".to_owned(), calls));
        let bare = "{\"name\": \"f\", \"parameters\": {\"a\": 1}}";
        assert_eq!(split(Format::Bare, &[bare]), (String::new(), vec!["f {\"a\":1}".to_owned()]));
    }

    #[test]
    fn what_is_no_call_is_words() {
        for text in ["a < b", "<tool", "<tool_call>no JSON", "<tool_call>{}</tool_call>", "x\n\ny"] {
            assert_eq!(split(Format::Tagged, &[text]), (text.to_owned(), vec![]), "{text}");
        }
        for text in ["{\"a\": 1}", "{", "f {\"name\": \"f\", \"parameters\": {}}"] {
            assert_eq!(split(Format::Bare, &[text]), (text.to_owned(), vec![]), "{text}");
        }
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(cuts in prop::collection::vec(1usize..9, 1..40)) {
            let text = "S\u{e9}e <t> this:\n <tool_call>{\"name\": \"f\", \"arguments\": {\"x\": \"</b>\u{e9}\"}}</tool_call>\n\
                        <tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
            let chars: Vec<char> = text.chars().collect();
            let (mut pieces, mut at) = (Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                if at >= chars.len() {
                    break;
                }
                pieces.push(chars[at..(at + cut).min(chars.len())].iter().collect::<String>());
                at += cut;
            }
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(split(Format::Tagged, &pieces), split(Format::Tagged, &[text]));
        }
    }
}
