//! Token shards: what is read is written again as it was, save the width of its ids where that is not the usual one.

#![no_main]

use formats::token_shard::{TokenShard, write};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(shard) = TokenShard::parse(bytes) else { return };
    let ends: Vec<u64> = (0..shard.documents()).map(|i| shard.document_end(i) as u64).collect();
    let ids: Vec<u32> = (0..shard.len()).map(|i| shard.id(i)).collect();
    assert!(
        ids.iter().all(|&id| id < shard.vocab_size) && ends.last().is_none_or(|&end| end == ids.len() as u64)
    );
    let mut again = Vec::new();
    write(&mut again, shard.vocab_size, shard.text_bytes, &ends, &ids).unwrap();
    if again[12] == bytes[12] {
        assert_eq!(again, bytes);
    }
    TokenShard::parse(&again).unwrap();
});
