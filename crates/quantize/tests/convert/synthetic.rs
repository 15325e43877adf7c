//! Small files of the llama2.c family with shapes and scales that the real ones do not have.

use std::path::PathBuf;

use formats::llama2c::{self, Header, Version};
use formats::tmac_v2::{self, Variant};
use formats::writer::WriteError;
use formats::{Layout, TensorInfo};
use half::f16;
use quantize::convert::{Options, Report, TernaryType};

use crate::helpers::{Folder, assert_same_weights, difference};

/// Rows of 256: whole blocks of every type.
const HEADER: Header = Header {
    dim: 256,
    hidden_dim: 512,
    n_layers: 2,
    n_heads: 4,
    n_kv_heads: 2,
    vocab_size: 300,
    seq_len: 32,
    shared_classifier: true,
};

/// Numbers that look random and are the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    /// Between 0.001 and 0.1.
    fn scale(&mut self) -> f32 {
        (self.below(100) + 1) as f32 * 0.001
    }
}

fn floats(info: &TensorInfo, random: &mut Random, out: &mut Vec<u8>) {
    let weights = info.shape.iter().product::<u64>();
    (0..weights).for_each(|_| out.extend((random.below(2001) as f32 / 1000.0 - 1.0).to_le_bytes()));
}

fn tmac2(folder: &Folder) -> PathBuf {
    let mut random = Random(1);
    let mut out = Vec::new();
    let mut data = |info: &TensorInfo, bytes: &mut Vec<u8>| -> Result<(), WriteError> {
        if info.layout != Layout::TernaryRows {
            floats(info, &mut random, bytes);
            return Ok(());
        }
        for row in 0..info.rows() {
            bytes.extend(f16::from_f32(random.scale()).to_le_bytes());
            // One row of zeros, one with a block of zeros.
            let zeros = if row == 3 { info.cols() } else { u64::from(row == 5) * 256 };
            for byte in 0..info.cols() / 4 {
                let code = |random: &mut Random| [0b00, 0b01, 0b11][random.below(3) as usize];
                let codes = (0..4).fold(0, |b, _| b << 2 | code(&mut random));
                bytes.push(if byte * 4 < zeros { 0 } else { codes });
            }
        }
        Ok(())
    };
    let keep_f32 = |stem: &str| stem == "token_embedding";
    tmac_v2::write(&mut out, &HEADER, Variant::Llama, &keep_f32, None, &mut data).unwrap();
    let path = folder.path("made.tmac2.bin");
    std::fs::write(&path, out).unwrap();
    path
}

/// llama2.c v2; `scale` makes each group's scale.
fn int8(folder: &Folder, group: u32, scale: impl Fn(&mut Random) -> f32) -> PathBuf {
    let mut random = Random(2);
    let mut out = Vec::new();
    let mut data = |info: &TensorInfo, bytes: &mut Vec<u8>| -> Result<(), WriteError> {
        let Layout::Int8Groups { group } = info.layout else {
            floats(info, &mut random, bytes);
            return Ok(());
        };
        let weights = info.shape.iter().product::<u64>();
        (0..weights).for_each(|_| bytes.push((random.below(255) as i64 - 127) as i8 as u8));
        (0..weights / group).for_each(|_| bytes.extend(scale(&mut random).to_le_bytes()));
        Ok(())
    };
    llama2c::write(&mut out, &HEADER, Version::V2 { group }, &mut data).unwrap();
    let path = folder.path("made.v2.bin");
    std::fs::write(&path, out).unwrap();
    path
}

/// Types of the matrices of the first layer.
fn type_of<'a>(report: &'a Report, name: &str) -> &'a str {
    &report.tensors.iter().find(|t| t.name == name).unwrap().to
}

#[test]
fn ternary_rows_with_scales_of_their_own() {
    let folder = Folder::new();
    let original = tmac2(&folder);
    for (ternary, name) in [(TernaryType::Tq1_0, "TQ1_0"), (TernaryType::Tq2_0, "TQ2_0")] {
        let options = Options { ternary, ..Options::default() };
        let (gguf, report) = folder.convert(&original, "a.gguf", &options);
        for part in ["attn_q", "attn_k", "ffn_down", "ffn_up"] {
            assert_eq!(type_of(&report, &format!("blk.1.{part}.weight")), name);
        }
        assert!(report.tensors.iter().all(|t| !t.name.ends_with(".scale")));
        assert_same_weights(&original, &gguf);
        // The kernels of TQ rows add in another order than those of T-MAC rows.
        assert!(difference(&original, &gguf) < 1e-4);
        let (back, _) = folder.convert(&gguf, "b.tmac2.bin", &options);
        assert_same_weights(&original, &back);
    }
}

#[test]
fn int8_groups_become_q8_0_where_f16_holds_their_scales() {
    for group in [32, 64, 256] {
        let folder = Folder::new();
        let exact = int8(&folder, group, |random| f16::from_f32(random.scale()).to_f32());
        let (gguf, report) = folder.convert(&exact, "a.gguf", &Options::default());
        assert_eq!(type_of(&report, "blk.0.attn_q.weight"), "Q8_0");
        assert_same_weights(&exact, &gguf);

        let inexact = int8(&folder, group, Random::scale);
        let (gguf, report) = folder.convert(&inexact, "a.gguf", &Options::default());
        assert_eq!(type_of(&report, "blk.0.attn_q.weight"), "F32");
        assert_same_weights(&inexact, &gguf);
        let (floats, _) = folder.convert(&inexact, "b.bin", &Options::default());
        assert_same_weights(&inexact, &floats);
    }
}

#[test]
fn progress_names_every_tensor_once() {
    let folder = Folder::new();
    let original = tmac2(&folder);
    let mut seen = Vec::new();
    let target = quantize::convert::Target::Gguf;
    let mut progress = |name: &str, done: usize, total: usize| seen.push((name.to_owned(), done, total));
    let report = quantize::convert::convert(
        &original,
        &folder.path("a.gguf"),
        target,
        &Options::default(),
        &mut progress,
    )
    .unwrap();
    let total = report.tensors.len();
    let expected: Vec<_> =
        report.tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i, total)).collect();
    assert_eq!(seen, expected);
}
