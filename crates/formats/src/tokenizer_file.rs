//! llama2.c `tokenizer.bin`: a SentencePiece vocabulary with scores.
//!
//! i32 max_token_length, then until the end of the file: f32 score, i32 length, that many bytes (karpathy/llama2.c
//! `tokenizer.py`). The file does not say how many tokens it has.

use std::io::{self, Write};

use crate::error::FormatError;
use crate::limits::MAX_VOCAB;
use crate::reader::Reader;

/// The tokens of a file in the order of their ids, borrowed from its bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocab<'a> {
    /// Length of the longest token, in bytes.
    pub max_token_length: u32,
    /// Each token's bytes and its score: the higher, the earlier it is merged. Scores are finite.
    pub tokens: Vec<(&'a [u8], f32)>,
}

/// Reads a whole file.
pub fn parse(bytes: &[u8]) -> Result<Vocab<'_>, FormatError> {
    let mut reader = Reader::new(bytes);
    let max_token_length = count(reader.i32("max_token_length")?, "max_token_length", 0)?;
    if max_token_length == 0 {
        return Err(FormatError::field("max_token_length", 0, "must be positive, but is 0"));
    }
    let mut tokens = Vec::new();
    while reader.remaining() > 0 {
        let id = tokens.len() as u64;
        if id == MAX_VOCAB {
            return Err(FormatError::Limit { field: "vocab_size".into(), value: id + 1, limit: MAX_VOCAB });
        }
        tokens.push(token(&mut reader, max_token_length).map_err(|error| of_token(error, id))?);
    }
    if tokens.is_empty() {
        return Err(FormatError::field("vocabulary", reader.offset(), "has no token"));
    }
    Ok(Vocab { max_token_length, tokens })
}

/// Writes a file that [`parse`] reads as the same vocabulary.
pub fn write(out: &mut dyn Write, vocab: &Vocab<'_>) -> io::Result<()> {
    out.write_all(&vocab.max_token_length.to_le_bytes())?;
    for (token, score) in &vocab.tokens {
        out.write_all(&score.to_le_bytes())?;
        out.write_all(&(token.len() as u32).to_le_bytes())?;
        out.write_all(token)?;
    }
    Ok(())
}

/// One token and its score.
fn token<'a>(reader: &mut Reader<'a>, max_token_length: u32) -> Result<(&'a [u8], f32), FormatError> {
    let at = reader.offset();
    let score = reader.f32("score")?;
    if !score.is_finite() {
        return Err(FormatError::field("score", at, format!("is {score}")));
    }
    let length = count(reader.i32("length")?, "length", at + 4)?;
    if length > max_token_length {
        let problem = format!("{length} is more than the max_token_length of {max_token_length}");
        return Err(FormatError::field("length", at + 4, problem));
    }
    Ok((reader.bytes(u64::from(length), "bytes")?, score))
}

/// The same error with the token's id: named only here, so that a good file allocates no names.
fn of_token(mut error: FormatError, id: u64) -> FormatError {
    if let FormatError::Field { field: what, .. } | FormatError::Truncated { what, .. } = &mut error {
        what.push_str(&format!(" of token {id}"));
    }
    error
}

/// A length from the file.
fn count(value: i32, field: &str, offset: u64) -> Result<u32, FormatError> {
    u32::try_from(value)
        .map_err(|_| FormatError::field(field, offset, format!("must not be negative, but is {value}")))
}
