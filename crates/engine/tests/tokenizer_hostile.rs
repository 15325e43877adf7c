//! Vocabularies that are broken or meant to break us: an error or a tokenizer that works, never a panic.

#![allow(clippy::unwrap_used, reason = "helpers outside #[test] functions")]

use std::path::Path;

use engine::tokenizer::{
    EncodeOptions, SpecialTokens, Token, TokenType, Tokenizer, TokenizerError, TokenizerKind,
};
use formats::gguf::Gguf;
use proptest::prelude::*;

const TEXT: &str = "The engine reads <|im_start|> files,\n 123 é 日本 \u{1f600}\u{0}";

fn own(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)).unwrap()
}

/// Everything that takes text or ids, on a tokenizer that was not refused.
fn exercise(tokenizer: &Tokenizer) {
    for options in [
        EncodeOptions { add_special: false, parse_special: false },
        EncodeOptions { add_special: true, parse_special: true },
    ] {
        if let Ok(ids) = tokenizer.encode(TEXT, options) {
            // A tokenizer.json may give ids in its post-processor that it does not have.
            if let Err(error) = tokenizer.decode(&ids) {
                assert!(matches!(error, TokenizerError::IdOutOfRange { .. }));
            }
        }
    }
    let all: Vec<u32> = (0..tokenizer.vocab_size() as u32).collect();
    tokenizer.decode(&all).unwrap();
    let _ = tokenizer.guard(TEXT);
}

/// One change: a flipped bit, or everything behind a place cut off, or a number replaced by a large one.
fn change(bytes: &[u8], at: usize, kind: u8, bit: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match kind {
        0 => bytes.truncate(at),
        1 => bytes[at] = b'9',
        2 => {
            bytes.remove(at);
        }
        _ => bytes[at] ^= 1 << bit,
    }
    bytes
}

fn changes() -> impl Strategy<Value = (prop::sample::Index, u8, u8)> {
    (any::<prop::sample::Index>(), 0u8..8, 0u8..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn changed_tokenizer_json((at, kind, bit) in changes()) {
        let json = own("models/qwen2-tiny/tokenizer.json");
        let changed = change(&json, at.index(json.len()), kind, bit);
        if let Ok(tokenizer) = Tokenizer::from_hf(&changed, None) {
            exercise(&tokenizer);
        }
    }

    #[test]
    fn changed_tokenizer_config((at, kind, bit) in changes()) {
        let json = own("models/qwen2-tiny/tokenizer.json");
        let config = own("models/qwen2-tiny/tokenizer_config.json");
        let changed = change(&config, at.index(config.len()), kind, bit);
        if let Ok(tokenizer) = Tokenizer::from_hf(&json, Some(&changed)) {
            exercise(&tokenizer);
        }
    }

    #[test]
    fn changed_gguf_vocabulary((at, kind, bit) in changes()) {
        let file = own("models/tiny-gguf/qwen2-tiny.gguf");
        let end = Gguf::parse(&file).unwrap().data_offset as usize;
        let changed = change(&file, at.index(end), kind, bit);
        if let Ok(gguf) = Gguf::parse(&changed)
            && let Ok(tokenizer) = Tokenizer::from_gguf(&gguf)
        {
            exercise(&tokenizer);
        }
    }

    /// Any tokens at all, as SentencePiece and as byte-level BPE.
    #[test]
    fn any_tokens(
        tokens in proptest::collection::vec((any::<Vec<u8>>(), any::<f32>(), -1i32..8), 0..40),
        merges in proptest::collection::vec("[ab ]{0,4}", 0..4),
        bos in proptest::option::of(0u32..50),
    ) {
        let tokens = || {
            tokens.iter().map(|(text, score, kind)| Token { text, score: *score, kind: TokenType::from_gguf(*kind) })
        };
        let special = SpecialTokens { bos, add_bos: true, add_space_prefix: true, ..Default::default() };
        if let Ok(tokenizer) = Tokenizer::sentencepiece(TokenizerKind::SentencePiece, tokens(), special.clone()) {
            exercise(&tokenizer);
        }
        let merges = merges.iter().map(String::as_str);
        if let Ok(tokenizer) = Tokenizer::byte_bpe(tokens(), merges, "gpt-2", special) {
            exercise(&tokenizer);
        }
    }
}

fn text(text: &str, kind: TokenType) -> Token<'_> {
    Token { text: text.as_bytes(), score: 0.0, kind }
}

