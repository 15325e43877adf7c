//! Hugging Face config.json and generation_config.json.

#![no_main]

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    let _ = formats::hf::HfConfig::parse(json);
    let _ = formats::hf::generation_eos_ids(json);
});
