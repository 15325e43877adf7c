//! Text to tokens and back.
//!
//! Four kinds of vocabulary, one interface: llama2.c's `tokenizer.bin`, the `llama` (SentencePiece BPE) and `gpt2`
//! (byte-level BPE) kinds inside GGUF, and Hugging Face's `tokenizer.json`. Decoding is the same for all: every token
//! is a run of bytes ([`Tokenizer::token_bytes`]), and a text is their concatenation.

mod byte_bpe;
mod gguf;
mod hf;
mod llama2c;
mod merge;
mod pre_tokenizer;
mod sentencepiece;
mod special;
mod stream;
mod vocab;

use std::borrow::Cow;
use std::sync::Arc;

use thiserror::Error;

pub use stream::StreamDecoder;
pub use vocab::TokenType;

use byte_bpe::ByteBpe;
use hf::Hf;
use pre_tokenizer::PreTokenizer;
use sentencepiece::SentencePiece;
use special::{AddedTokens, Fragment};
use vocab::Vocab;

/// Texts of control tokens that end an answer, whatever the file calls them.
const END_OF_GENERATION: &[&str] = &[
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "<EOT>",
    "<eos>",
    "</s>",
];

/// Why a vocabulary was refused or a text could not be turned into tokens or back.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A field of the vocabulary is not what it should be.
    #[error("tokenizer: {field}: {problem}")]
    Field {
        /// Which field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A kind of tokenizer that we do not know.
    #[error("tokenizer kind {name:?} is not known; known are: {known}")]
    UnknownKind {
        /// What the file says.
        name: String,
        /// What we know.
        known: String,
    },
    /// A pre-tokenizer that we do not know.
    #[error("pre-tokenizer {name:?} is not known; known are: {known}")]
    UnknownPreTokenizer {
        /// What the file says.
        name: String,
        /// What we know.
        known: String,
    },
    /// A token that the vocabulary does not have.
    #[error("token id {id} is not in the vocabulary of {vocab_size} tokens")]
    IdOutOfRange {
        /// The id.
        id: u32,
        /// How many there are.
        vocab_size: usize,
    },
    /// Text that the vocabulary cannot spell: it has neither a token, nor bytes, nor an unknown token for it.
    #[error("the vocabulary has no token for byte {offset} of {text:?}")]
    Unencodable {
        /// The word or character.
        text: String,
        /// Offset in it, in bytes.
        offset: u64,
    },
    /// A text of 4 GiB or more.
    #[error("a text of {len} bytes is too long to encode at once")]
    TextTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A field of the file has the wrong type.
    #[error(transparent)]
    Format(#[from] formats::FormatError),
    /// The `tokenizers` crate refused something.
    #[error("{what}: {problem}")]
    Hf {
        /// Which file or step.
        what: String,
        /// What it says.
        problem: String,
    },
}

impl TokenizerError {
    fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field { field: field.into(), problem: problem.into() }
    }
}

/// Where a vocabulary came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerKind {
    /// llama2.c's `tokenizer.bin`.
    Llama2c,
    /// GGUF's `llama` kind.
    SentencePiece,
    /// GGUF's `gpt2` kind.
    ByteBpe,
    /// Hugging Face's `tokenizer.json`.
    HuggingFace,
}

/// One token as a file gives it.
#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    /// Its spelling in the file.
    pub text: &'a [u8],
    /// Its score (SentencePiece only).
    pub score: f32,
    /// What it is for.
    pub kind: TokenType,
}

/// The tokens with a meaning of their own, and when they are added.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpecialTokens {
    /// Begin of text.
    pub bos: Option<u32>,
    /// Tokens that end a text or an answer.
    pub eos: Vec<u32>,
    /// Stands for what cannot be spelled.
    pub unknown: Option<u32>,
    /// Whether [`EncodeOptions::add_special`] puts `bos` first.
    pub add_bos: bool,
    /// Whether [`EncodeOptions::add_special`] puts the first of `eos` last.
    pub add_eos: bool,
    /// Whether a text begins with a space that is not its own (SentencePiece's dummy prefix).
    pub add_space_prefix: bool,
}

