//! How much a hostile file can make the readers allocate: a small multiple of its own length, counted over
//! everything that is ever allocated during a parse, freed or not.

#![cfg(test)]

use std::alloc::System;

use formats::checkpoint::Checkpoint;
use formats::gguf::Gguf;
use formats::llama2c::Header;
use formats::parquet::Parquet;
use formats::parquet::pages::{Dictionary, next_page};
use formats::writer::WriteError;
use formats::{safetensors_file, tmac_v1, tokenizer_file};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that `parse` asks for, in all.
fn allocated<T>(parse: impl FnOnce() -> T) -> usize {
    let region = Region::new(ALLOCATOR);
    let result = parse();
    let change = region.change();
    drop(result);
    change.bytes_allocated
}

fn string(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes(), s.as_bytes()].concat()
}

fn gguf(n_tensors: u64, n_entries: u64, rest: &[u8]) -> Vec<u8> {
    [b"GGUF".as_slice(), &3u32.to_le_bytes(), &n_tensors.to_le_bytes(), &n_entries.to_le_bytes(), rest]
        .concat()
}

// One test, so that nothing else allocates meanwhile.
#[test]
fn parsers_allocate_in_proportion_to_the_file() {
    // Claims without substance cost nothing but the error.
    let array = |element: u32, len: u64| {
        [string("k").as_slice(), &9u32.to_le_bytes(), &element.to_le_bytes(), &len.to_le_bytes(), &[0; 64]]
            .concat()
    };
    let claims = [
        gguf(u64::MAX, 0, &[0; 64]),
        gguf(1 << 20, 0, &[0; 64]),
        gguf(0, 1 << 20, &[0; 64]),
        gguf(0, 1, &u64::MAX.to_le_bytes()),
        gguf(0, 1, &array(0, 1 << 40)),
        gguf(0, 1, &array(8, 1 << 40)),
        gguf(0, 1, &array(9, u64::MAX)),
        gguf(1, 0, &[string("w"), [u32::MAX.to_le_bytes(); 16].concat()].concat()),
    ];
    for bytes in &claims {
        let n = allocated(|| assert!(Gguf::parse(bytes).is_err()));
        assert!(n < 2048, "{n} bytes for a refused file of {}", bytes.len());
    }
    let claim = [100_000_000u64.to_le_bytes().as_slice(), b"{}"].concat();
    let n = allocated(|| assert!(safetensors_file::parse(&claim).is_err()));
    assert!(n < 2048, "{n} bytes for a refused safetensors header");

    parquet_claims();
    family_claims();
    family_density();

    // The densest directories that the formats allow: many tiny entries, all of them valid.
    let count = 20_000;
    let entries: Vec<u8> = (0..count).flat_map(|i| [string(&i.to_string()), vec![0; 5]].concat()).collect();
    let tensors: Vec<u8> = (0..count)
        .flat_map(|i: u64| [string(&i.to_string()), vec![0; 8], (i * 32).to_le_bytes().to_vec()].concat())
        .collect();
    let dense =
        [gguf(0, count, &entries), gguf(count, 0, &[tensors, vec![0; count as usize * 32 + 32]].concat())];
    for bytes in &dense {
        let n =
            allocated(|| Gguf::parse(bytes).map(|gguf| gguf.metadata.len() + gguf.tensors.len()).unwrap());
        assert!(n < 16 * bytes.len(), "{n} bytes for a dense GGUF of {}", bytes.len());
    }
    let json: Vec<String> = (0..count)
        .map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[],"data_offsets":[{i},{}]}}"#, i + 1))
        .collect();
    let bytes = [string(&format!("{{{}}}", json.join(","))), vec![0; count as usize]].concat();
    let n = allocated(|| safetensors_file::parse(&bytes).map(|tensors| tensors.len()).unwrap());
    assert!(n < 24 * bytes.len(), "{n} bytes for a dense safetensors of {}", bytes.len());

    // A vocabulary is not copied: its strings and numbers stay in the file.
    let words: Vec<u8> = (0..count).flat_map(|i| string(&i.to_string())).collect();
    let head =
        [string("k").as_slice(), &9u32.to_le_bytes(), &8u32.to_le_bytes(), &count.to_le_bytes()].concat();
    let bytes = gguf(0, 1, &[head, words].concat());
    let n = allocated(|| {
        let gguf = Gguf::parse(&bytes).unwrap();
        assert_eq!(gguf.array("k").unwrap().unwrap().strings().unwrap().count() as u64, count);
    });
    assert!(n < 2048, "{n} bytes for a vocabulary of {} in place", bytes.len());
}

