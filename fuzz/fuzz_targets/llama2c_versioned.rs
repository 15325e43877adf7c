//! llama2.c checkpoints v1 and v2.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = formats::llama2c::parse_versioned(bytes) {
        edgellm_fuzz::check(bytes, &checkpoint);
    }
});
