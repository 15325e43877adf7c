//! Any shape of model in any format: written, told from its content, read, and written again.

use formats::bitllama::{self, BitOrder};
use formats::checkpoint::Checkpoint;
use formats::detect::{FileKind, detect};
use formats::llama2c::{self, Header, Version};
use formats::tmac_v2::{self, Variant};
use formats::{TensorInfo, int4, ternary, tmac_v1, tokenizer_file, trailer};
use proptest::prelude::*;

use crate::rewrite::rewrite;
use crate::sample::{self, KINDS};

fn headers() -> impl Strategy<Value = Header> {
    let heads = (1usize..4, 1usize..4, 1usize..5);
    (heads, 1usize..30, 1usize..4, 1usize..40, 1usize..20, any::<bool>()).prop_map(
        |((kv, per_kv, half), hidden_dim, n_layers, vocab_size, seq_len, shared_classifier)| Header {
            dim: kv * per_kv * half * 2,
            hidden_dim,
            n_layers,
            n_heads: kv * per_kv,
            n_kv_heads: kv,
            vocab_size,
            seq_len,
            shared_classifier,
        },
    )
}

const STEMS: [&str; 9] = ["token_embedding", "wq", "wk", "wv", "wo", "w1", "w2", "w3", "wcls"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_shape_in_every_format(
        header in headers(), which in 0..KINDS.len(), kept in any::<u16>(), trailer in any::<bool>(), seed in any::<u64>(),
    ) {
        let (kind, bitnet) = KINDS[which];
        let header = match kind {
            FileKind::Bitllama => Header {
                dim: header.dim * 2,
                hidden_dim: header.hidden_dim * 4,
                shared_classifier: true,
                ..header
            },
            FileKind::Llama2cV2 => Header { hidden_dim: header.hidden_dim * 2, ..header },
            _ if bitnet => Header { shared_classifier: false, ..header },
            _ => header,
        };
        let keep = |stem: &str| STEMS.iter().position(|&s| s == stem).is_some_and(|i| kept >> i & 1 == 1);
        let bytes = sample::file((kind, bitnet), &header, &keep, trailer, seed);
        prop_assert_eq!(detect(&bytes).unwrap(), kind);
        if kind == FileKind::Bitllama {
            // Random weights do not tell the bit order.
            let checkpoint = bitllama::parse(&bytes, Some(BitOrder::LeastSignificantFirst)).unwrap();
            prop_assert_eq!(checkpoint.header, header);
            return Ok(());
        }
        let checkpoint = match Checkpoint::parse(&bytes) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return Err(TestCaseError::fail(format!("{kind}: {error}"))),
        };
        prop_assert_eq!(checkpoint.header, header);
        prop_assert_eq!(checkpoint.bitnet, bitnet);
        let can_have_trailer = matches!(kind, FileKind::TmacV1 | FileKind::TmacV2 | FileKind::Int4);
        prop_assert_eq!(checkpoint.trailer.is_some(), trailer && can_have_trailer);
        let planned = match kind {
            FileKind::Llama2cV0 => llama2c::tensors(&header, Version::V0),
            FileKind::Llama2cV1 => llama2c::tensors(&header, Version::V1),
            FileKind::Llama2cV2 => llama2c::tensors(&header, Version::V2 { group: 2 }),
            FileKind::TmacV1 => tmac_v1::tensors(&header),
            FileKind::Int4 => int4::tensors(&header, &keep),
            _ => tmac_v2::tensors(&header, if bitnet { Variant::BitNet } else { Variant::Llama }, &keep),
        };
        prop_assert_eq!(&planned.unwrap(), &checkpoint.tensors);
        disjoint(&checkpoint.tensors, bytes.len() as u64);
        prop_assert!(rewrite(&checkpoint, &bytes) == bytes);
    }

    #[test]
    fn any_vocabulary(tokens in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..12), -1e9f32..1e9), 1..60)) {
        let vocab = tokenizer_file::Vocab {
            max_token_length: tokens.iter().map(|(token, _)| token.len() as u32).max().unwrap().max(1),
            tokens: tokens.iter().map(|(token, score)| (token.as_slice(), *score)).collect(),
        };
        let mut bytes = Vec::new();
        tokenizer_file::write(&mut bytes, &vocab).unwrap();
        prop_assert_eq!(tokenizer_file::parse(&bytes).unwrap(), vocab);
    }

    #[test]
    fn any_trailer(key in ".{0,20}", value in ".{0,200}", number in any::<i64>(), float in any::<f64>(), before in 0usize..50) {
        let metadata = serde_json::json!({ key: [value, null, {"n": number, "x": float}, 5e82] });
        let mut bytes = vec![b'E'; before];
        trailer::write(&mut bytes, &metadata).unwrap();
        prop_assert_eq!(trailer::parse(&bytes, before as u64).unwrap(), Some(metadata));
        for cut in before + 1..bytes.len() {
            prop_assert!(trailer::parse(&bytes[..cut], before as u64).is_err());
        }
    }

    /// The bit trick over words finds what a look at each code finds.
    #[test]
    fn invalid_codes_are_found(mut codes in prop::collection::vec(any::<u8>(), 0..300), keep in any::<bool>()) {
        if !keep {
            // Mostly valid: only then does the search come far.
            for byte in &mut codes {
                *byte &= if *byte % 97 == 0 { 0xff } else { 0x55 };
            }
        }
        let naive = codes.iter().position(|byte| (0..4).any(|i| byte >> (2 * i) & 3 == 0b10));
        prop_assert_eq!(ternary::first_invalid(&codes), naive);
    }
}

/// Tensors follow one another; only the layers of a run share their bytes.
fn disjoint(tensors: &[TensorInfo], len: u64) {
    for pair in tensors.windows(2) {
        let same_run = pair[0].offset == pair[1].offset && pair[0].bytes == pair[1].bytes;
        assert!(same_run || pair[0].offset + pair[0].bytes <= pair[1].offset, "{pair:?}");
    }
    let last = tensors.last().unwrap();
    assert!(last.offset + last.bytes <= len);
}

#[test]
fn every_byte_at_every_place() {
    for byte in 0..=255u8 {
        let bad = (0..4).any(|i| byte >> (2 * i) & 3 == 0b10);
        for at in [0, 1, 7, 8, 63, 64, 65, 130] {
            let mut codes = vec![0b0111_0100; 131];
            codes[at] = byte;
            assert_eq!(ternary::first_invalid(&codes), bad.then_some(at), "{byte:#010b} at {at}");
        }
    }
}
