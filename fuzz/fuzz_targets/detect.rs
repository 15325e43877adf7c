//! Telling the kind of a file, and the one entry point over the llama2.c family.

#![no_main]

use formats::{checkpoint::Checkpoint, detect::detect};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let kind = detect(bytes);
    if let Ok(checkpoint) = Checkpoint::parse(bytes) {
        assert_eq!(kind, Ok(checkpoint.kind));
        edgellm_fuzz::check(bytes, &checkpoint);
    }
});
