//! bitllama, in a given bit order and in the one that the weights tell.

#![no_main]

use formats::bitllama::{BitOrder, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for order in [Some(BitOrder::MostSignificantFirst), None] {
        if let Ok(checkpoint) = parse(bytes, order) {
            edgellm_fuzz::check(bytes, &checkpoint);
        }
    }
});