/// How [`Tokenizer::encode`] treats special tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Add BOS (and EOS) where the vocabulary asks for it. A text that already begins with BOS gets no second.
    pub add_special: bool,
    /// Turn the text of control tokens into these tokens. Only for text that we rendered ourselves: with it, a user's
    /// `<|im_end|>` would end the user's turn, unless [`Tokenizer::guard`] has marked it.
    pub parse_special: bool,
}

/// A vocabulary and how to use it. Clones share it.
#[derive(Debug, Clone)]
pub struct Tokenizer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: TokenizerKind,
    vocab: Vocab,
    special: SpecialTokens,
    added: AddedTokens,
    encoder: Encoder,
}

#[derive(Debug)]
enum Encoder {
    SentencePiece(SentencePiece),
    ByteBpe(ByteBpe),
    Hf(Box<Hf>),
}

impl Tokenizer {
    /// A SentencePiece BPE from its tokens in the order of their ids.
    ///
    /// # Errors
    /// [`TokenizerError::Field`] for a byte token that is not `<0xNN>`, too many tokens or special ids out of range.
    pub fn sentencepiece<'a>(
        kind: TokenizerKind,
        tokens: impl ExactSizeIterator<Item = Token<'a>>,
        special: SpecialTokens,
    ) -> Result<Self, TokenizerError> {
        check_size(tokens.len())?;
        let (encoder, vocab) = SentencePiece::new(tokens, special.unknown)?;
        Self::build(kind, vocab, special, Encoder::SentencePiece(encoder))
    }

    /// A byte-level BPE from its tokens in the order of their ids and its merges (`"left right"`) in the order of their
    /// ranks, cut into words as GGUF's `pre_tokenizer` names it.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownPreTokenizer`]; [`TokenizerError::Field`] for a merge of what is not a token, too many
    /// tokens or special ids out of range.
    pub fn byte_bpe<'a>(
        tokens: impl ExactSizeIterator<Item = Token<'a>>,
        merges: impl ExactSizeIterator<Item = &'a str>,
        pre_tokenizer: &str,
        special: SpecialTokens,
    ) -> Result<Self, TokenizerError> {
        check_size(tokens.len())?;
        let (encoder, vocab) = ByteBpe::new(tokens, merges, PreTokenizer::named(pre_tokenizer)?)?;
        Self::build(TokenizerKind::ByteBpe, vocab, special, Encoder::ByteBpe(encoder))
    }

    /// Hugging Face's `tokenizer.json`, and from `tokenizer_config.json`, where there is one, which tokens begin and end
    /// a text.
    ///
    /// # Errors
    /// [`TokenizerError::Hf`] if either is not what it should be, or decodes in a way that we do not know.
    pub fn from_hf(tokenizer_json: &[u8], tokenizer_config: Option<&[u8]>) -> Result<Self, TokenizerError> {
        let (hf, vocab, special) = Hf::new(tokenizer_json, tokenizer_config)?;
        Self::build(TokenizerKind::HuggingFace, vocab, special, Encoder::Hf(Box::new(hf)))
    }

    fn build(
        kind: TokenizerKind,
        vocab: Vocab,
        mut special: SpecialTokens,
        encoder: Encoder,
    ) -> Result<Self, TokenizerError> {
        let named = [("bos", special.bos), ("unknown", special.unknown)];
        let ids = named.into_iter().filter_map(|(name, id)| Some((name, id?)));
        for (name, id) in ids.chain(special.eos.iter().map(|&id| ("eos", id))) {
            if vocab.kind(id).is_none() {
                let problem = format!("token {id} is not in the vocabulary of {} tokens", vocab.len());
                return Err(TokenizerError::field(name, problem));
            }
        }
        let ends = |text: &[u8]| END_OF_GENERATION.iter().any(|end| end.as_bytes() == text);
        for (id, text, kind) in vocab.iter() {
            if kind == TokenType::Control && ends(text) && !special.eos.contains(&id) {
                special.eos.push(id);
            }
        }
        let added = AddedTokens::new(&vocab)?;
        Ok(Self(Arc::new(Inner { kind, vocab, special, added, encoder })))
    }

    /// Where the vocabulary came from.
    pub fn kind(&self) -> TokenizerKind {
        self.0.kind
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.0.vocab.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.0.special.bos
    }

    /// Every token that ends a text, a turn or a message.
    pub fn eos(&self) -> &[u32] {
        &self.0.special.eos
    }

    /// Whether [`EncodeOptions::add_special`] adds BOS.
    pub fn adds_bos(&self) -> bool {
        self.0.special.add_bos
    }

    /// Whether `id` is structure and not text: decoding leaves it out.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.0.vocab.kind(id), Some(TokenType::Control | TokenType::Unknown))
    }

    /// The bytes that token `id` adds to a text; for a special token its name, to be shown, not decoded.
    ///
    /// # Errors
    /// [`TokenizerError::IdOutOfRange`].
    pub fn token_bytes(&self, id: u32) -> Result<&[u8], TokenizerError> {
        self.0.vocab.get(id).ok_or(TokenizerError::IdOutOfRange { id, vocab_size: self.vocab_size() })
    }

    fn dummy_prefix(&self) -> bool {
        self.0.special.add_space_prefix
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// [`TokenizerError::Unencodable`] for text that the vocabulary cannot spell, [`TokenizerError::TextTooLong`].
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        if u32::try_from(text.len()).is_err() {
            return Err(TokenizerError::TextTooLong { len: text.len() });
        }
        let Inner { vocab, special, added, encoder, .. } = &*self.0;
        let mut ids = Vec::new();
        match encoder {
            Encoder::Hf(hf) => return hf.encode(text, options),
            Encoder::SentencePiece(encoder) => {
                let mut needs_prefix = special.add_space_prefix;
                for fragment in added.split(text, options.parse_special) {
                    match &fragment {
                        Fragment::Token(id) => ids.push(*id),
                        Fragment::Text(text) => encoder.encode(vocab, text, needs_prefix, &mut ids)?,
                    }
                    needs_prefix = special.add_space_prefix && matches!(fragment, Fragment::Token(_));
                }
            }
            Encoder::ByteBpe(encoder) => {
                for fragment in added.split(text, options.parse_special) {
                    match fragment {
                        Fragment::Token(id) => ids.push(id),
                        Fragment::Text(text) => encoder.encode(vocab, &text, &mut ids)?,
                    }
                }
            }
        }
        if options.add_special {
            if let Some(bos) = special.bos.filter(|bos| special.add_bos && ids.first() != Some(bos)) {
                ids.insert(0, bos);
            }
            ids.extend(special.eos.first().filter(|_| special.add_eos));
        }
        Ok(ids)
    }

    /// Text of a user, to be laid out by a chat template and then encoded with [`EncodeOptions::parse_special`]: control
    /// tokens in it are marked so that `encode` takes them for the text that they are. Only `encode` understands the
    /// marks.
    pub fn guard<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.0.added.guard(text)
    }

    /// The text of `ids`, without special tokens. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`TokenizerError::IdOutOfRange`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let mut decoder = self.decoder();
        let mut text = String::new();
        for &id in ids {
            decoder.push_to(id, &mut text)?;
        }
        text.push_str(&decoder.finish());
        Ok(text)
    }

    /// Decodes a text from its beginning, token by token.
    pub fn decoder(&self) -> StreamDecoder {
        StreamDecoder::new(self.clone())
    }

    /// Decodes what follows `prompt`: a space at the beginning of the first token is part of the text, and a
    /// character that the prompt's last token left half is completed.
    ///
    /// # Errors
    /// [`TokenizerError::IdOutOfRange`].
    pub fn decoder_after(&self, prompt: &[u32]) -> Result<StreamDecoder, TokenizerError> {
        let mut decoder = self.decoder();
        for &id in prompt {
            decoder.push(id)?;
        }
        Ok(decoder)
    }
}

/// Refuses a vocabulary beyond [`formats::limits::MAX_VOCAB`].
fn check_size(tokens: usize) -> Result<(), TokenizerError> {
    if tokens as u64 > formats::limits::MAX_VOCAB {
        let limit = formats::limits::MAX_VOCAB;
        return Err(TokenizerError::field("tokens", format!("{tokens} is more than the limit of {limit}")));
    }
    Ok(())
}
