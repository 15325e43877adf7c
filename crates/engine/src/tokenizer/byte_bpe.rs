//! Byte-level BPE: GGUF's `gpt2` kind (GPT-2, Llama 3, Qwen, SmolLM, Falcon …).
//!
//! The file spells tokens in GPT-2's alphabet, where each byte is a printable character. Here tokens are the
//! bytes themselves and a merge is a pair of ids with a rank, so encoding never builds a string.

use std::collections::HashMap;

use super::merge::{Merge, Merger, NONE};
use super::pre_tokenizer::PreTokenizer;
use super::vocab::{TokenType, Vocab};
use super::{Token, TokenizerError};

/// Merges, byte tokens and the way of cutting words.
#[derive(Debug)]
pub(super) struct ByteBpe {
    /// Pair of tokens to the rank of their merge and the token that it makes.
    merges: HashMap<(u32, u32), (u32, u32)>,
    byte_ids: Box<[u32; 256]>,
    pre_tokenizer: PreTokenizer,
}

impl ByteBpe {
    /// Reads tokens in the order of their ids and merges (`"left right"`) in the order of their ranks.
    pub(super) fn new<'a>(
        tokens: impl ExactSizeIterator<Item = Token<'a>>,
        merges: impl ExactSizeIterator<Item = &'a str>,
        pre_tokenizer: PreTokenizer,
    ) -> Result<(Self, Vocab), TokenizerError> {
        let mut vocab = Vocab::with_capacity(tokens.len(), 0);
        let mut text = Vec::new();
        for token in tokens {
            match token.kind {
                TokenType::Normal | TokenType::Unused if unspell(token.text, &mut text) => {
                    vocab.push(&text, token.kind)?;
                }
                // Outside the alphabet: no text can be spelled with it, though it has a text.
                TokenType::Normal => vocab.push(token.text, TokenType::Unused)?,
                kind => vocab.push(token.text, kind)?,
            }
        }
        vocab.index(|kind| kind == TokenType::Normal);
        vocab.index(|kind| matches!(kind, TokenType::UserDefined | TokenType::Unused));

        let mut byte_ids = Box::new([NONE; 256]);
        for byte in 0..=u8::MAX {
            byte_ids[byte as usize] = vocab.find(&[byte]).unwrap_or(NONE);
        }
        let mut table = HashMap::with_capacity(merges.len());
        for (rank, merge) in (0u32..).zip(merges) {
            let problem = |problem: &str| {
                TokenizerError::field("merges", format!("merge {rank} is {merge:?}: {problem}"))
            };
            let (left, right) =
                merge.split_once(' ').ok_or_else(|| problem("no space between two tokens"))?;
            let mut find = |spelling: &str| {
                if unspell(spelling.as_bytes(), &mut text) { vocab.find(&text) } else { None }
            };
            let (Some(a), Some(b)) = (find(left), find(right)) else {
                return Err(problem("a part is not a token"));
            };
            text.clear();
            text.extend([a, b].into_iter().filter_map(|id| vocab.get(id)).flatten());
            let whole = vocab.find(&text).ok_or_else(|| problem("the result is not a token"))?;
            table.entry((a, b)).or_insert((rank, whole));
        }
        if !pre_tokenizer.ignore_merges {
            vocab.drop_index();
        }
        Ok((Self { merges: table, byte_ids, pre_tokenizer }, vocab))
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut merger = Merger::default();
        self.pre_tokenizer.split(text, &mut |word| self.encode_word(vocab, word, &mut merger, ids))
    }

    fn encode_word(
        &self,
        vocab: &Vocab,
        word: &str,
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if self.pre_tokenizer.ignore_merges
            && let Some(id) = vocab.find(word.as_bytes())
        {
            ids.push(id);
            return Ok(());
        }
        for (at, byte) in (0u32..).zip(word.bytes()) {
            let id = self.byte_ids[byte as usize];
            if id == NONE {
                return Err(TokenizerError::Unencodable { text: word.to_owned(), offset: u64::from(at) });
            }
            merger.push(at, at + 1, id);
        }
        let symbols = merger.run(|left, right| {
            let &(priority, id) = self.merges.get(&(left.id, right.id))?;
            Some(Merge { priority, id })
        });
        ids.extend(symbols.map(|symbol| symbol.id));
        Ok(())
    }
}

/// Writes the bytes that `spelling` stands for in GPT-2's alphabet; false if a character is not of it.
///
/// The alphabet (GPT-2's `bytes_to_unicode`): the printable characters of Latin-1 stand for themselves, the
/// other 68 bytes, in order, for U+0100 and on.
pub(super) fn unspell(spelling: &[u8], bytes: &mut Vec<u8>) -> bool {
    bytes.clear();
    let Ok(spelling) = std::str::from_utf8(spelling) else { return false };
    for char in spelling.chars() {
        let Some(byte) = byte_of(char) else { return false };
        bytes.push(byte);
    }
    true
}

fn byte_of(char: char) -> Option<u8> {
    match char {
        '!'..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{ff}' => u8::try_from(u32::from(char)).ok(),
        '\u{100}'..='\u{120}' => u8::try_from(u32::from(char) - 0x100).ok(), // 0x00..=0x20
        '\u{121}'..='\u{142}' => u8::try_from(u32::from(char) - 0x121 + 0x7f).ok(), // 0x7f..=0xa0
        '\u{143}' => Some(0xad),
        _ => None,
    }
}
