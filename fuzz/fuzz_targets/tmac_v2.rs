//! T-MAC v2, both variants.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = formats::tmac_v2::parse(bytes) {
        edgellm_fuzz::check(bytes, &checkpoint);
    }
});
