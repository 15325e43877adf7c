//! Ternary and int4 files, ours to read though other programs made them.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod data;
#[path = "../../kernels/tests/npz/mod.rs"]
mod npz;

use engine::eval::log_softmax_at;
use engine::sampler::argmax;
use engine::{ActivationMode, KvType, LoadOptions, Model, Sequence};
use npz::Npz;

fn exact() -> LoadOptions {
    LoadOptions { activations: ActivationMode::F32, kv_type: KvType::F32, ..LoadOptions::default() }
}

/// What the most likely next token is at each position, and the mean nll of the ids.
fn measure(model: &Model, ids: &[u32]) -> (Vec<u32>, f64, Vec<Vec<f32>>) {
    let (mut best, mut nll, mut rows) = (Vec::new(), 0.0, Vec::new());
    let mut sequence = Sequence::new(model, ids.len()).unwrap();
    let mut each = |t: usize, logits: &[f32]| {
        best.push(argmax(logits));
        rows.push(logits.to_vec());
        if let Some(&next) = ids.get(t + 1) {
            nll -= log_softmax_at(logits, next);
        }
        Ok(())
    };
    sequence.forward_all(ids, &mut each).unwrap();
    (best, nll / (ids.len() - 1) as f64, rows)
}

fn agreement(a: &[u32], b: &[u32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

#[test]
fn tmac_and_q4v1_files_are_the_dequantized_models() {
    let Some(mut golden) = Npz::open("golden/stories260K-quantized/golden.npz") else { return };
    let ids = golden.u32s("ids");
    for (file, key, bar) in [
        ("llama2c/stories260K.bin", "f32", 0.99),
        ("golden/stories260K-quantized/stories260K.q4.bin", "q4", 0.99),
        ("golden/stories260K-quantized/stories260K.tmac2.bin", "tmac2", 0.99),
        ("golden/stories260K-quantized/stories260K.tmac.bin", "tmac", 0.95),
    ] {
        let model = Model::load(&data::path(file).unwrap(), &exact()).unwrap();
        let (best, nll, rows) = measure(&model, &ids);
        let want_nll = f64::from(golden.f32s(&format!("{key}/mean_nll"))[0]);
        let agree = agreement(&best, &golden.u32s(&format!("{key}/argmax")));
        let worst = golden.f32_rows(&format!("{key}/logits_first32"));
        let worst =
            rows.iter().flatten().zip(worst.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!(
            "{key}: argmax agrees on {agree:.4}, nll {nll:.4} for {want_nll:.4}, logits within {worst:.2e}"
        );
        assert!(agree >= bar, "{key}: argmax agrees on {agree}");
        assert!((nll / want_nll - 1.0).abs() < 0.01, "{key}: nll {nll} for {want_nll}");
    }
}

#[test]
fn bitllama_in_every_form_is_one_model() {
    let Some(mut golden) = Npz::open("bitllama/hf-1M/golden.npz") else { return };
    let ids = golden.u32s("greedy");
    let want: f64 = f64::from(golden.f32s("nll")[0]);
    let load = |name: &str, activations| {
        let options = LoadOptions { activations, ..exact() };
        Model::load(&data::path(name).unwrap(), &options).unwrap()
    };
    for activations in [ActivationMode::F32, ActivationMode::Int8] {
        let hf = load("bitllama/hf-1M", activations);
        let bin = load("bitllama/outmini_bit_1M_bit_model.bin", activations);
        // The golden nll is that of the first 64 ids.
        let (nll, own_nll) = (measure(&hf, &ids[..64]).1, measure(&bin, &ids[..64]).1);
        for nll in [nll, own_nll] {
            assert!((nll / want - 1.0).abs() < 0.005, "{activations:?}: nll {nll} for {want}");
        }
        let (best, own_best) = (measure(&hf, &ids).0, measure(&bin, &ids).0);
        let agree = agreement(&best, &own_best);
        println!(
            "{activations:?}: hf nll {nll:.5}, bin nll {own_nll:.5} for {want:.5}, argmax agrees on {agree:.4}"
        );
        assert!(agree >= 0.99, "{activations:?}: argmax agrees on {agree}");
        // The 3M model in both orders of bits.
        let (a, _, rows_a) = measure(&load("bitllama/outmini_bit_3M_bit_model.bin", activations), &ids);
        let (b, _, rows_b) = measure(&load("bitllama/riscv_bin_model.bin", activations), &ids);
        assert_eq!((a, rows_a), (b, rows_b));
    }
}
