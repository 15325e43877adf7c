//! Bad input is refused by name, and no file is left.

use kernels::RowType;
use quantize::quantize::{Format, Options, quantize};

use crate::helpers::{Folder, ours, shared};

fn refusal(folder: &Folder, input: &std::path::Path, name: &str, options: &Options) -> String {
    match quantize(input, &folder.path(name), options, &mut |_, _, _| {}) {
        Err(err) => err.to_string(),
        Ok(_) => panic!("{name} was written"),
    }
}

#[test]
fn architectures_and_widths() {
    let folder = Folder::new();
    for (model, format, name, expected) in [
        ("qwen2-tiny", Format::Tmac2, "a.tmac2.bin", "architecture: qwen2"),
        ("gemma3-tiny", Format::Int4, "a.q4.bin", "architecture: gemma3"),
        ("llama3-scaled-tiny", Format::Tmac, "a.tmac.bin", "rope"),
        ("qwen2-tiny", Format::Tq2_0, "a.gguf", "not whole blocks of TQ2_0 (256 weights)"),
    ] {
        let message = refusal(&folder, &ours(model), name, &Options::new(format));
        assert!(message.contains(expected), "{model}: {message}");
        assert!(message.contains("--force"), "{message}");
    }
    assert!(folder.files().is_empty(), "{:?}", folder.files());
    // Forced, what is lost is noted.
    let options = Options { force: true, ..Options::new(Format::Tmac2) };
    let summary =
        quantize(&ours("qwen2-tiny"), &folder.path("a.tmac2.bin"), &options, &mut |_, _, _| {}).unwrap();
    assert!(summary.report.notes.iter().any(|note| note.contains("lost: architecture")), "{summary:?}");
    let options = Options { force: true, ..Options::new(Format::Tq2_0) };
    let summary = quantize(&ours("qwen2-tiny"), &folder.path("a.gguf"), &options, &mut |_, _, _| {}).unwrap();
    assert!(summary.report.notes.iter().any(|note| note.contains("kept in F16")), "{summary:?}");
}

#[test]
fn types_that_the_format_has_no_place_for() {
    let Some(stories) = shared("llama2c/stories260K.bin") else { return };
    let folder = Folder::new();
    let options = Options { head: Some(RowType::F16), ..Options::new(Format::Tmac2) };
    let message = refusal(&folder, &stories, "a.tmac2.bin", &options);
    assert!(message.contains("a tmac2 file cannot hold it as F16"), "{message}");
    let options =
        Options { head: Some(RowType::F16), embedding: Some(RowType::F32), ..Options::new(Format::Int8) };
    let message = refusal(&folder, &stories, "a.gguf", &options);
    assert!(message.contains("the model's classifier is its embedding"), "{message}");
    assert!(folder.files().is_empty(), "{:?}", folder.files());
}

#[test]
fn weights_that_are_not_finite() {
    let Some(stories) = shared("llama2c/stories260K.bin") else { return };
    let folder = Folder::new();
    let bad = folder.path("bad.bin");
    for (value, told) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let mut bytes = std::fs::read(&stories).unwrap();
        // Row 3, column 5 of the embedding.
        let at = 28 + (3 * 64 + 5) * 4;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&bad, bytes).unwrap();
        for (format, name) in [
            (Format::Tmac, "a.tmac.bin"),
            (Format::Tmac2, "a.tmac2.bin"),
            (Format::Int4, "a.q4.bin"),
            (Format::Int8, "a.gguf"),
        ] {
            let embedding = (format == Format::Int8).then_some(RowType::F16);
            let options = Options { embedding, force: true, ..Options::new(format) };
            let message = refusal(&folder, &bad, name, &options);
            assert!(
                message.contains("token_embedding: row 3, column 5 is") && message.contains(told),
                "{message}"
            );
        }
    }
    assert_eq!(folder.files(), ["bad.bin"]);
}
