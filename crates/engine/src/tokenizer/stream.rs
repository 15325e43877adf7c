//! Text from tokens, one at a time.

use super::{Tokenizer, TokenizerError};

/// Turns tokens into text as they come, and never gives half a character.
///
/// A token's bytes may begin or end inside a UTF-8 character: bytes that could still become one are held back.
/// Bytes that cannot become U+FFFD, exactly as [`String::from_utf8_lossy`] does with the whole.
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    pending: Vec<u8>,
    /// Whether the next text token begins the text.
    at_start: bool,
}

/// Bytes held back at most without growing: far more than tokens have.
const ROOM: usize = 1024;

impl StreamDecoder {
    pub(super) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, pending: Vec::with_capacity(ROOM), at_start: true }
    }

    /// Adds token `id` and returns the characters that are now whole. Special tokens add nothing.
    ///
    /// # Errors
    /// [`TokenizerError::IdOutOfRange`].
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        let mut text = String::new();
        self.push_to(id, &mut text)?;
        Ok(text)
    }

    /// The same, adding the characters to `text`.
    ///
    /// # Errors
    /// [`TokenizerError::IdOutOfRange`].
    pub fn push_to(&mut self, id: u32, text: &mut String) -> Result<(), TokenizerError> {
        let tokenizer = &self.tokenizer;
        let bytes = tokenizer.token_bytes(id)?;
        if tokenizer.is_special(id) {
            self.at_start |= tokenizer.bos() == Some(id);
        } else {
            let dummy = self.at_start && tokenizer.dummy_prefix() && bytes.starts_with(b" ");
            self.pending.extend_from_slice(&bytes[usize::from(dummy)..]);
            self.at_start = false;
        }
        self.take(false, text);
        Ok(())
    }

    /// Ends the text: a character that stayed half becomes U+FFFD.
    pub fn finish(mut self) -> String {
        let mut text = String::new();
        self.take(true, &mut text);
        text
    }

    fn take(&mut self, end: bool, text: &mut String) {
        let mut done = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            done += chunk.valid().len();
            // The last chunk's invalid bytes may be the beginning of a character.
            let at_end = done + invalid.len() == self.pending.len();
            let may_become = at_end && std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none());
            if !invalid.is_empty() && (end || !may_become) {
                text.push(char::REPLACEMENT_CHARACTER);
                done += invalid.len();
            }
        }
        self.pending.drain(..done);
    }
}
