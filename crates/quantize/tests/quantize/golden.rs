//! Byte for byte what the formats' first quantizers write.

use quantize::quantize::{Format, Options, quantize};

use crate::helpers::{Folder, shared};

#[test]
fn equals_the_first_quantizers() {
    let Some(stories) = shared("llama2c/stories260K.bin") else { return };
    let folder = Folder::new();
    for (format, name) in [
        (Format::Tmac, "stories260K.tmac.bin"),
        (Format::Tmac2, "stories260K.tmac2.bin"),
        (Format::Int4, "stories260K.q4.bin"),
    ] {
        let Some(golden) = shared(&format!("golden/stories260K-quantized/{name}")) else { return };
        let output = folder.path(name);
        quantize(&stories, &output, &Options::new(format), &mut |_, _, _| {}).unwrap();
        let (expected, found) = (std::fs::read(golden).unwrap(), std::fs::read(&output).unwrap());
        // What follows the data is our trailer; T-MAC v1 has none.
        assert!(found.len() >= expected.len(), "{name}");
        assert!(found[..expected.len()] == expected[..], "{name}: the data differs");
        let trailer = &found[expected.len()..];
        assert_eq!(trailer.get(..4), (format != Format::Tmac).then_some(&b"EDGE"[..]), "{name}");
        assert!(engine::Model::load(&output, &engine::LoadOptions::default()).is_ok());
    }
    assert_eq!(folder.files().len(), 3, "{:?}", folder.files());
}
