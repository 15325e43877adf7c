//! Derivatives and optimizer steps against PyTorch's.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests stand outside #[test] functions"
)]

#[path = "../../engine/tests/data/mod.rs"]
mod data;
#[path = "../../kernels/tests/npz/mod.rs"]
mod npz;

use std::path::Path;

use kernels::gemm::Precision;
use npz::Npz;
use safetensors::SafeTensors;
use train::model::{Activation, Adapters, Batch, Layout, Network, Shape, Wanted};
use train::optimizer::{AdamW, AdamWOptions};
use train::peft;

/// What the golden files were trained on.
const IDS: [u32; 18] = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 411, 500, 511, 7, 9];

/// The seven linear layers.
const TARGETS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

/// The parameters of a folder in this layout.
fn parameters(folder: &Path, layout: &Layout) -> Vec<f32> {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut parameters = vec![f32::NAN; layout.len()];
    for tensor in &layout.tensors {
        parameters[tensor.range.clone()].copy_from_slice(&floats(&file, &tensor.name));
    }
    parameters
}

/// |a - b| / |b|, the norms over all elements.
fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut b.iter().map(|&b| f64::from(b)))
}

fn bitnet() -> Shape {
    Shape {
        dim: 64,
        hidden_dim: 192,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        vocab_size: 512,
        seq_len: 256,
        norm_eps: 1e-5,
        rope_theta: 500_000.0,
        activation: Activation::Relu2,
        sub_norms: true,
        tied: true,
        ternary: true,
    }
}

fn llama() -> Shape {
    Shape {
        hidden_dim: 176,
        rope_theta: 10_000.0,
        activation: Activation::Silu,
        sub_norms: false,
        tied: false,
        ternary: false,
        ..bitnet()
    }
}

/// Every derivative of the first step, and the losses of five, as `mk_golden.py` took them, within `bound`.
fn check(folder: &str, shape: Shape, recompute: bool, precision: Precision, bound: f64) {
    let Some(path) = data::path(folder) else { return };
    let mut golden = Npz::open_path(&path.join("train_ref.npz"));
    let mut network = Network::new(shape, 1, recompute).with_precision(precision);
    let layout = network.layout().clone();
    let mut values = parameters(&path, &layout);
    let batch = Batch::of_document(&IDS);
    let mut d = vec![f32::NAN; values.len()];
    let loss = network.run(&values, None, &batch, Wanted::Model(&mut d));
    let expected = f64::from(golden.f32s("loss0")[0]);
    assert!((loss - expected).abs() < bound / 10.0, "{folder}: loss {loss} for {expected}");
    let names: Vec<String> = golden.names().into_iter().filter(|n| n.starts_with("grad/")).collect();
    assert_eq!(names.len(), layout.tensors.len(), "{folder}: {names:?}");
    let mut worst = (0.0, String::new());
    for tensor in &layout.tensors {
        let expected = golden.f32s(&format!("grad/{}", tensor.name));
        let error = relative(&d[tensor.range.clone()], &expected);
        assert!(error < bound, "{folder} {}: {error:e}", tensor.name);
        if error > worst.0 {
            worst = (error, tensor.name.clone());
        }
    }
    let mut optimizer = AdamW::new(values.len(), AdamWOptions { beta1: 0.9, beta2: 0.95, eps: 1e-8 });
    let expected = golden.f32s("adamw_losses");
    let mut losses = Vec::new();
    for _ in 1..expected.len() {
        losses.push(network.run(&values, None, &batch, Wanted::Model(&mut d)) as f32);
        optimizer.begin_step();
        optimizer.update(0, &mut values, &d, 1e-3, 0.1);
    }
    losses.push(network.run(&values, None, &batch, Wanted::Loss) as f32);
    println!("{folder}: worst derivative {worst:?}; losses {losses:?} for {expected:?}");
    for (got, want) in losses.iter().zip(&expected) {
        assert!(
            f64::from((got - want).abs()) < bound * f64::from(*want),
            "{folder}: {losses:?} for {expected:?}"
        );
    }
}

#[test]
fn bitnets_derivatives_and_losses_are_those_of_transformers() {
    check("golden/bitnet-tiny64/online-f32", bitnet(), false, Precision::F32, 1e-3);
    check("golden/bitnet-tiny64/online-f32", bitnet(), true, Precision::F32, 1e-3);
}

#[test]
fn llamas_derivatives_and_losses_are_those_of_transformers() {
    check("golden/llama-tiny64", llama(), false, Precision::F32, 1e-3);
    check("golden/llama-tiny64", llama(), true, Precision::F32, 1e-3);
}

/// Factors of 8 bits make an error of up to 1 in 512 in each of the dozen products that follow each other. A ternary model rounds its
/// activations besides, which such an error may move to the next of their 255 levels.
#[test]
fn derivatives_in_bf16_are_near_those_in_f32() {
    check("golden/llama-tiny64", llama(), false, Precision::Bf16, 2e-2);
    check("golden/bitnet-tiny64/online-f32", bitnet(), false, Precision::Bf16, 1e-1);
}

