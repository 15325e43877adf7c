//! stories260K and what the seed formats' own quantizers made of it.

use half::f16;
use quantize::analysis::{QuantizedReport, TensorReport};
use quantize::convert::Options;

use super::{compare, exact};
use crate::helpers::{Folder, ours, shared, with_tokenizer};
use crate::npz::Npz;

const QUANTIZED: &str = "golden/stories260K-quantized";
/// Bytes of a llama2.c header, and of the flag or the magic that the formats put before it and before a tensor.
const HEADER: usize = 28;

fn tensor<'r>(report: &'r QuantizedReport, name: &str) -> &'r TensorReport {
    report.tensors.iter().find(|tensor| tensor.name == name).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
}

/// The embedding, which is the first tensor of every format, decoded by hand: 512 rows of 64.
fn embedding(file: &str) -> Vec<f64> {
    let bytes = std::fs::read(shared(&format!("{QUANTIZED}/{file}")).unwrap()).unwrap();
    let scale = |b: &[u8]| f64::from(f16::from_le_bytes([b[0], b[1]]));
    let ternary = |byte: u8, i: usize| [0.0, 1.0, f64::NAN, -1.0][usize::from(byte >> (2 * i) & 3)];
    match file {
        "stories260K.q4.bin" => {
            let blocks = &bytes[4 + HEADER + 4 + 1..][..512 * 2 * 18];
            let block = |b: &[u8]| -> Vec<f64> {
                let nibbles = b[2..].iter().flat_map(|&byte| [byte & 15, byte >> 4]);
                nibbles.map(|q| (f64::from(q) - 8.0) * scale(b)).collect()
            };
            blocks.chunks_exact(18).flat_map(block).collect()
        }
        "stories260K.tmac2.bin" => {
            let rows = &bytes[4 + HEADER + 9..][..512 * 18];
            let row = |b: &[u8]| -> Vec<f64> {
                let codes = b[2..].iter().flat_map(|&byte| (0..4).map(move |i| ternary(byte, i)));
                codes.map(|t| t * scale(b)).collect()
            };
            rows.chunks_exact(18).flat_map(row).collect()
        }
        _ => {
            let codes = &bytes[4 + HEADER..][..512 * 16];
            codes.iter().flat_map(|&byte| (0..4).map(move |i| ternary(byte, i))).collect()
        }
    }
}

#[test]
fn the_embedding_by_hand() {
    let (Some(original), Some(_)) = (shared("llama2c/stories260K.bin"), shared(QUANTIZED)) else { return };
    let before = floats(&std::fs::read(&original).unwrap()[HEADER..][..512 * 64 * 4]);
    for (file, bits, linear) in [
        ("stories260K.q4.bin", 4.5, 4.5),
        // A row is an f16 and four weights a byte; those of w2 have 172 columns, all others 64.
        ("stories260K.tmac2.bin", 2.25, (2.25 * 34_304.0 + 64.0 * (16.0 + 344.0)) / 45_312.0),
        ("stories260K.tmac.bin", 2.0, 2.0),
    ] {
        let path = shared(&format!("{QUANTIZED}/{file}")).unwrap();
        let found = compare(&original, &[&path], exact(None), None).unwrap();
        let (report, after) = (&found.quantized[0], embedding(file));
        let got = tensor(report, "token_embedding");
        let errors: Vec<f64> = before.iter().zip(&after).map(|(a, b)| a - b).collect();
        let square = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
        let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-6 * b.abs().max(1e-9), "{file}: {a} {b}");
        near(got.mse, square(&errors) / before.len() as f64);
        near(got.relative_error, (square(&errors) / square(&before)).sqrt());
        near(got.sqnr_db.unwrap(), 10.0 * (square(&before) / square(&errors)).log10());
        near(got.max_error, errors.iter().fold(0.0, |m: f64, e| m.max(e.abs())));
        let zeros = |x: &[f64]| x.iter().filter(|x| **x == 0.0).count() as f64 / x.len() as f64;
        assert_eq!((got.zeros, got.shape), ([zeros(&before), zeros(&after)], [512, 64]));
        near(got.bits[1], bits);
        near(report.size.linear_bits, linear);
        assert_eq!(report.size.file_bytes, std::fs::metadata(&path).unwrap().len());
        // Every weight is in a bin, and each bin of the middle third is counted by hand.
        let histogram = &got.histogram;
        let limit = histogram.limit;
        for (side, values) in [(0, &before), (1, &after)] {
            let bins = histogram.counts[side].len();
            assert_eq!(histogram.counts[side].iter().sum::<u64>(), values.len() as u64);
            let width = 2.0 * limit / bins as f64;
            for bin in bins / 3..2 * bins / 3 {
                let from = -limit + bin as f64 * width;
                let inside = values.iter().filter(|&&x| x >= from && x < from + width).count() as u64;
                assert!(histogram.counts[side][bin].abs_diff(inside) <= 2, "{file} {side} {bin}");
            }
        }
        match &got.scales {
            Some(scales) if file.contains("q4") => assert_eq!(scales.count, 1024),
            Some(scales) => assert_eq!(scales.count, 512),
            None => unreachable!("quantized rows have scales"),
        }
    }
}

