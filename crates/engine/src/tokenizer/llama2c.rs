//! llama2.c's `tokenizer.bin` (karpathy/llama2.c `tokenizer.py`, `run.c`).

use formats::tokenizer_file::Vocab;

use super::sentencepiece::parse_byte;
use super::{SpecialTokens, Token, TokenType, Tokenizer, TokenizerError, TokenizerKind};

const UNKNOWN: u32 = 0;
const BOS: u32 = 1;
const EOS: u32 = 2;

impl Tokenizer {
    /// The tokenizer of a llama2.c `tokenizer.bin`. Ids 0, 1 and 2 are unknown, BOS and EOS; its models were trained on
    /// texts that BOS separates, so that BOS ends a text as well.
    ///
    /// # Errors
    /// [`TokenizerError::Field`] for fewer than three tokens.
    pub fn from_llama2c(vocab: &Vocab<'_>) -> Result<Self, TokenizerError> {
        let tokens = vocab.tokens.iter().enumerate().map(|(id, &(text, score))| {
            let kind = match id as u32 {
                UNKNOWN => TokenType::Unknown,
                BOS | EOS => TokenType::Control,
                _ if parse_byte(text).is_some() => TokenType::Byte,
                _ => TokenType::Normal,
            };
            // run.c spells BOS and EOS between line breaks, to be printed.
            let text = if kind == TokenType::Control { text.trim_ascii() } else { text };
            Token { text, score, kind }
        });
        let special = SpecialTokens {
            bos: Some(BOS),
            eos: vec![EOS, BOS],
            unknown: Some(UNKNOWN),
            add_bos: true,
            add_eos: false,
            add_space_prefix: true,
        };
        Self::sentencepiece(TokenizerKind::Llama2c, tokens, special)
    }
}
