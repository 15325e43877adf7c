//! Ternary models: BitNet, bitllama, T-MAC.

use kernels::row::RowType;
use quantize::convert::{Options, TernaryType};

use crate::helpers::{Folder, assert_same_weights, difference, edges, load, shared};

#[test]
fn bitnet_through_tmac2_and_gguf() {
    for kind in ["packed-autobitlinear", "packed-bitlinear", "online-f32"] {
        let Some(bitnet) = shared(&format!("golden/bitnet-tiny64/{kind}")) else { return };
        let folder = Folder::new();
        let (tmac2, report) = folder.convert(&bitnet, "a.tmac2.bin", &Options::default());
        let ternary = report.tensors.iter().filter(|t| t.to == "Ternary16").count();
        assert_eq!(ternary, 2 * 7, "{kind}: all linear layers of both layers");
        assert_same_weights(&bitnet, &tmac2);
        assert_eq!(difference(&bitnet, &tmac2), 0.0, "{kind}");
        let (gguf, _) = folder.convert(&tmac2, "a.gguf", &Options::default());
        assert_same_weights(&bitnet, &gguf);
        let worst = difference(&bitnet, &gguf);
        assert!(worst < 1e-5, "{kind}: {worst}");
    }
}

#[test]
fn bitllama_becomes_the_hugging_face_model_of_the_same_weights() {
    let Some(original) = shared("bitllama/outmini_bit_1M_bit_model.bin") else { return };
    let Some(hf) = shared("bitllama/hf-1M") else { return };
    let folder = Folder::new();
    let (tmac2, _) = folder.convert(&original, "a.tmac2.bin", &Options::default());
    assert_eq!(difference(&hf, &tmac2), 0.0);
    let (gguf, _) = folder.convert(&hf, "a.gguf", &Options::default());
    assert_eq!(edges(&hf, &gguf), 0);
}

#[test]
fn bitllama_through_every_ternary_container() {
    for name in ["bitllama/riscv_bin_model.bin", "bitllama/outmini_bit_1M_bit_model.bin", "bitllama/hf-1M"] {
        let Some(original) = shared(name) else { return };
        let folder = Folder::new();
        let (tmac2, _) = folder.convert(&original, "a.tmac2.bin", &Options::default());
        assert_same_weights(&original, &tmac2);
        let moved = edges(&original, &tmac2);
        println!("{name} as T-MAC v2: {moved} of 24 positions on a rounding edge");
        assert!(moved <= 3, "{name}: {moved}");
        for ternary in [TernaryType::Tq1_0, TernaryType::Tq2_0] {
            let options = Options { ternary, ..Options::default() };
            let (gguf, report) = folder.convert(&original, "a.gguf", &options);
            let wanted = if ternary == TernaryType::Tq1_0 { "TQ1_0" } else { "TQ2_0" };
            // Rows of 128 are no whole block: of the model of 1M weights only w2 can be of that type.
            assert!(
                report.tensors.iter().all(|t| (t.to == wanted) == (t.name.starts_with("blk.") && t.shape.get(1) == Some(&256))),
                "{name}: {:?}",
                report.tensors
            );
            assert_same_weights(&original, &gguf);
            let moved = edges(&original, &gguf);
            println!("{name} as GGUF: {moved} of 24 positions on a rounding edge");
            assert!(moved <= 3, "{name}: {moved}");
            // A scale beside TQ rows makes neither f32 of them nor of what is converted from them.
            let w2 = &load(&gguf).weights.layers[0].w2.weight;
            assert_eq!(w2.row_type, RowType::Ternary32, "{name}");
            let (again, _) = folder.convert(&gguf, "b.tmac2.bin", &options);
            assert_same_weights(&original, &again);
        }
    }
}

#[test]
fn tmac_becomes_gguf() {
    for name in ["stories260K.tmac2.bin", "stories260K.tmac.bin"] {
        let Some(original) = shared(&format!("golden/stories260K-quantized/{name}")) else { return };
        let folder = Folder::new();
        let (gguf, report) = folder.convert(&original, "a.gguf", &Options::default());
        // Rows of 64 and 172 with f16 scales: f16 holds them.
        assert!(report.tensors.iter().any(|t| t.to == "F16"), "{:?}", report.tensors);
        assert_same_weights(&original, &gguf);
        assert!(difference(&original, &gguf) < 1e-5, "{name}: {}", difference(&original, &gguf));
        let (back, _) = folder.convert(&gguf, "b.tmac2.bin", &Options::default());
        assert_same_weights(&original, &back);
        if name.ends_with(".tmac2.bin") {
            let (original, back) = (std::fs::read(&original).unwrap(), std::fs::read(&back).unwrap());
            assert!(back.starts_with(&original), "all but the trailer, which the original has not");
        }
    }
}
