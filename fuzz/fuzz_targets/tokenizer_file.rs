//! llama2.c tokenizer.bin.

#![no_main]

use formats::tokenizer_file::{parse, write};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(vocab) = parse(bytes) {
        let mut again = Vec::new();
        write(&mut again, &vocab).unwrap();
        assert_eq!(again, bytes);
    }
});
