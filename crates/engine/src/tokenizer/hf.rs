//! Hugging Face's `tokenizer.json`, encoded by the `tokenizers` crate.
//!
//! Only encoding is the crate's. For decoding the tokens are spelled out as bytes once, by the decoder that the file
//! names, so that streaming and special tokens work as with every other kind of vocabulary.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::tokenizer::{AddedVocabulary, Encoding, Model, OffsetType, PreTokenizer, Tokenizer as Crate};

use super::byte_bpe::unspell;
use super::sentencepiece::{parse_byte, unmark_spaces};
use super::special::guarded_parts;
use super::vocab::{TokenType, Vocab};
use super::{EncodeOptions, SpecialTokens, TokenizerError};

/// The crate's tokenizer, and its added tokens once more for text in which control tokens are text.
pub(super) struct Hf {
    tokenizer: Crate,
    plain: AddedVocabulary,
}

impl std::fmt::Debug for Hf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hf").finish_non_exhaustive()
    }
}

/// What we read of `tokenizer_config.json`.
#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    bos_token: Option<TokenText>,
    #[serde(default)]
    eos_token: Option<TokenText>,
    #[serde(default)]
    unk_token: Option<TokenText>,
}

/// A token is named by its text, or by an object with its text and how to strip around it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TokenText {
    Text(String),
    Object { content: String },
}

impl TokenText {
    fn text(&self) -> &str {
        let (Self::Text(text) | Self::Object { content: text }) = self;
        text
    }
}

/// How the file's tokens spell bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Spelling {
    /// In GPT-2's alphabet.
    ByteLevel,
    /// With `▁` for a space and `<0xNN>` for a byte.
    SentencePiece {
        /// Whether decoding drops a space at the beginning.
        space_prefix: bool,
    },
}

impl Hf {
    pub(super) fn new(
        tokenizer_json: &[u8],
        tokenizer_config: Option<&[u8]>,
    ) -> Result<(Self, Vocab, SpecialTokens), TokenizerError> {
        let mut tokenizer: Crate = fenced("tokenizer.json", || Crate::from_bytes(tokenizer_json))?;
        // A file may have been saved while it cut texts to a training length.
        tokenizer.with_padding(None);
        fenced("tokenizer.json: truncation", || tokenizer.with_truncation(None).map(|_| ()))?;
        let config: Config = match tokenizer_config {
            Some(json) => serde_json::from_slice(json)
                .map_err(|error| hf_error("tokenizer_config.json", error.to_string()))?,
            None => Config::default(),
        };

        let decoder = serde_json::to_value(tokenizer.get_decoder())
            .map_err(|error| hf_error("tokenizer.json: decoder", error.to_string()))?;
        let spelling = spelling(&decoder)?;
        let vocab = spell_out(&tokenizer, spelling, tokenizer_json.len())?;
        let mut plain = tokenizer.get_added_vocabulary().clone();
        plain.set_encode_special_tokens(true);
        let hf = Self { tokenizer, plain };

        let id = |token: &Option<TokenText>| hf.tokenizer.token_to_id(token.as_ref()?.text());
        let first =
            hf.encode("", EncodeOptions { add_special: true, parse_special: false })?.first().copied();
        let bos = id(&config.bos_token).or(first);
        let special = SpecialTokens {
            bos,
            eos: id(&config.eos_token).into_iter().collect(),
            unknown: id(&config.unk_token),
            add_bos: bos.is_some() && bos == first,
            add_eos: false, // the file's own post-processor adds it
            add_space_prefix: spelling == Spelling::SentencePiece { space_prefix: true },
        };
        Ok((hf, vocab, special))
    }

    pub(super) fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        fenced("tokenizer.json: encoding", || {
            let mut whole = Encoding::default();
            if options.parse_special {
                for part in guarded_parts(text) {
                    let added = self.tokenizer.get_added_vocabulary();
                    whole.merge_with(self.encode_part(added, part)?, false);
                }
            } else {
                whole = self.encode_part(&self.plain, text)?;
            }
            let whole = self.tokenizer.post_process(whole, None, options.add_special)?;
            Ok(whole.get_ids().to_vec())
        })
    }

    fn encode_part(&self, added: &AddedVocabulary, text: &str) -> tokenizers::Result<Encoding> {
        let mut words = added.extract_and_normalize(self.tokenizer.get_normalizer(), text);
        if let Some(pre_tokenizer) = self.tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut words)?;
        }
        let model = self.tokenizer.get_model();
        words.tokenize(|word| model.tokenize(word.get()))?;
        words.into_encoding(None, 0, OffsetType::None)
    }
}