fn sentencepiece(tokens: &[Token<'_>], special: SpecialTokens) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::sentencepiece(TokenizerKind::SentencePiece, tokens.iter().copied(), special)
}

#[test]
fn an_added_token_that_is_part_of_a_character_is_not_looked_for() {
    for kind in [TokenType::UserDefined, TokenType::Control] {
        let part = Token { text: &"\u{1f600}".as_bytes()[1..], score: 0.0, kind };
        let tokens = [text("a", TokenType::Normal), part];
        exercise(&sentencepiece(&tokens, SpecialTokens::default()).unwrap());
        exercise(
            &Tokenizer::byte_bpe(tokens.into_iter(), [].into_iter(), "gpt-2", SpecialTokens::default())
                .unwrap(),
        );
    }
}

#[test]
fn each_mistake_has_its_error() {
    let field = |result: Result<Tokenizer, TokenizerError>, name: &str| match result {
        Err(TokenizerError::Field { field, .. }) => assert_eq!(field, name),
        other => panic!("{name}: {other:?}"),
    };
    let none = SpecialTokens::default;
    let a = text("a", TokenType::Normal);
    field(sentencepiece(&[a], SpecialTokens { bos: Some(1), ..none() }), "bos");
    field(sentencepiece(&[a], SpecialTokens { eos: vec![7], ..none() }), "eos");
    field(sentencepiece(&[a], SpecialTokens { unknown: Some(u32::MAX), ..none() }), "unknown");
    field(sentencepiece(&[text("<0x4>", TokenType::Byte)], none()), "tokens");
    let long = "x".repeat(2 << 20);
    field(sentencepiece(&[text(&long, TokenType::Control)], none()), "special tokens");

    let bpe = |tokens: &[Token<'_>], merge: &str, pre: &str| {
        Tokenizer::byte_bpe(tokens.iter().copied(), [merge].into_iter(), pre, none())
    };
    let ab = [a, text("b", TokenType::Normal)];
    field(bpe(&ab, "ab", "gpt-2"), "merges");
    field(bpe(&ab, "a c", "gpt-2"), "merges");
    field(bpe(&ab, "a b", "gpt-2"), "merges"); // "ab" is no token
    assert!(matches!(bpe(&ab, "a b", "gpt-7"), Err(TokenizerError::UnknownPreTokenizer { .. })));

    // No token, no bytes, nothing for the unknown.
    let plain = EncodeOptions::default();
    let error = sentencepiece(&[a], none()).unwrap().encode("ab", plain).unwrap_err();
    assert_eq!(error, TokenizerError::Unencodable { text: "b".to_owned(), offset: 1 });
    let tokenizer = Tokenizer::byte_bpe(ab.iter().copied(), [].into_iter(), "gpt-2", none()).unwrap();
    let error = tokenizer.encode("abc", plain).unwrap_err();
    assert_eq!(error, TokenizerError::Unencodable { text: "abc".to_owned(), offset: 2 });
}

/// Files that the `tokenizers` crate itself does not survive.
#[test]
fn tokenizer_json_that_contradicts_itself() {
    let refused =
        |json: &str| matches!(Tokenizer::from_hf(json.as_bytes(), None), Err(TokenizerError::Hf { .. }));
    let bpe = |vocab: &str, merges: &str, rest: &str| {
        format!(
            r#"{{"version":"1.0","added_tokens":[],"decoder":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}},"model":{{"type":"BPE","vocab":{vocab},"merges":{merges}{rest}}}}}"#
        )
    };
    let sound = bpe(r#"{"a":0,"b":1,"ab":2}"#, r#"["a b"]"#, "");
    let tokenizer = Tokenizer::from_hf(sound.as_bytes(), None).unwrap();
    assert_eq!(tokenizer.encode("aab", EncodeOptions::default()).unwrap(), [0, 2]);
    // A merge whose result is longer than every token.
    assert!(refused(&bpe(r#"{"a":0,"b":1}"#, r#"["a b"]"#, "")));
    // A prefix that is longer than the token that it should be cut from.
    assert!(refused(&bpe(r#"{"a":0,"b":1}"#, r#"["a b"]"#, r#","continuing_subword_prefix":"@@@@""#)));
    assert!(refused(""));
    assert!(refused("{}"));
    assert!(refused(&"[".repeat(1 << 20)));
    // An id far beyond the file's length would be a table of 16 GiB.
    let far = Tokenizer::from_hf(bpe(r#"{"a":0,"b":4294967295}"#, "[]", "").as_bytes(), None);
    assert!(matches!(far, Err(TokenizerError::Field { .. })), "{far:?}");
    // A decoder that we do not know.
    let other = bpe(r#"{"a":0}"#, "[]", "")
        .replace(r#""ByteLevel""#, r#""CTC","pad_token":"","word_delimiter_token":"","cleanup":true"#);
    let other = Tokenizer::from_hf(other.as_bytes(), None);
    assert!(matches!(other, Err(TokenizerError::UnknownKind { .. })), "{other:?}");
}
