//! BitNet models are repacked without loss: from every container, around and back.

use std::path::{Path, PathBuf};

use engine::{I2sLayout, LoadOptions};
use formats::TensorType;
use formats::gguf::{Gguf, Metadata, TensorSpec};
use formats::writer::WriteError;
use quantize::quantize::{Format, Options, quantize};

use crate::helpers::{Folder, assert_same_weights, difference, load, shared};

fn repack(folder: &Folder, input: &Path, name: &str, load: LoadOptions) -> PathBuf {
    let output = folder.path(name);
    let options = Options { load, ..Options::new(Format::Bitnet) };
    let summary = quantize(input, &output, &options, &mut |_, _, _| {}).unwrap();
    assert!(summary.report.notes.iter().any(|note| note.contains("without loss")), "{summary:?}");
    output
}

#[test]
fn around_and_back() {
    for name in [
        "golden/bitnet-tiny64/packed-autobitlinear",
        "golden/bitnet-tiny64/packed-bitlinear",
        "golden/bitnet-tiny64/online-f32",
        "bitllama/hf-1M",
    ] {
        let Some(original) = shared(name) else { return };
        let folder = Folder::new();
        let tmac2 = repack(&folder, &original, "a.tmac2.bin", LoadOptions::default());
        let gguf = repack(&folder, &tmac2, "a.gguf", LoadOptions::default());
        let again = repack(&folder, &gguf, "b.tmac2.bin", LoadOptions::default());
        for file in [&tmac2, &gguf, &again] {
            assert_same_weights(&original, file);
        }
        // Codes with one f32 scale in memory, whatever the file has: the same sums.
        let worst = [&tmac2, &gguf, &again].map(|file| difference(&original, file));
        println!("{name}: largest difference of a logit {worst:?}");
        assert!(worst.iter().all(|&worst| worst <= 1e-5), "{name}: {worst:?}");
    }
}

/// I2_S as bitnet.cpp's x86 build writes it.
fn i2_s(original: &Path, gguf: &Path, output: &Path) {
    let (model, bytes) = (load(original), std::fs::read(gguf).unwrap());
    let parsed = Gguf::parse(&bytes).unwrap();
    let mut metadata = Metadata::default();
    for entry in parsed.metadata {
        metadata.put(entry.key, entry.value).unwrap();
    }
    let linear = |name: &str| name.starts_with("blk.") && !name.contains("norm") && name.ends_with(".weight");
    let kept: Vec<_> = parsed.tensors.iter().filter(|t| !t.name.ends_with(".scale")).collect();
    let specs: Vec<TensorSpec> = kept
        .iter()
        .map(|t| {
            let formats::Layout::Rows(ty) = t.layout else { panic!("{t:?}") };
            let ty = if linear(&t.name) { TensorType::I2_S } else { ty };
            TensorSpec { name: t.name.clone(), shape: t.shape.clone(), ty }
        })
        .collect();
    let names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up"];
    let mut out = Vec::new();
    let mut each = |info: &formats::TensorInfo, data: &mut Vec<u8>| -> Result<(), WriteError> {
        if !linear(&info.name) {
            let from = kept.iter().find(|t| t.name == info.name).unwrap();
            data.extend_from_slice(&bytes[from.range(bytes.len() as u64).unwrap()]);
            return Ok(());
        }
        let mut path = info.name.split('.').skip(1);
        let layer = &model.weights.layers[path.next().unwrap().parse::<usize>().unwrap()];
        let part = path.next().unwrap();
        let place = names.iter().position(|name| *name == part).unwrap();
        let values = layer.matrices().nth(place).unwrap().to_values().unwrap();
        let scale = values.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        for block in values.chunks_exact(128) {
            let code = |i: usize| (block[i] / scale + 1.0).round() as u8;
            data.extend((0..32).map(|b| (0..4).fold(0, |byte, q| byte | code(b + 32 * q) << (6 - 2 * q))));
        }
        data.extend(scale.to_le_bytes());
        data.extend([0; 28]);
        Ok(())
    };
    formats::gguf::write(&mut out, &metadata, &specs, &mut each).unwrap();
    std::fs::write(output, out).unwrap();
}

#[test]
fn i2_s_becomes_tmac2() {
    let Some(original) = shared("bitllama/hf-1M") else { return };
    let folder = Folder::new();
    let gguf = repack(&folder, &original, "a.gguf", LoadOptions::default());
    let packed = folder.path("i2_s.gguf");
    i2_s(&original, &gguf, &packed);
    let layout = LoadOptions { i2s_layout: Some(I2sLayout::X86), ..LoadOptions::default() };
    let tmac2 = repack(&folder, &packed, "a.tmac2.bin", layout);
    assert_same_weights(&original, &tmac2);
    let worst = difference(&original, &tmac2);
    assert!(worst <= 1e-5, "{worst}");
    // Without being told how the codes are arranged nobody can know.
    let options = Options::new(Format::Bitnet);
    let message = quantize(&packed, &folder.path("b.tmac2.bin"), &options, &mut |_, _, _| {}).unwrap_err();
    assert!(message.to_string().contains("I2_S"), "{message}");
}
