//! Times one step of training: `step DIM LAYERS HIDDEN HEADS VOCAB SEQ BATCH THREADS ternary|float [f32|bf16]`.

use std::io::Write;
use std::time::Instant;

use kernels::gemm::Precision;
use train::model::{Activation, Batch, Network, Shape, Wanted};
use train::optimizer::{AdamW, AdamWOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args.get(i).and_then(|a| a.parse().ok()).ok_or("usage: see the source");
    let ternary = args.get(8).is_some_and(|kind| kind == "ternary");
    let shape = Shape {
        dim: number(0)?,
        n_layers: number(1)?,
        hidden_dim: number(2)?,
        n_heads: number(3)?,
        n_kv_heads: number(3)?,
        vocab_size: number(4)?,
        seq_len: number(5)?,
        norm_eps: 1e-5,
        rope_theta: 1e4,
        activation: if ternary { Activation::Relu2 } else { Activation::Silu },
        sub_norms: ternary,
        tied: true,
        ternary,
    };
    shape.check()?;
    let (seq_len, sequences, threads) = (shape.seq_len, number(6)?, number(7)?);
    let vocab = shape.vocab_size;
    let bf16 = args.get(9).is_some_and(|precision| precision == "bf16");
    let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
    let mut network = Network::new(shape, threads, false).with_precision(precision);
    let len = network.layout().len();
    let mut parameters: Vec<f32> = (0..len).map(|i| (i as f32 * 0.618).sin() * 0.05).collect();
    for tensor in network.layout().tensors.iter().filter(|t| t.rows == 1) {
        parameters[tensor.range.clone()].fill(1.0);
    }
    let n = seq_len * sequences;
    let batch = Batch {
        seq_len,
        inputs: (0..n).map(|i| (i * 7919 % vocab) as u32).collect(),
        targets: (0..n).map(|i| ((i + 1) * 7919 % vocab) as u32).collect(),
        weights: vec![1.0; n],
        starts: vec![0; n],
    };
    let mut d = vec![0.0; len];
    let mut optimizer = AdamW::new(len, AdamWOptions::default());
    let mut best = f64::INFINITY;
    let mut loss = 0.0;
    for _ in 0..8 {
        let start = Instant::now();
        loss = network.run(&parameters, None, &batch, Wanted::Model(&mut d));
        optimizer.begin_step();
        optimizer.update(0, &mut parameters, &d, 1e-3, 0.1);
        best = best.min(start.elapsed().as_secs_f64());
    }
    writeln!(
        std::io::stdout(),
        "{len} parameters, {threads} threads: {:.0} ms a step, {:.0} tokens/s, loss {loss:.4}",
        best * 1e3,
        n as f64 / best
    )?;
    Ok(())
}
