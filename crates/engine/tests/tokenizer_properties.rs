//! What must hold for any vocabulary and any text: the fast merge loops equal the slow ones of the specification, and a
//! text in pieces equals the whole.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers outside #[test] functions")]

use std::collections::HashMap;

use engine::tokenizer::{
    EncodeOptions, SpecialTokens, Token, TokenType, Tokenizer, TokenizerError, TokenizerKind,
};
use formats::gguf::Gguf;
use formats::tokenizer_file;
use proptest::prelude::*;

mod data;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

/// A vocabulary in the way of llama2.c: unknown, BOS, EOS, 256 bytes, then `pieces`.
struct Pieces(Vec<(Vec<u8>, f32, TokenType)>);

impl Pieces {
    fn new(pieces: &[(String, f32)]) -> Self {
        let special =
            [("<unk>", TokenType::Unknown), ("<s>", TokenType::Control), ("</s>", TokenType::Control)];
        let mut all: Vec<_> =
            special.iter().map(|&(text, kind)| (text.as_bytes().to_vec(), 0.0, kind)).collect();
        all.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>").into_bytes(), 0.0, TokenType::Byte)));
        for (piece, score) in pieces {
            if !all.iter().any(|(other, ..)| other == piece.as_bytes()) {
                all.push((piece.clone().into_bytes(), *score, TokenType::Normal));
            }
        }
        Self(all)
    }

    fn tokenizer(&self, add_space_prefix: bool) -> Tokenizer {
        let tokens = self.0.iter().map(|(text, score, kind)| Token { text, score: *score, kind: *kind });
        let special = SpecialTokens {
            bos: Some(1),
            eos: vec![2],
            add_bos: true,
            add_space_prefix,
            ..Default::default()
        };
        Tokenizer::sentencepiece(TokenizerKind::Llama2c, tokens, special).unwrap()
    }

    /// run.c's `encode`, but that control and byte tokens are never the result of a merge.
    fn encode_slowly(&self, text: &str) -> Vec<u32> {
        let find = |text: &[u8]| {
            let found =
                self.0.iter().position(|(piece, _, kind)| *kind == TokenType::Normal && piece == text);
            found.map(|id| id as u32)
        };
        let piece = |id: u32| &self.0[id as usize];
        let mut ids = Vec::new();
        for char in text.chars() {
            let mut buffer = [0; 4];
            let bytes = char.encode_utf8(&mut buffer).as_bytes();
            match find(bytes) {
                Some(id) => ids.push(id),
                None => ids.extend(bytes.iter().map(|&byte| u32::from(byte) + 3)),
            }
        }
        loop {
            let mut best: Option<(f32, u32, usize)> = None;
            for (at, pair) in ids.windows(2).enumerate() {
                if let Some(id) = find(&[&piece(pair[0]).0[..], &piece(pair[1]).0[..]].concat())
                    && piece(id).1 > best.map_or(-1e10, |best| best.0)
                {
                    best = Some((piece(id).1, id, at));
                }
            }
            let Some((_, id, at)) = best else { return ids };
            ids[at] = id;
            ids.remove(at + 1);
        }
    }
}

/// Pieces over a few letters and the space, with scores that are often equal; every letter is a piece, as in all
/// vocabularies that SentencePiece trains.
fn pieces() -> impl Strategy<Value = Vec<(String, f32)>> {
    let score =
        prop_oneof![(-8i8..0).prop_map(f32::from), Just(0.0), Just(-0.0), Just(f32::NAN), Just(-1e11)];
    proptest::collection::vec(("[ab ]{2,6}", score), 0..30).prop_map(|mut pieces| {
        pieces.extend(["a", "b", " "].map(|letter| (letter.to_owned(), -9.0)));
        pieces
    })
}

