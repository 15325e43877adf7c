//! The vocabulary of a `tokenizer.json` with byte-level BPE, as GGUF has it.

use engine::tokenizer::{TokenType, Tokenizer};
use formats::gguf::{Metadata, Value};
use serde_json::Value as Json;

use super::error::ConvertError;

/// What GGUF calls the pre-tokenizers that are known by their pattern.
const PATTERNS: [(&str, &str); 2] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "llama-bpe",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
];

/// Tokens in the order of their ids, and merges in the order of their ranks.
pub(super) struct Vocabulary {
    pre: &'static str,
    tokens: Vec<(String, TokenType)>,
    merges: Vec<String>,
}

/// Reads a `tokenizer.json` and fills the ids up to `vocab_size`. The error says what GGUF cannot express.
pub(super) fn read(json: &[u8], vocab_size: usize) -> Result<Vocabulary, String> {
    let json: Json = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let model = &json["model"];
    let kind = model["type"].as_str().unwrap_or("BPE");
    if kind != "BPE" || !model["byte_fallback"].is_null() && model["byte_fallback"] != false {
        return Err(format!("only byte-level BPE is put into GGUF, not {kind} with byte fallback"));
    }
    let pre = pre_tokenizer(&json["pre_tokenizer"]).ok_or("its pre-tokenizer has no name that GGUF knows")?;
    let mut tokens: Vec<(String, TokenType)> =
        (0..vocab_size).map(|id| (hole(id), TokenType::Unused)).collect();
    let mut put = |id: Option<u64>, text: &str, kind: TokenType| {
        let id = id.and_then(|id| usize::try_from(id).ok());
        let place = id.and_then(|id| tokens.get_mut(id));
        let place = place.ok_or_else(|| format!("token {text:?} has no embedding"))?;
        *place = (text.to_owned(), kind);
        Ok::<(), String>(())
    };
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        put(id.as_u64(), text, TokenType::Normal)?;
    }
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let kind = if token["special"] == true { TokenType::Control } else { TokenType::UserDefined };
        put(token["id"].as_u64(), token["content"].as_str().unwrap_or_default(), kind)?;
    }
    let merges = model["merges"].as_array().map(Vec::as_slice).unwrap_or_default();
    let merges = merges.iter().map(merge).collect::<Option<_>>().ok_or("its merges are not pairs")?;
    Ok(Vocabulary { pre, tokens, merges })
}

/// `"left right"` or `["left", "right"]`.
fn merge(merge: &Json) -> Option<String> {
    match merge.as_array() {
        None => merge.as_str().map(str::to_owned),
        Some(pair) => match pair.as_slice() {
            [left, right] => Some(format!("{} {}", left.as_str()?, right.as_str()?)),
            _ => None,
        },
    }
}

/// What llama.cpp's converters write for an id without a token.
pub(super) fn hole(id: usize) -> String {
    format!("[PAD{id}]")
}

/// GGUF's name of the way in which text is cut into words.
fn pre_tokenizer(json: &Json) -> Option<&'static str> {
    let steps = match json["type"].as_str()? {
        "Sequence" => json["pretokenizers"].as_array()?.iter().collect(),
        _ => vec![json],
    };
    let kinds: Vec<&str> = steps.iter().filter_map(|step| step["type"].as_str()).collect();
    let by_itself = steps.last().is_some_and(|step| step["use_regex"] != false);
    match kinds.as_slice() {
        ["ByteLevel"] if by_itself => Some("gpt-2"),
        ["Digits", "ByteLevel"] if by_itself && steps[0]["individual_digits"] == true => Some("smollm"),
        ["Split", "ByteLevel"] if !by_itself => {
            let pattern = steps[0]["pattern"]["Regex"].as_str()?;
            PATTERNS.iter().find(|(known, _)| *known == pattern).map(|&(_, name)| name)
        }
        _ => None,
    }
}

impl Vocabulary {
    /// Puts everything but the end tokens; `built` is the tokenizer of the same file.
    pub(super) fn put(&self, built: &Tokenizer, metadata: &mut Metadata) -> Result<(), ConvertError> {
        metadata.put("tokenizer.ggml.model", Value::String("gpt2"))?;
        metadata.put("tokenizer.ggml.pre", Value::String(self.pre))?;
        metadata.put_strings("tokenizer.ggml.tokens", self.tokens.iter().map(|(text, _)| text))?;
        let types: Vec<i32> = self.tokens.iter().map(|&(_, kind)| kind as i32).collect();
        metadata.put_i32s("tokenizer.ggml.token_type", &types)?;
        metadata.put_strings("tokenizer.ggml.merges", &self.merges)?;
        if let Some(bos) = built.bos() {
            metadata.put("tokenizer.ggml.bos_token_id", Value::U32(bos))?;
        }
        metadata.put("tokenizer.ggml.add_bos_token", Value::Bool(built.adds_bos()))?;
        Ok(())
    }
}
