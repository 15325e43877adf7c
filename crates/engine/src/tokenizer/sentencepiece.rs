//! SentencePiece's BPE: llama2.c's `tokenizer.bin` and GGUF's `llama` kind.
//!
//! Text is split into characters; the adjacent pair whose concatenation is the token with the best score is
//! joined, the leftmost of equals first, until no pair is a token (run.c's `encode`). A character without a
//! token becomes its UTF-8 bytes' tokens. Tokens are kept with spaces where the file has `▁` (U+2581).

use std::borrow::Cow;

use super::merge::{Merge, Merger, NONE};
use super::vocab::{TokenType, Vocab};
use super::{Token, TokenizerError};

/// The mark that SentencePiece writes for a space.
const SPACE_MARK: &str = "\u{2581}";

/// run.c starts its search at this score, so a token that is worse is never the result of a merge.
const WORST_SCORE: f32 = -1e10;

/// Scores and byte tokens of a SentencePiece vocabulary.
#[derive(Debug)]
pub(super) struct SentencePiece {
    scores: Vec<f32>,
    byte_ids: Box<[u32; 256]>,
    unknown: Option<u32>,
    /// Whether no token has a space behind another character. Then no merge crosses the end of a word, and each word
    /// can be encoded by itself, which is the same and much faster.
    by_words: bool,
}

impl SentencePiece {
    /// Reads the tokens in the order of their ids. `unknown` stands for what neither has a token nor bytes.
    pub(super) fn new<'a>(
        tokens: impl ExactSizeIterator<Item = Token<'a>>,
        unknown: Option<u32>,
    ) -> Result<(Self, Vocab), TokenizerError> {
        let mut vocab = Vocab::with_capacity(tokens.len(), 0);
        let mut scores = Vec::with_capacity(tokens.len());
        let mut byte_ids = Box::new([NONE; 256]);
        for (id, token) in (0u32..).zip(tokens) {
            scores.push(token.score);
            match token.kind {
                TokenType::Byte => {
                    let byte = parse_byte(token.text).ok_or_else(|| {
                        let text = String::from_utf8_lossy(token.text);
                        TokenizerError::field("tokens", format!("byte token {id} is {text:?}, not <0xNN>"))
                    })?;
                    byte_ids[byte as usize] = id;
                    vocab.push(&[byte], TokenType::Byte)?;
                }
                TokenType::Control | TokenType::Unknown => vocab.push(token.text, token.kind)?,
                _ => vocab.push(&unmark_spaces(token.text), token.kind)?,
            }
        }
        // Control tokens are not text, so no merge may arrive at one: what a user types stays what it is.
        vocab.index(in_text);
        let by_words = vocab.iter().all(|(_, text, kind)| !in_text(kind) || word_end(text).is_none());
        Ok((Self { scores, byte_ids, unknown, by_words }, vocab))
    }

    /// Appends the tokens of `text`, with the dummy space before it where `space_prefix` asks for it.
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        space_prefix: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let text = normalize(text, space_prefix);
        let mut merger = Merger::default();
        let mut rest = &*text;
        while let Some(end) = word_end(rest.as_bytes()).filter(|_| self.by_words) {
            let (word, after) = rest.split_at(end);
            self.encode_word(vocab, word, &mut merger, ids)?;
            rest = after;
        }
        self.encode_word(vocab, rest, &mut merger, ids)
    }

    fn encode_word(
        &self,
        vocab: &Vocab,
        text: &str,
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        for (start, char) in text.char_indices() {
            let end = start + char.len_utf8();
            merger.push(start as u32, end as u32, vocab.find(&text.as_bytes()[start..end]).unwrap_or(NONE));
        }
        let symbols = merger.run(|left, right| {
            let id = vocab.find(&text.as_bytes()[left.start as usize..right.end as usize])?;
            Some(Merge { priority: priority(self.scores[id as usize])?, id })
        });
        for symbol in symbols {
            if symbol.id != NONE {
                ids.push(symbol.id);
                continue;
            }
            let bytes = &text.as_bytes()[symbol.start as usize..symbol.end as usize];
            if bytes.iter().all(|&byte| self.byte_ids[byte as usize] != NONE) {
                ids.extend(bytes.iter().map(|&byte| self.byte_ids[byte as usize]));
            } else {
                ids.push(self.unknown.ok_or_else(|| TokenizerError::Unencodable {
                    text: String::from_utf8_lossy(bytes).into_owned(),
                    offset: u64::from(symbol.start),
                })?);
            }
        }
        Ok(())
    }
}

/// Whether a merge may make tokens of this type.
fn in_text(kind: TokenType) -> bool {
    matches!(kind, TokenType::Normal | TokenType::UserDefined | TokenType::Unused)
}

/// The first space that stands behind another character.
fn word_end(text: &[u8]) -> Option<usize> {
    text.windows(2).position(|pair| pair[0] != b' ' && pair[1] == b' ').map(|at| at + 1)
}

/// A number that is smaller for a better score; `None` for a token that no merge may make.
fn priority(score: f32) -> Option<u32> {
    if score.is_nan() || score <= WORST_SCORE {
        return None;
    }
    let bits = (score + 0.0).to_bits(); // adding 0 makes -0 into 0, which compares equal to it
    Some(if bits >> 31 == 1 { bits } else { !bits & 0x7fff_ffff })
}

/// `<0x0A>` to 10.
pub(super) fn parse_byte(text: &[u8]) -> Option<u8> {
    let [b'<', b'0', b'x', high, low, b'>'] = *text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// The text that a token's spelling stands for.
pub(super) fn unmark_spaces(text: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(text) {
        Ok(text) if text.contains(SPACE_MARK) => text.replace(SPACE_MARK, " ").into_bytes().into(),
        _ => text.into(),
    }
}

/// Adds the dummy space. A literal `▁` in the text is a space, as SentencePiece cannot tell the two apart.
fn normalize(text: &str, space_prefix: bool) -> Cow<'_, str> {
    match (space_prefix, text.contains(SPACE_MARK)) {
        (false, false) => text.into(),
        (true, false) => format!(" {text}").into(),
        (prefix, true) => {
            format!("{}{}", if prefix { " " } else { "" }, text.replace(SPACE_MARK, " ")).into()
        }
    }
}