proptest! {
    #[test]
    fn sentencepiece_equals_the_loop_of_run_c(pieces in pieces(), text in "[ab é]{0,40}") {
        let pieces = Pieces::new(&pieces);
        prop_assert_eq!(pieces.tokenizer(false).encode(&text, PLAIN).unwrap(), pieces.encode_slowly(&text));
    }

    #[test]
    fn sentencepiece_gives_the_text_back(pieces in pieces(), text in "\\PC{0,40}", prefix: bool) {
        let text = text.replace('\u{2581}', "");
        let tokenizer = Pieces::new(&pieces).tokenizer(prefix);
        let ids = tokenizer.encode(&text, EncodeOptions { add_special: true, parse_special: false }).unwrap();
        prop_assert_eq!(ids[0], 1);
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }

    /// Tokens of single bytes can spell any bytes: whatever comes, the pieces are the whole.
    #[test]
    fn streamed_bytes_equal_the_whole(bytes in prop_oneof![
        any::<Vec<u8>>(),
        "\\PC*".prop_map(String::into_bytes),
        // Beginnings, middles and ends of characters, more often than chance has them.
        proptest::collection::vec(prop_oneof![Just(0xe2), Just(0x82), Just(0xac), Just(0xf0), Just(0xed), Just(0xa0), Just(b'a')], 0..40),
    ]) {
        let tokenizer = Pieces::new(&[]).tokenizer(false);
        let ids: Vec<u32> = bytes.iter().map(|&byte| u32::from(byte) + 3).collect();
        let mut decoder = tokenizer.decoder();
        let mut text = String::new();
        for (at, &id) in ids.iter().enumerate() {
            let piece = decoder.push(id).unwrap();
            text.push_str(&piece);
            // What has been given never changes: it begins the text of all bytes so far.
            prop_assert!(String::from_utf8_lossy(&bytes[..=at]).starts_with(&text));
        }
        text.push_str(&decoder.finish());
        prop_assert_eq!(&text, &String::from_utf8_lossy(&bytes));
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

/// GPT-2's way to write a byte as a character, from its description.
fn spell(bytes: &[u8]) -> String {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let spell_byte = |byte: u8| match printable(byte) {
        true => char::from(byte),
        false => {
            let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
            char::from_u32(0x100 + before).unwrap()
        }
    };
    bytes.iter().map(|&byte| spell_byte(byte)).collect()
}

/// A byte-level BPE of all bytes and `merges`, each of two tokens that are already there.
struct Merges {
    tokens: Vec<Vec<u8>>,
    merges: Vec<(u32, u32, u32)>,
}

impl Merges {
    fn new(pairs: &[(prop::sample::Index, prop::sample::Index)]) -> Self {
        let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        let mut merges = Vec::new();
        // Merge among a few letters, or no merge would ever meet another.
        let mut used: Vec<u32> = b"abc ".iter().map(|&byte| u32::from(byte)).collect();
        for (left, right) in pairs {
            let (left, right) = (used[left.index(used.len())], used[right.index(used.len())]);
            let whole = [&tokens[left as usize][..], &tokens[right as usize][..]].concat();
            let id = tokens.iter().position(|token| *token == whole).unwrap_or_else(|| {
                tokens.push(whole);
                tokens.len() - 1
            }) as u32;
            if !used.contains(&id) {
                used.push(id);
            }
            merges.push((left, right, id));
        }
        Self { tokens, merges }
    }

    fn tokenizer(&self, pre_tokenizer: &str) -> Tokenizer {
        let spelled: Vec<String> = self.tokens.iter().map(|token| spell(token)).collect();
        let merges: Vec<String> = self
            .merges
            .iter()
            .map(|&(left, right, _)| format!("{} {}", spelled[left as usize], spelled[right as usize]))
            .collect();
        Tokenizer::byte_bpe(
            spelled.iter().map(|text| Token { text: text.as_bytes(), score: 0.0, kind: TokenType::Normal }),
            merges.iter().map(String::as_str),
            pre_tokenizer,
            SpecialTokens::default(),
        )
        .unwrap()
    }

    /// The merge of the lowest rank, leftmost first, until there is none.
    fn encode_slowly(&self, word: &str) -> Vec<u32> {
        let mut ranks = HashMap::new();
        for (rank, &(left, right, id)) in self.merges.iter().enumerate() {
            ranks.entry((left, right)).or_insert((rank, id));
        }
        let mut ids: Vec<u32> = word.bytes().map(u32::from).collect();
        loop {
            let pairs = ids.windows(2).enumerate();
            let best = pairs.filter_map(|(at, pair)| Some((ranks.get(&(pair[0], pair[1]))?, at))).min();
            let Some((&(_, id), at)) = best else { return ids };
            ids[at] = id;
            ids.remove(at + 1);
        }
    }
}

proptest! {
    #[test]
    fn byte_bpe_equals_the_loop_of_its_definition(
        pairs in proptest::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 0..40),
        word in "[abc]{0,40}",
    ) {
        // GPT-2's pattern keeps letters together: the text is one word.
        let merges = Merges::new(&pairs);
        prop_assert_eq!(merges.tokenizer("gpt-2").encode(&word, PLAIN).unwrap(), merges.encode_slowly(&word));
    }

    #[test]
    fn byte_bpe_gives_the_text_back(
        pairs in proptest::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 0..40),
        text in "\\PC{0,40}|[ \\t\\r\\na1!]{0,40}",
        pre in proptest::sample::select(&["gpt-2", "llama-bpe", "qwen2", "qwen35", "smollm", "falcon", "deepseek-coder"][..]),
    ) {
        let tokenizer = Merges::new(&pairs).tokenizer(pre);
        let ids = tokenizer.encode(&text, PLAIN).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

/// Tokenizers of real files, where the shared data is.
fn real_tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let mut tokenizers = Vec::new();
    for name in ["tok512", "tokenizer"] {
        if let Some(path) = data::path(&format!("llama2c/{name}.bin")) {
            let bytes = std::fs::read(path).unwrap();
            let vocab = tokenizer_file::parse(&bytes).unwrap();
            tokenizers.push((name, Tokenizer::from_llama2c(&vocab).unwrap()));
        }
    }
    for name in ["falcon", "gpt-2", "llama-spm", "phi-3"] {
        if let Some(path) = data::path(&format!("vocab/ggml-vocab-{name}.gguf")) {
            let bytes = std::fs::read(path).unwrap();
            tokenizers.push((name, Tokenizer::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap()));
        }
    }
    tokenizers
}

#[test]
fn streamed_tokens_equal_the_whole() {
    for (name, tokenizer) in real_tokenizers() {
        let vocab_size = tokenizer.vocab_size() as u32;
        let mut runner = proptest::test_runner::TestRunner::default();
        let ids = proptest::collection::vec(0..vocab_size, 0..60);
        let result = runner.run(&(ids, any::<prop::sample::Index>()), |(ids, cut)| {
            let cut = cut.index(ids.len() + 1);
            // The whole as the sum of its tokens' bytes, without the dummy space.
            let mut bytes = Vec::new();
            let mut at_start =
                matches!(tokenizer.kind(), TokenizerKind::Llama2c | TokenizerKind::SentencePiece);
            for &id in &ids {
                let token = tokenizer.token_bytes(id).unwrap();
                if tokenizer.is_special(id) {
                    at_start |= tokenizer.bos() == Some(id) && tokenizer.kind() != TokenizerKind::ByteBpe;
                    continue;
                }
                bytes.extend_from_slice(if at_start {
                    token.strip_prefix(b" ").unwrap_or(token)
                } else {
                    token
                });
                at_start = false;
            }
            let whole = String::from_utf8_lossy(&bytes);
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), &*whole);

            // A prompt and what follows it, each streamed: together still the whole.
            let mut decoder = tokenizer.decoder();
            let mut text: String = ids[..cut].iter().map(|&id| decoder.push(id).unwrap()).collect();
            let mut decoder = tokenizer.decoder_after(&ids[..cut]).unwrap();
            text.extend(ids[cut..].iter().map(|&id| decoder.push(id).unwrap()));
            text.push_str(&decoder.finish());
            prop_assert_eq!(text, whole);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn any_text_survives_real_tokenizers() {
    for (name, tokenizer) in real_tokenizers() {
        let mut runner = proptest::test_runner::TestRunner::default();
        let text =
            prop_oneof!["\\PC{0,60}", "[ \\t\\r\\n\\u{85}\\u{a0}\\u{3000}aé1!]{0,60}", any::<String>()];
        let result = runner.run(&text, |text| {
            prop_assume!(!text.contains('\u{2581}'));
            let ids = tokenizer.encode(&text, PLAIN).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn ids_out_of_range_are_errors() {
    let tokenizer = Pieces::new(&[]).tokenizer(false);
    let size = tokenizer.vocab_size();
    for id in [size as u32, u32::MAX] {
        let expected = TokenizerError::IdOutOfRange { id, vocab_size: size };
        assert_eq!(tokenizer.token_bytes(id).unwrap_err(), expected);
        assert_eq!(tokenizer.decode(&[id]).unwrap_err(), expected);
        assert_eq!(tokenizer.decoder().push(id).unwrap_err(), expected);
        assert_eq!(tokenizer.decoder_after(&[id]).unwrap_err(), expected);
        assert!(!tokenizer.is_special(id));
    }
}
