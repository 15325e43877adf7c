//! T-MAC v1.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = formats::tmac_v1::parse(bytes) {
        edgellm_fuzz::check(bytes, &checkpoint);
    }
});
