//! The metadata trailer: what is read is written and read again as the same JSON.

#![no_main]

use formats::trailer::{parse, write};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(metadata)) = parse(bytes, 0) {
        let mut again = Vec::new();
        write(&mut again, &metadata).unwrap();
        assert_eq!(parse(&again, 0), Ok(Some(metadata)));
    }
});
