//! safetensors: tensors lie inside the file, one behind the other.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(tensors) = formats::safetensors_file::parse(bytes) else { return };
    edgellm_fuzz::check_ranges(bytes, &tensors);
    for pair in tensors.windows(2) {
        assert!(pair[0].offset + pair[0].bytes <= pair[1].offset);
    }
});