/// Directories of Parquet that promise lists, columns and values that are not there.
fn parquet_claims() {
    let file = |footer: &[u8]| {
        let len = u32::try_from(footer.len()).unwrap().to_le_bytes();
        [b"PAR1", footer, &len, b"PAR1"].concat()
    };
    let many = [0xfe, 0xff, 0xff, 0xff, 0x0f];
    let root = [&[0x15, 2, 0x19, 0x2c, 0x48, 1, b'r', 0x15], &many[..], &[0]].concat();
    let group = [&[0x35, 0, 0x18, 1, b'a', 0x15], &many[..], &[0, 0]].concat();
    for claim in [
        file(&[&[0x29, 0xfc], &many[..]].concat()),
        file(&[&[0x49, 0xfc], &many[..]].concat()),
        file(&[root, group].concat()),
    ] {
        let n = allocated(|| assert!(Parquet::parse(&claim).is_err()));
        assert!(n < 2048, "{n} bytes for a refused file of {}", claim.len());
    }
    // A page of a dictionary with as many values.
    let page = [&[0x15, 4, 0x15, 8, 0x15, 8, 0x4c, 0x15], &many[..], &[0, 0], &[0; 4]].concat();
    let page = next_page(&mut &page[..]).unwrap().unwrap();
    let n = allocated(|| assert!(Dictionary::new(&page, vec![0; 4]).is_err()));
    assert!(n < 2048, "{n} bytes for a refused dictionary");
    // And one that is what it says.
    let bytes =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/parquet/plain.parquet")).unwrap();
    let n = allocated(|| Parquet::parse(&bytes).unwrap());
    assert!(n < 16 * bytes.len(), "{n} bytes for a file of {}", bytes.len());
}

/// Headers of the llama2.c family in front of nothing: every format, every field at its limit.
fn family_claims() {
    let fields: Vec<u8> =
        [1i32 << 20, 1 << 20, 4096, 2, 1, -(1 << 24), 1 << 28].map(i32::to_le_bytes).concat();
    let positive: Vec<u8> =
        [1i32 << 20, 1 << 20, 4096, 2, 1, 1 << 24, 1 << 28].map(i32::to_le_bytes).concat();
    for bytes in [
        [fields.as_slice(), &[0; 64]].concat(),
        [b"TMAC".as_slice(), &fields, &[0; 64]].concat(),
        [b"TM2\0".as_slice(), &fields, &[0; 64]].concat(),
        [b"Q4V1".as_slice(), &fields, &32i32.to_le_bytes(), &[0; 64]].concat(),
        [b"24ka\x01\0\0\0".as_slice(), &positive, &[1], &[0; 512]].concat(),
        [b"24ka\x02\0\0\0".as_slice(), &positive, &[1, 64], &[0; 512]].concat(),
        [i32::MAX.to_le_bytes(), [0; 4], i32::MAX.to_le_bytes(), [0; 4]].concat(),
    ] {
        let n = allocated(|| assert!(Checkpoint::parse(&bytes).is_err()));
        assert!(n < 8192, "{n} bytes for a refused file of {}", bytes.len());
    }
}

/// The densest files of the family: as many layers as may be, each as small as may be.
fn family_density() {
    let header = Header {
        dim: 2,
        hidden_dim: 1,
        n_layers: 4096,
        n_heads: 1,
        n_kv_heads: 1,
        vocab_size: 1,
        seq_len: 1,
        shared_classifier: true,
    };
    let mut bytes = Vec::new();
    tmac_v1::write(&mut bytes, &header, None, &mut |info, out| -> Result<(), WriteError> {
        out.resize(info.bytes as usize, 0);
        Ok(())
    })
    .unwrap();
    let n = allocated(|| assert_eq!(Checkpoint::parse(&bytes).unwrap().tensors.len(), 9 * 4096 + 4));
    // An entry of the directory weighs more than the smallest tensor; limits::MAX_LAYERS bounds their number.
    assert!(n < 8 << 20, "{n} bytes for the most tensors that a file of the family may have");

    let vocabulary = [1i32.to_le_bytes().as_slice(), &[0; 8 * 20_000]].concat();
    let n = allocated(|| assert_eq!(tokenizer_file::parse(&vocabulary).unwrap().tokens.len(), 20_000));
    assert!(n < 10 * vocabulary.len(), "{n} bytes for a dense vocabulary of {}", vocabulary.len());
}
