//! What a target cannot hold is refused by name, and nothing is left behind.

use quantize::convert::{ConvertError, Options, Target};

use crate::helpers::{Folder, downloaded, ours, shared};

/// The field for which a conversion is refused, and why.
fn refusal(folder: &Folder, input: &std::path::Path, name: &str) -> (String, String) {
    match folder.attempt(input, name, &Options::default()) {
        Err(ConvertError::Refused { field, problem, .. }) => (field, problem),
        other => panic!("{other:?}"),
    }
}

#[test]
fn by_the_field_that_does_not_fit() {
    let folder = Folder::new();
    for (model, target, field, problem) in [
        ("qwen2-tiny", "a.bin", "architecture", "qwen2"),
        ("qwen3-tiny", "a.tmac2.bin", "architecture", "qwen3"),
        ("gemma3-tiny", "a.bin", "architecture", "gemma3"),
        ("gemma3-tiny", "a.gguf", "attention_scale", "1 / sqrt(head_dim)"),
        ("llama3-scaled-tiny", "a.bin", "rope", "Llama3"),
    ] {
        let (got, why) = refusal(&folder, &ours(model), target);
        assert_eq!(got, field, "{model}: {why}");
        assert!(why.contains(problem), "{model}: {why}");
    }
    if let Some(bitnet) = shared("golden/bitnet-tiny64/packed-autobitlinear") {
        assert_eq!(refusal(&folder, &bitnet, "a.bin").0, "architecture");
    }
    if let Some(master) = shared("golden/bitnet-tiny64/master-f32") {
        assert_eq!(refusal(&folder, &master, "a.gguf").0, "int8_linear");
        assert_eq!(refusal(&folder, &master, "a.tmac2.bin").0, "weights");
    }
    if let Some(stories) = shared("llama2c/stories260K.bin") {
        assert_eq!(refusal(&folder, &stories, "a.tmac2.bin").0, "weights");
    }
    if let Some(smollm2) = downloaded("smollm2.gguf") {
        let (field, problem) = refusal(&folder, &smollm2, "a.bin");
        assert_eq!(field, "rope");
        assert!(problem.contains("100000"), "{problem}");
    }
    assert!(folder.files().is_empty(), "{:?}", folder.files());
}

#[test]
fn nothing_is_written_where_nothing_can_be() {
    let Some(stories) = shared("llama2c/stories260K.bin") else { return };
    let folder = Folder::new();
    let error = folder.attempt(&stories, "no/such/folder.gguf", &Options::default()).unwrap_err();
    assert!(matches!(error, ConvertError::Io(_)) && error.to_string().contains("folder.gguf"), "{error}");
}

#[test]
fn targets_by_name() {
    for (name, target) in Target::ALL {
        assert_eq!(Target::from_name(name), Some(target));
        assert_eq!(target.name(), name);
    }
    assert_eq!(Target::from_name("onnx"), None);
}
