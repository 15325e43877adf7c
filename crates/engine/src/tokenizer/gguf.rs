//! The vocabulary inside a GGUF file (`tokenizer.ggml.*`; `docs/gguf.md` of ggml-org/ggml).

use formats::gguf::Gguf;

use super::pre_tokenizer::PreTokenizer;
use super::{SpecialTokens, Token, TokenType, Tokenizer, TokenizerError, TokenizerKind};

/// Keys of tokens that end a text, a turn or a message.
const EOS_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// Where the file's tokens are SentencePiece's, llama.cpp takes these ids when it names none.
const SENTENCEPIECE_DEFAULTS: (u32, u32, u32) = (1, 2, 0);

impl Tokenizer {
    /// The tokenizer of a GGUF file: kind `llama` (SentencePiece BPE) or `gpt2` (byte-level BPE).
    ///
    /// # Errors
    /// [`TokenizerError::UnknownKind`], [`TokenizerError::UnknownPreTokenizer`]; [`TokenizerError::Field`] if there is
    /// no vocabulary, an array has the wrong type or length, or a special id is out of range.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, TokenizerError> {
        let kind = gguf.str("tokenizer.ggml.model")?.ok_or_else(|| missing("tokenizer.ggml.model"))?;
        let texts = gguf.array("tokenizer.ggml.tokens")?.ok_or_else(|| missing("tokenizer.ggml.tokens"))?;
        let count = texts.len();
        let scores = sized(gguf, "tokenizer.ggml.scores", count)?.map(|array| array.f32s()).transpose()?;
        let types = sized(gguf, "tokenizer.ggml.token_type", count)?.map(|array| array.i32s()).transpose()?;
        let mut scores = scores.into_iter().flatten();
        let mut types = types.into_iter().flatten();
        let tokens = texts.strings()?.map(|text| Token {
            text: text.as_bytes(),
            score: scores.next().unwrap_or_default(),
            kind: types.next().map_or(TokenType::Normal, TokenType::from_gguf),
        });
        match kind {
            "llama" => {
                let (bos, eos, unknown) = SENTENCEPIECE_DEFAULTS;
                let mut special = special_tokens(gguf, true, true)?;
                let fits = |id: u32| (id as usize) < count;
                special.bos = special.bos.or(Some(bos).filter(|&id| fits(id)));
                special.unknown = special.unknown.or(Some(unknown).filter(|&id| fits(id)));
                if special.eos.is_empty() && fits(eos) {
                    special.eos.push(eos);
                }
                Self::sentencepiece(TokenizerKind::SentencePiece, tokens, special)
            }
            "gpt2" => {
                // Files from before there were names; llama.cpp takes the same.
                let pre = gguf.str("tokenizer.ggml.pre")?.unwrap_or("default");
                let add_bos = PreTokenizer::adds_bos(pre);
                let merges =
                    gguf.array("tokenizer.ggml.merges")?.ok_or_else(|| missing("tokenizer.ggml.merges"))?;
                let special = special_tokens(gguf, add_bos, false)?;
                Self::byte_bpe(tokens, merges.strings()?, pre, special)
            }
            other => Err(TokenizerError::UnknownKind { name: other.to_owned(), known: "llama, gpt2".into() }),
        }
    }
}

/// What the file says of special tokens, with what its kind implies where it says nothing.
fn special_tokens(
    gguf: &Gguf<'_>,
    add_bos: bool,
    add_space_prefix: bool,
) -> Result<SpecialTokens, TokenizerError> {
    let mut eos = Vec::new();
    for key in EOS_KEYS {
        eos.extend(id(gguf, key)?.filter(|id| !eos.contains(id)));
    }
    Ok(SpecialTokens {
        bos: id(gguf, "tokenizer.ggml.bos_token_id")?,
        eos,
        unknown: id(gguf, "tokenizer.ggml.unknown_token_id")?,
        add_bos: gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos),
        add_eos: gguf.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
        add_space_prefix: add_space_prefix
            && gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(add_space_prefix),
    })
}

fn id(gguf: &Gguf<'_>, key: &str) -> Result<Option<u32>, TokenizerError> {
    let Some(id) = gguf.u64(key)? else { return Ok(None) };
    let id = u32::try_from(id).map_err(|_| TokenizerError::field(key, format!("{id} is no token id")))?;
    Ok(Some(id))
}

/// An array with one element per token.
fn sized<'a>(
    gguf: &Gguf<'a>,
    key: &str,
    count: usize,
) -> Result<Option<formats::gguf::Array<'a>>, TokenizerError> {
    let array = gguf.array(key)?;
    match array {
        Some(array) if array.len() != count => {
            let problem = format!("has {} elements for {count} tokens", array.len());
            Err(TokenizerError::field(key, problem))
        }
        array => Ok(array),
    }
}

fn missing(key: &str) -> TokenizerError {
    TokenizerError::field(key, "is missing")
}