/// Perplexities, KL and agreement from the logits that PyTorch gave for the dequantized models: 15 positions, those that
/// one chunk of 32 tokens scores.
#[test]
fn distributions_are_those_of_pytorch() {
    let (Some(original), Some(mut golden), Some(tokenizer)) = (
        shared("llama2c/stories260K.bin"),
        Npz::open("golden/stories260K-quantized/golden.npz"),
        shared("llama2c/tok512.bin"),
    ) else {
        return;
    };
    let ids = golden.u32s("ids");
    let text = std::fs::read_to_string(shared("golden/stories260K-hf/runc_t0_n256.txt").unwrap()).unwrap();
    let before = golden.f32_rows("f32/logits_first32");
    for (file, key) in
        [("stories260K.q4.bin", "q4"), ("stories260K.tmac2.bin", "tmac2"), ("stories260K.tmac.bin", "tmac")]
    {
        let path = shared(&format!("{QUANTIZED}/{file}")).unwrap();
        let load = exact(Some(tokenizer.clone()));
        let found = compare(&original, &[&path], load, Some((&text, 32))).unwrap();
        let got = found.quantized[0].text.unwrap();
        let after = golden.f32_rows(&format!("{key}/logits_first32"));
        let log_softmax = |row: &[f32]| -> Vec<f64> {
            let most = row.iter().fold(f32::MIN, |m, &x| m.max(x));
            let sum: f64 = row.iter().map(|&x| f64::from(x - most).exp()).sum();
            row.iter().map(|&x| f64::from(x - most) - sum.ln()).collect()
        };
        let best = |row: &[f64]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        let (mut kl, mut agree, mut nll, mut original_nll) = (Vec::new(), 0, 0.0, 0.0);
        for t in 16..31 {
            let (p, q) = (log_softmax(&before[t]), log_softmax(&after[t]));
            kl.push(p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>());
            agree += usize::from(best(&p) == best(&q));
            nll -= q[ids[t + 1] as usize];
            original_nll -= p[ids[t + 1] as usize];
        }
        let near = |what: &str, a: f64, b: f64| assert!((a / b - 1.0).abs() < 2e-3, "{key} {what}: {a} {b}");
        assert_eq!(got.tokens, 15);
        near("perplexity", got.perplexity.ln(), nll / 15.0);
        near("original perplexity", got.original_perplexity, (original_nll / 15.0).exp());
        near("mean KL", got.mean_kl, kl.iter().sum::<f64>() / 15.0);
        near("largest KL", got.max_kl, kl.iter().copied().fold(0.0, f64::max));
        near("agreement", got.top1_agreement + 1.0, agree as f64 / 15.0 + 1.0);
    }
}

/// The same model in another container has lost nothing: names, order of tensors, and pairs of RoPE differ.
#[test]
fn another_container_changes_nothing() {
    let folder = Folder::new();
    let mut pairs = vec![(ours("llama3-scaled-tiny"), ours("tiny-gguf/llama3-scaled-tiny.gguf"))];
    if let (Some(a), Some(b)) = (shared("llama2c/stories260K.bin"), shared("golden/stories260K-hf")) {
        let tokenizer = shared("llama2c/tok512.bin").unwrap();
        let (gguf, _) = folder.convert(&a, "stories.gguf", &with_tokenizer(tokenizer));
        pairs.extend([(a.clone(), b.clone()), (b, a.clone()), (a, gguf)]);
    }
    for (a, b) in pairs {
        let found = compare(&a, &[&b], exact(None), None).unwrap();
        let report = &found.quantized[0];
        assert_eq!((report.sqnr_db, report.relative_error), (None, 0.0), "{} {}", a.display(), b.display());
        assert!(report.tensors.iter().all(|t| t.sqnr_db.is_none() && t.mse == 0.0), "{}", b.display());
        assert!(report.only_in_original.is_empty() && report.only_in_quantized.is_empty());
        // Two norms and seven matrices a layer, the embedding, the last norm, and the classifier, tied or not.
        let layers = report.tensors.iter().filter_map(|t| t.layer).max().unwrap() + 1;
        assert_eq!(report.tensors.iter().filter(|t| t.layer.is_some()).count(), 9 * layers);
        assert!(report.tensors.len() <= 9 * layers + 3);
    }
}

/// Ternary values and their scales, by what the file itself gives and not by what its name says.
#[test]
fn bitnet_converted_has_lost_nothing() {
    let folder = Folder::new();
    for name in
        ["golden/bitnet-tiny64/packed-autobitlinear", "golden/bitnet-tiny64/online-f32", "bitllama/hf-1M"]
    {
        let Some(original) = shared(name) else { return };
        for file in ["model.tmac2.bin", "model.gguf"] {
            let (converted, _) = folder.convert(&original, file, &Options::default());
            let found = compare(&original, &[&converted], exact(None), None).unwrap();
            let report = &found.quantized[0];
            assert!(report.tensors.iter().all(|t| t.sqnr_db.is_none()), "{name} {file}");
            assert!(report.only_in_original.is_empty());
        }
    }
}

#[test]
fn a_classifier_of_its_own_is_held_against_the_embedding() {
    let (Some(a), Some(b)) = (shared("golden/llama-tiny64-tied"), shared("golden/llama-tiny64")) else {
        return;
    };
    let found = compare(&a, &[&b], exact(None), None).unwrap();
    let report = &found.quantized[0];
    assert_eq!((report.only_in_original.len(), &report.only_in_quantized[..]), (0, &["wcls".to_owned()][..]));
    assert!(tensor(report, "wcls").relative_error > 0.0);
    let back = compare(&b, &[&a], exact(None), None).unwrap();
    assert_eq!(back.quantized[0].only_in_original, ["wcls"]);
}
