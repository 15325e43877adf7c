//! A tokenizer as GGUF metadata (`tokenizer.*`).

use engine::tokenizer::{EncodeOptions, TokenType, Tokenizer};
use engine::{TokenizerFormat, TokenizerSource};
use formats::gguf::{Gguf, Metadata, TensorSpec, Value};
use formats::tokenizer_file;

use super::error::ConvertError;
use super::{Source, hf_vocabulary};

const MODEL: &str = "tokenizer.ggml.model";
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
/// Keys of tokens that end a text, a turn or a message; a reader stops at each.
const END_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// Puts the tokenizer and the chat template of the model. A tokenizer that GGUF cannot express is left out and
/// noted: the file then needs one beside it.
pub(super) fn put(
    source: &Source<'_>,
    metadata: &mut Metadata,
    notes: &mut Vec<String>,
) -> Result<(), ConvertError> {
    let problem = match &source.tokenizer {
        None => Some("the input has none".to_owned()),
        Some(tokenizer) => put_tokens(tokenizer, source, metadata)?.err(),
    };
    if let Some(problem) = problem {
        metadata.put(MODEL, Value::String("no_vocab"))?;
        notes.push(format!("tokenizer: not in the output: {problem}"));
    } else {
        put_ends(source, metadata, notes)?;
    }
    if let Some(template) = &source.model.chat_template {
        metadata.put(CHAT_TEMPLATE, Value::String(template.source()))?;
    }
    Ok(())
}

/// A GGUF file with the tokenizer and nothing else; `None`, and a note, when GGUF cannot express it.
pub(super) fn alone(source: &Source<'_>, notes: &mut Vec<String>) -> Result<Option<Vec<u8>>, ConvertError> {
    let Some(tokenizer) = &source.tokenizer else { return Ok(None) };
    let mut metadata = Metadata::default();
    if let Err(problem) = put_tokens(tokenizer, source, &mut metadata)? {
        notes.push(format!("tokenizer: not in the output: {problem}"));
        return Ok(None);
    }
    put_ends(source, &mut metadata, notes)?;
    encode(&metadata).map(Some)
}

fn encode(metadata: &Metadata) -> Result<Vec<u8>, ConvertError> {
    let mut bytes = Vec::new();
    formats::gguf::write(&mut bytes, metadata, &[] as &[TensorSpec], &mut |_, _| Ok::<(), ConvertError>(()))?;
    Ok(bytes)
}

/// Everything but the end tokens and the chat template; the inner error says what GGUF cannot express, and
/// nothing is put then.
fn put_tokens(
    tokenizer: &TokenizerSource,
    source: &Source<'_>,
    metadata: &mut Metadata,
) -> Result<Result<(), String>, ConvertError> {
    match tokenizer.format() {
        TokenizerFormat::Gguf => {
            for entry in Gguf::parse(tokenizer.bytes())?.metadata {
                let own = END_KEYS.contains(&entry.key) || entry.key == CHAT_TEMPLATE;
                if entry.key.starts_with("tokenizer.") && !own {
                    metadata.put(entry.key, entry.value)?;
                }
            }
            Ok(Ok(()))
        }
        TokenizerFormat::Llama2c => put_llama2c(tokenizer, source, metadata),
        TokenizerFormat::HuggingFace => {
            let vocab_size = source.model.config.vocab_size;
            let vocabulary = match hf_vocabulary::read(tokenizer.bytes(), vocab_size) {
                Ok(vocabulary) => vocabulary,
                Err(problem) => return Ok(Err(problem)),
            };
            let built = tokenizer.build()?;
            let mut tried = Metadata::default();
            vocabulary.put(&built, &mut tried)?;
            let ours = Tokenizer::from_gguf(&Gguf::parse(&encode(&tried)?)?);
            if let Err(problem) = ours.map_err(|e| e.to_string()).and_then(|ours| same(&built, &ours)) {
                return Ok(Err(problem));
            }
            vocabulary.put(&built, metadata)?;
            Ok(Ok(()))
        }
    }
}

