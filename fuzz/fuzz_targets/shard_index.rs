//! model.safetensors.index.json: no file outside its folder.

#![no_main]

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    let Ok(index) = formats::hf::ShardIndex::parse(json) else { return };
    for file in index.files() {
        let mut parts = std::path::Path::new(file).components();
        assert!(matches!(parts.next(), Some(std::path::Component::Normal(_))), "{file:?}");
        assert_eq!(parts.next(), None, "{file:?}");
    }
});