/// Runs a step of the crate, which is not written for hostile files: what it refuses and where it panics are both errors.
fn fenced<T>(what: &str, step: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, TokenizerError> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(hf_error(what, error.to_string())),
        Err(_) => Err(hf_error(what, "the file contradicts itself")),
    }
}

fn hf_error(what: &str, problem: impl Into<String>) -> TokenizerError {
    TokenizerError::Hf { what: what.to_owned(), problem: problem.into() }
}

/// Tells the spelling from the file's `decoder`.
fn spelling(decoder: &Value) -> Result<Spelling, TokenizerError> {
    let kind = decoder["type"].as_str().unwrap_or("none");
    match kind {
        "ByteLevel" => Ok(Spelling::ByteLevel),
        "Metaspace" => Ok(Spelling::SentencePiece { space_prefix: decoder["prepend_scheme"] != "never" }),
        "Sequence" => {
            let steps = decoder["decoders"].as_array().map(Vec::as_slice).unwrap_or_default();
            let has = |kind: &str| steps.iter().any(|step| step["type"] == kind);
            if has("ByteLevel") {
                return Ok(Spelling::ByteLevel);
            }
            let unmarks = steps.iter().any(|step| step["pattern"]["String"] == "\u{2581}");
            if !(unmarks || has("Metaspace") || has("ByteFallback")) {
                return Err(unknown_decoder("a Sequence without ByteLevel, Metaspace or ByteFallback"));
            }
            let strips = steps
                .iter()
                .any(|step| step["type"] == "Strip" && step["start"].as_u64().is_some_and(|start| start > 0));
            let prepends =
                steps.iter().any(|step| step["type"] == "Metaspace" && step["prepend_scheme"] != "never");
            Ok(Spelling::SentencePiece { space_prefix: strips || prepends })
        }
        other => Err(unknown_decoder(other)),
    }
}

fn unknown_decoder(name: &str) -> TokenizerError {
    TokenizerError::UnknownKind {
        name: format!("decoder {name}"),
        known: "ByteLevel, Metaspace, Sequence with ByteFallback".to_owned(),
    }
}

/// Every token's bytes, in the order of the ids. An id beyond `limit`, the length of the file, cannot be honest.
fn spell_out(tokenizer: &Crate, spelling: Spelling, limit: usize) -> Result<Vocab, TokenizerError> {
    let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
    let model = tokenizer.get_model();
    let total = tokenizer.get_vocab_size(true);
    super::check_size(total)?;
    let mut vocab = Vocab::with_capacity(total, 0);
    let mut bytes = Vec::new();
    let mut found = 0;
    for id in 0u32.. {
        if found == total {
            break;
        }
        if id as usize > limit {
            let problem = format!("{found} of {total} tokens have an id below {limit}");
            return Err(TokenizerError::field("vocabulary", problem));
        }
        if let Some(token) = added.get(&id) {
            found += 1;
            let text = token.content.as_bytes();
            match (token.special, spelling) {
                (true, _) => vocab.push(text, TokenType::Control)?,
                (false, Spelling::ByteLevel) => vocab.push(text, TokenType::UserDefined)?,
                (false, _) => vocab.push(&unmark_spaces(text), TokenType::UserDefined)?,
            }
        } else if let Some(token) = model.id_to_token(id) {
            found += 1;
            let text = token.as_bytes();
            match spelling {
                Spelling::ByteLevel if unspell(text, &mut bytes) => vocab.push(&bytes, TokenType::Normal)?,
                Spelling::ByteLevel => vocab.push(text, TokenType::Normal)?,
                Spelling::SentencePiece { .. } => match parse_byte(text) {
                    Some(byte) => vocab.push(&[byte], TokenType::Byte)?,
                    None => vocab.push(&unmark_spaces(text), TokenType::Normal)?,
                },
            }
        } else {
            vocab.push(b"", TokenType::Unused)?;
        }
    }
    Ok(vocab)
}
