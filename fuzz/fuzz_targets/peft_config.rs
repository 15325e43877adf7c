//! PEFT's adapter_config.json: what is accepted can be computed with.

#![no_main]

use formats::peft::PeftConfig;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = PeftConfig::parse(bytes) {
        assert!(config.rank > 0 && config.scale.is_finite());
    }
});
