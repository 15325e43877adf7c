//! The tokens of a vocabulary, as the bytes that they add to a text.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::TokenizerError;

/// What a token is for. The numbers are those of GGUF's `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TokenType {
    /// A piece of text.
    Normal = 1,
    /// Stands for text that the vocabulary cannot spell.
    Unknown = 2,
    /// Structure, not text: begin, end, turn markers.
    Control = 3,
    /// Text that is always one token.
    UserDefined = 4,
    /// A hole in the numbering.
    Unused = 5,
    /// One byte, for characters that have no token.
    Byte = 6,
}

impl TokenType {
    /// Reads GGUF's number; 0 ("undefined") and anything that we do not know count as text.
    pub fn from_gguf(value: i32) -> Self {
        match value {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// All tokens in one allocation, with an optional index from bytes to id. The index is keyed by a random
/// hash, so that a hostile vocabulary cannot make every lookup collide.
#[derive(Debug, Default)]
pub(super) struct Vocab {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    types: Vec<TokenType>,
    index: HashTable<u32>,
    hasher: RandomState,
    max_token_len: usize,
}

impl Vocab {
    /// Room for `tokens` tokens with `bytes` bytes in all.
    pub(super) fn with_capacity(tokens: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(tokens),
            types: Vec::with_capacity(tokens),
            ..Self::default()
        }
    }

    /// Appends the next id.
    pub(super) fn push(&mut self, text: &[u8], kind: TokenType) -> Result<(), TokenizerError> {
        let too_large = || TokenizerError::field("tokens", "more than 4 GiB of token text");
        let end = self.bytes.len().checked_add(text.len()).ok_or_else(too_large)?;
        self.ends.push(u32::try_from(end).map_err(|_| too_large())?);
        self.types.push(kind);
        self.bytes.extend_from_slice(text);
        self.max_token_len = self.max_token_len.max(text.len());
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of token `id`.
    pub(super) fn get(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = if id == 0 { 0 } else { *self.ends.get(id - 1)? as usize };
        self.bytes.get(start..end)
    }

    pub(super) fn kind(&self, id: u32) -> Option<TokenType> {
        self.types.get(id as usize).copied()
    }

    /// Every token: id, bytes, type.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &[u8], TokenType)> {
        (0u32..).zip(&self.types).map(|(id, &kind)| (id, self.get(id).unwrap_or_default(), kind))
    }

    /// Adds the tokens that `keep` chooses to the index. Of two tokens with the same bytes the one that was
    /// indexed first wins.
    pub(super) fn index(&mut self, keep: impl Fn(TokenType) -> bool) {
        let mut index = std::mem::take(&mut self.index);
        let kept = self.types.iter().filter(|&&kind| keep(kind)).count();
        index.reserve(kept, |&id| self.hash(self.get(id).unwrap_or_default()));
        for (id, text, kind) in self.iter() {
            if keep(kind) && !text.is_empty() {
                index
                    .entry(
                        self.hash(text),
                        |&other| self.get(other) == Some(text),
                        |&other| self.hash(self.get(other).unwrap_or_default()),
                    )
                    .or_insert(id);
            }
        }
        self.index = index;
    }

    /// Gives the index's memory back, for an encoder that needs it only while it is built.
    pub(super) fn drop_index(&mut self) {
        self.index = HashTable::new();
    }

    /// The id of an indexed token.
    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        if text.len() > self.max_token_len {
            return None;
        }
        self.index.find(self.hash(text), |&id| self.get(id) == Some(text)).copied()
    }

    fn hash(&self, text: &[u8]) -> u64 {
        self.hasher.hash_one(text)
    }
}