/// Along random directions, tensor by tensor, of a model without rounding: two documents in a sequence, positions that do
/// not count, several threads.
#[test]
fn derivatives_are_those_of_finite_differences() {
    let shape = Shape { dim: 16, hidden_dim: 24, vocab_size: 40, seq_len: 12, ..llama() };
    let mut network = Network::new(shape, 2, true);
    let layout = network.layout().clone();
    let noise = |i: usize, by: f64| ((i as f64 * by).sin() * 43_758.545_3).fract() as f32;
    let mut values: Vec<f32> = (0..layout.len()).map(|i| noise(i + 1, 12.9898) * 0.4).collect();
    for tensor in layout.tensors.iter().filter(|t| t.rows == 1) {
        values[tensor.range.clone()].iter_mut().for_each(|w| *w += 1.0);
    }
    let n = 36;
    let batch = Batch {
        seq_len: 12,
        inputs: (0..n).map(|i| (i * 17 % 40) as u32).collect(),
        targets: (0..n).map(|i| (i * 23 % 40) as u32).collect(),
        weights: (0..n).map(|i| [1.0, 0.0, 0.5][i % 3]).collect(),
        starts: (0..n).map(|i| if i % 12 < 5 { 0 } else { 5 }).collect(),
    };
    let mut d = vec![f32::NAN; values.len()];
    network.run(&values, None, &batch, Wanted::Model(&mut d));
    for tensor in &layout.tensors {
        let direction: Vec<f32> = (0..tensor.range.len()).map(|i| noise(i + 7, 78.233)).collect();
        let length = direction.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let pairs = d[tensor.range.clone()].iter().zip(&direction);
        let expected: f64 = pairs.map(|(d, v)| f64::from(*d) * f64::from(*v)).sum();
        let step = 0.02 / length;
        let mut loss_at = |by: f64| {
            let mut moved = values.clone();
            for (w, v) in moved[tensor.range.clone()].iter_mut().zip(&direction) {
                *w += (by * f64::from(*v)) as f32;
            }
            network.run(&moved, None, &batch, Wanted::Loss)
        };
        let found = (loss_at(step) - loss_at(-step)) / (2.0 * step);
        let norm = d[tensor.range.clone()].iter().map(|d| f64::from(*d).powi(2)).sum::<f64>().sqrt();
        let error = (found - expected).abs() / (norm * length);
        println!("{}: {found} for {expected}, {error:e} of |d| |v|", tensor.name);
        assert!(error < 5e-5, "{}: {found} for {expected}", tensor.name);
    }
}

#[test]
fn adapters_derivatives_losses_and_logits_are_those_of_peft() {
    let Some(folder) = data::path("golden/stories260K-lora") else { return };
    let Some(base) = data::path("golden/stories260K-hf") else { return };
    let mut golden = Npz::open_path(&folder.join("golden.npz"));
    let shape = Shape {
        n_layers: 5,
        n_heads: 8,
        n_kv_heads: 4,
        hidden_dim: 172,
        seq_len: 512,
        tied: true,
        ..llama()
    };
    let mut network = Network::new(shape, 1, false);
    let layout = network.layout().clone();
    let frozen = parameters(&base, &layout);
    let adapters = Adapters::new(&layout, 4, 8.0, &TARGETS.map(str::to_owned));
    let load = |name: &str| {
        let bytes = std::fs::read(folder.join(name).join("adapter_model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut values = vec![f32::NAN; adapters.len()];
        for (name, _, _, range) in adapters.tensors() {
            values[range].copy_from_slice(&floats(&file, &format!("base_model.model.{name}")));
        }
        values
    };
    let mut values = load("adapter_init");
    let batch = Batch::of_document(&golden.u32s("train_ids"));
    let mut d = vec![f32::NAN; values.len()];
    let loss = network.run(&frozen, Some((&adapters, &values)), &batch, Wanted::Adapters(&mut d));
    assert!((loss - f64::from(golden.f32s("loss0")[0])).abs() < 1e-4, "{loss}");
    for (name, _, _, range) in adapters.tensors() {
        let error = relative(&d[range], &golden.f32s(&format!("grad/{name}")));
        assert!(error < 1e-3, "{name}: {error:e}");
    }
    let mut optimizer = AdamW::new(values.len(), AdamWOptions { beta1: 0.9, beta2: 0.999, eps: 1e-8 });
    let expected = golden.f32s("losses");
    let mut losses = Vec::new();
    for _ in 1..expected.len() {
        let adapters = Some((&adapters, &values[..]));
        losses.push(network.run(&frozen, adapters, &batch, Wanted::Adapters(&mut d)) as f32);
        optimizer.begin_step();
        optimizer.update(0, &mut values, &d, 1e-2, 0.0);
    }
    losses.push(network.run(&frozen, Some((&adapters, &values)), &batch, Wanted::Loss) as f32);
    println!("losses {losses:?} for {expected:?}");
    for (got, want) in losses.iter().zip(&expected) {
        assert!((got - want).abs() < 1e-3 * want, "{losses:?} for {expected:?}");
    }
    let trained = load("adapter_trained");
    let (read, read_values) = peft::load(&folder.join("adapter_trained"), &layout).unwrap();
    assert!(read == adapters && read_values == trained);
    let written = tempfile::tempdir().unwrap();
    peft::save(written.path(), &adapters, &values, "stories260K").unwrap();
    assert_eq!(peft::load(written.path(), &layout).unwrap(), (adapters.clone(), values.clone()));
    assert!(relative(&values, &trained) < 1e-3, "{:e}", relative(&values, &trained));
    let mut merged = frozen.clone();
    adapters.merge(&trained, &layout, &mut merged);
    let loss = network.run(&merged, None, &batch, Wanted::Loss) as f32;
    let last = expected[expected.len() - 1];
    assert!((loss - last).abs() < 1e-3 * last, "merged: {loss} for {last}");
}
