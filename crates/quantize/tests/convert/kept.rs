//! Models with floating-point and quantized rows.

use formats::gguf::Gguf;
use quantize::convert::{Options, Target, convert};

use crate::helpers::{Folder, assert_same_weights, difference, downloaded, largest_logit, ours, shared};

#[test]
fn stories_through_gguf_comes_back_byte_for_byte() {
    let Some(original) = shared("llama2c/stories260K.bin") else { return };
    let folder = Folder::new();
    let (gguf, report) = folder.convert(&original, "stories.gguf", &Options::default());
    assert!(report.tensors.iter().all(|t| t.to == "F32"), "{report:?}");
    assert_eq!(report.tensors.len(), 2 + 9 * 5);
    assert_eq!(difference(&original, &gguf), 0.0);
    assert_same_weights(&original, &gguf);
    let (back, _) = folder.convert(&gguf, "back.bin", &Options::default());
    assert!(std::fs::read(&back).unwrap() == std::fs::read(&original).unwrap());
    assert_eq!(folder.files().len(), 2, "{:?}", folder.files());
}

#[test]
fn stories_v0_becomes_the_v1_file_of_llama2_c() {
    let (Some(v0), Some(v1)) = (shared("llama2c/stories260K.bin"), shared("llama2c/stories260K.v1.bin"))
    else {
        return;
    };
    let folder = Folder::new();
    let made = folder.path("made.bin");
    convert(&v0, &made, Target::Llama2cV1, &Options::default(), &mut |_, _, _| {}).unwrap();
    assert!(std::fs::read(&made).unwrap() == std::fs::read(&v1).unwrap());
    // And back: v1 has no RoPE tables, so that they are computed, which may differ in the last bit.
    let (back, _) = folder.convert(&v1, "back.bin", &Options::default());
    let (back, original) = (std::fs::read(&back).unwrap(), std::fs::read(&v0).unwrap());
    let tables = original.len() - 2 * 512 * 4 * 4;
    assert!(back[..tables] == original[..tables]);
    let float = |b: &[u8; 4]| f32::from_le_bytes(*b);
    let pairs = back[tables..].as_chunks().0.iter().zip(original[tables..].as_chunks().0);
    let worst = pairs.map(|(a, b)| (float(a) - float(b)).abs()).fold(0.0, f32::max);
    assert!(worst <= f32::EPSILON / 2.0, "{worst}");
}

#[test]
fn hugging_face_llama_becomes_gguf_and_llama2c() {
    let Some(hf) = shared("golden/stories260K-hf") else { return };
    let folder = Folder::new();
    for name in ["a.gguf", "a.bin"] {
        let (made, _) = folder.convert(&hf, name, &Options::default());
        assert_same_weights(&hf, &made);
        let worst = difference(&hf, &made);
        assert!(worst < 1e-5, "{name}: {worst}");
    }
}

/// The same tensors as llama.cpp's own converter gives, in the same order of rows.
#[test]
fn every_architecture_becomes_gguf() {
    let folder = Folder::new();
    for name in
        ["qwen2-tiny", "qwen3-tiny", "qwen3-tiny-bf16", "tiny-gguf/gemma3-tiny.gguf", "llama3-scaled-tiny"]
    {
        let (made, report) = folder.convert(&ours(name), "model.gguf", &Options::default());
        let (worst, largest) = (difference(&ours(name), &made), largest_logit(&made));
        // Rows of wq and wk that change places are summed in another order.
        assert!(worst < 3e-6 * largest, "{name}: {worst} of {largest}");
        let mut expected = Vec::new();
        if !ours(name).join("tokenizer.json").exists() {
            expected.push("tokenizer: not in the output: the input has none");
        }
        if name.starts_with("llama3") {
            expected.push("rope scaling llama3: as divisors in rope_freqs.weight; a frequency may differ in its last bit");
        }
        assert_eq!(report.notes, expected, "{name}");
        let theirs = ours(&format!(
            "tiny-gguf/{}.gguf",
            name.trim_start_matches("tiny-gguf/").trim_end_matches(".gguf")
        ));
        if !theirs.exists() {
            continue;
        }
        let (made, theirs) = (std::fs::read(made).unwrap(), std::fs::read(theirs).unwrap());
        let (a, b) = (Gguf::parse(&made).unwrap(), Gguf::parse(&theirs).unwrap());
        let sorted = |gguf: &Gguf<'_>| {
            let mut names: Vec<_> = gguf.tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
            names.sort();
            names
        };
        assert_eq!(sorted(&a), sorted(&b), "{name}");
        for tensor in &a.tensors {
            let other = b.tensor(&tensor.name).unwrap();
            if tensor.layout == other.layout {
                let bytes =
                    |t: &formats::TensorInfo, file: &[u8]| file[t.range(file.len() as u64).unwrap()].to_vec();
                let (mine, their) = (bytes(tensor, &made), bytes(other, &theirs));
                if tensor.name == "rope_freqs.weight" {
                    let float = |b: &[u8; 4]| f32::from_le_bytes(*b);
                    let pairs = mine.as_chunks().0.iter().zip(their.as_chunks().0);
                    let near = |(a, b)| (float(a) - float(b)).abs() <= 4.0 * f32::EPSILON * float(b);
                    assert!(pairs.into_iter().all(near), "computed twice, in their own ways");
                } else {
                    assert!(mine == their, "{name}: {}", tensor.name);
                }
            }
        }
    }
}

#[test]
fn int4_becomes_q4_0() {
    let Some(q4) = shared("golden/stories260K-quantized/stories260K.q4.bin") else { return };
    let folder = Folder::new();
    let (made, report) = folder.convert(&q4, "a.gguf", &Options::default());
    let kinds: Vec<_> = report.tensors.iter().map(|t| t.to.as_str()).collect();
    assert!(kinds.contains(&"Q4_0") && kinds.contains(&"F32"), "{kinds:?}");
    assert_same_weights(&q4, &made);
    assert_eq!(difference(&q4, &made), 0.0);
}

#[test]
fn real_gguf_files_stay_as_they_are() {
    for name in ["smollm2.gguf", "gemma3.gguf"] {
        let Some(path) = downloaded(name) else { continue };
        let folder = Folder::new();
        let (made, report) = folder.convert(&path, "a.gguf", &Options::default());
        assert!(report.notes.is_empty(), "{:?}", report.notes);
        assert!(report.tensors.iter().all(|t| t.from == t.to || t.from == "vector"));
        let (before, after) = (std::fs::read(path).unwrap(), std::fs::read(made).unwrap());
        let (a, b) = (Gguf::parse(&before).unwrap(), Gguf::parse(&after).unwrap());
        assert_eq!(a.tensors.len(), b.tensors.len());
        for tensor in &a.tensors {
            let other = b.tensor(&tensor.name).unwrap();
            let (x, y) =
                (tensor.range(before.len() as u64).unwrap(), other.range(after.len() as u64).unwrap());
            assert!(tensor.layout == other.layout && before[x] == after[y], "{}", tensor.name);
        }
        for entry in a.metadata.iter().filter(|e| e.key.starts_with("tokenizer.") || e.key == "general.name")
        {
            assert_eq!(b.get(entry.key), Some(&entry.value), "{}", entry.key);
        }
    }
}