/// A text with everything that pre-tokenizers treat in their own ways.
const PROBE: &str = "Hello, World! It's 1234567 o'clock; we'LL see.\n\n\n \t  x = y+=3.14e-5;\r\n  def f(a, b):\n\treturn a**b  \
    \u{a0}na\u{ef}ve \u{4f60}\u{597d}\u{ff0c}\u{4e16}\u{754c}\u{3002} \u{41f}\u{440}\u{438}\u{432}\u{435}\u{442} \u{1f980}\u{1f469}\u{200d}\u{1f680} \
    \u{e01}\u{e33} \u{644}\u{627} 'S 'd don't ....!!?? ___ #$%&   ";

/// Whether two tokenizers agree on a text that tells pre-tokenizers apart, with and without special tokens.
fn same(a: &Tokenizer, b: &Tokenizer) -> Result<(), String> {
    for add_special in [false, true] {
        let options = EncodeOptions { add_special, parse_special: true };
        let [a, b] = [a, b].map(|t| t.encode(PROBE, options).map_err(|e| e.to_string()));
        if a? != b? {
            return Err("read back from GGUF it cuts a probe text differently".to_owned());
        }
    }
    Ok(())
}

fn put_llama2c(
    tokenizer: &TokenizerSource,
    source: &Source<'_>,
    metadata: &mut Metadata,
) -> Result<Result<(), String>, ConvertError> {
    let vocab = tokenizer_file::parse(tokenizer.bytes())?;
    let mut texts = Vec::with_capacity(vocab.tokens.len());
    let mut types = Vec::with_capacity(vocab.tokens.len());
    for (id, (bytes, _)) in vocab.tokens.iter().enumerate() {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Ok(Err(format!("token {id} is not UTF-8")));
        };
        let (text, kind) = match id {
            0 => (text.to_owned(), TokenType::Unknown),
            // run.c spells BOS and EOS between line breaks, to be printed.
            1 | 2 => (text.trim_ascii().to_owned(), TokenType::Control),
            _ if is_byte(text) => (text.to_owned(), TokenType::Byte),
            _ => (text.replace(' ', "\u{2581}"), TokenType::Normal),
        };
        texts.push(text);
        types.push(kind as i32);
    }
    let mut scores: Vec<f32> = vocab.tokens.iter().map(|&(_, score)| score).collect();
    for id in texts.len()..source.model.config.vocab_size {
        texts.push(hf_vocabulary::hole(id));
        types.push(TokenType::Unused as i32);
        scores.push(0.0);
    }
    metadata.put(MODEL, Value::String("llama"))?;
    metadata.put_strings("tokenizer.ggml.tokens", &texts)?;
    metadata.put_f32s("tokenizer.ggml.scores", &scores)?;
    metadata.put_i32s("tokenizer.ggml.token_type", &types)?;
    metadata.put("tokenizer.ggml.bos_token_id", Value::U32(1))?;
    metadata.put("tokenizer.ggml.unknown_token_id", Value::U32(0))?;
    metadata.put("tokenizer.ggml.add_bos_token", Value::Bool(true))?;
    metadata.put("tokenizer.ggml.add_space_prefix", Value::Bool(true))?;
    Ok(Ok(()))
}

/// `<0x00>` to `<0xFF>`.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// The end tokens: the tokenizer's first, then those that only the model names, then the tokenizer's others, which
/// readers also know by their text.
fn put_ends(
    source: &Source<'_>,
    metadata: &mut Metadata,
    notes: &mut Vec<String>,
) -> Result<(), ConvertError> {
    let known = source.model.tokenizer.as_ref().map_or(&[] as &[u32], |t| t.eos());
    let (first, others) = known.split_at(known.len().min(1));
    let only_model: Vec<u32> = source.model.eos.iter().filter(|id| !known.contains(id)).copied().collect();
    let ends = first.iter().chain(&only_model).chain(others);
    for (key, &id) in END_KEYS.into_iter().zip(ends) {
        metadata.put(key, Value::U32(id))?;
    }
    let left = only_model.get(END_KEYS.len() - first.len()..).unwrap_or_default();
    if !left.is_empty() {
        notes.push(format!("end tokens {left:?}: not in the output, which has keys for three"));
    }
    Ok(())
}
