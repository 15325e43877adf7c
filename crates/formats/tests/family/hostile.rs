//! Damaged files: every answer is a checkpoint that lies inside the file and is written again as it was read,
//! or a typed error. Nothing panics.

use crate::rewrite::rewrite;
use crate::sample::{self, KINDS, Random, tiny};
use formats::FormatError;
use formats::bitllama::{self, BitOrder};
use formats::checkpoint::Checkpoint;
use formats::detect::FileKind;
use formats::tokenizer_file;

const FLIPS: usize = 10_000;
const TRUNCATIONS: usize = 2_000;

/// Every format in small: name, file.
fn victims() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for (kind, bitnet) in KINDS {
        let header = tiny(kind == FileKind::Bitllama);
        let name = format!("{kind} {}", if bitnet { "BitNet" } else { "" });
        files.push((name, sample::file((kind, bitnet), &header, &|stem| stem == "wcls", true, 7)));
    }
    files
}

fn parse(bytes: &[u8]) -> Result<Checkpoint, FormatError> {
    Checkpoint::parse(bytes).or_else(|error| match error {
        // A model of a few weights does not tell its bit order: then it is named, and the rest is checked.
        FormatError::Field { field, .. } if field == "bit order" => {
            bitllama::parse(bytes, Some(BitOrder::LeastSignificantFirst))
        }
        other => Err(other),
    })
}

/// What must hold of any answer.
fn judge(name: &str, bytes: &[u8], answer: Result<Checkpoint, FormatError>) -> bool {
    let Ok(checkpoint) = answer else { return false };
    let mut end = 0;
    for tensor in &checkpoint.tensors {
        let range = tensor.range(bytes.len() as u64).unwrap();
        assert!(!range.is_empty(), "{name}: {} is empty", tensor.name);
        end = end.max(range.end);
    }
    if checkpoint.kind != FileKind::Bitllama {
        let again = rewrite(&checkpoint, bytes);
        // The JSON of a trailer may be spelled differently: up to there all bytes are the same.
        assert_eq!(again[..end], bytes[..end], "{name} is not written as it was read");
        assert_eq!(checkpoint.trailer.is_some(), end < bytes.len(), "{name}");
    }
    true
}

#[test]
fn victims_are_valid() {
    for (name, bytes) in victims() {
        assert!(judge(&name, &bytes, parse(&bytes)), "{name}: {:?}", parse(&bytes));
    }
}

#[test]
fn flipped_bits() {
    for (name, mut bytes) in victims() {
        let mut random = Random(1);
        let (mut accepted, original) = (0, bytes.clone());
        for i in 0..FLIPS {
            // Every other time in the header, where it matters most; one to four bits at a time.
            let reach = if i % 2 == 0 { bytes.len().min(64) } else { bytes.len() };
            let flips: Vec<_> =
                (0..=random.below(4)).map(|_| (random.below(reach), random.below(8))).collect();
            flips.iter().for_each(|&(at, bit)| bytes[at] ^= 1 << bit);
            accepted += usize::from(judge(&name, &bytes, parse(&bytes)));
            flips.iter().for_each(|&(at, bit)| bytes[at] ^= 1 << bit);
        }
        assert_eq!(bytes, original);
        // Flipped floats are floats, flipped headers are not headers.
        assert!(accepted > 0 && accepted < FLIPS * 3 / 4, "{name}: {accepted} of {FLIPS} accepted");
    }
}

#[test]
fn truncations() {
    for (name, bytes) in victims() {
        let trailer_start = bytes.windows(4).position(|window| window == b"EDGE");
        let mut random = Random(2);
        for i in 0..TRUNCATIONS {
            let len = if i < 300 { i.min(bytes.len() - 1) } else { random.below(bytes.len()) };
            let whole = Some(len) == trailer_start;
            let answer = judge(&name, &bytes[..len], parse(&bytes[..len]));
            assert_eq!(answer, whole, "{name} cut to {len} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn garbage_behind_the_end() {
    for (name, mut bytes) in victims() {
        bytes.push(0);
        assert!(parse(&bytes).is_err(), "{name}");
    }
}

/// A header may claim anything in front of a few bytes.
#[test]
fn claims_without_bytes() {
    let mut random = Random(3);
    let interesting = [1, 2, 3, 64, 4096, 1 << 20, 1 << 24, i32::MAX, i32::MAX - 1, -1, i32::MIN, 0];
    for (name, bytes) in victims() {
        for _ in 0..2_000 {
            let mut bytes = bytes[..random.below(bytes.len() - 300) + 300].to_vec();
            for at in (0..64).step_by(4) {
                if random.below(3) == 0 {
                    let value = interesting[random.below(interesting.len())];
                    bytes[at..at + 4].copy_from_slice(&i32::to_le_bytes(value));
                }
            }
            judge(&name, &bytes, parse(&bytes));
        }
    }
}

#[test]
fn damaged_vocabularies() {
    let whole = sample::tokenizer();
    let tokens = tokenizer_file::parse(&whole).unwrap().tokens.len();
    let judge = |bytes: &[u8]| {
        let Ok(vocab) = tokenizer_file::parse(bytes) else { return false };
        let mut out = Vec::new();
        tokenizer_file::write(&mut out, &vocab).unwrap();
        assert_eq!(out, bytes);
        true
    };
    let mut random = Random(4);
    let mut bytes = whole.clone();
    let mut accepted = 0;
    for _ in 0..FLIPS {
        let (at, bit) = (random.below(bytes.len()), random.below(8));
        bytes[at] ^= 1 << bit;
        accepted += usize::from(judge(&bytes));
        bytes[at] ^= 1 << bit;
    }
    assert!(accepted > 0 && accepted < FLIPS, "{accepted} of {FLIPS}");
    // Cut between two tokens it is a shorter vocabulary, cut elsewhere it is none.
    let accepted = (0..whole.len()).filter(|&len| judge(&whole[..len])).count();
    assert_eq!(accepted, tokens - 1);
}
