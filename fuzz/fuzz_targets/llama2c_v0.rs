//! llama2.c checkpoints without magic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = formats::llama2c::parse_v0(bytes) {
        edgellm_fuzz::check(bytes, &checkpoint);
    }
});
