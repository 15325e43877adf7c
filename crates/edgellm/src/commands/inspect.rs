//! `edgellm inspect`: what a model file is and what it needs.

use anyhow::Result;
use engine::{LoadOptions, MemoryEstimate, Model};
use serde::Serialize;

use super::load;
use crate::args::InspectArgs;
use crate::output::Output;
use crate::resolve;

/// Longest context that the memory figure is given for unless another is asked for.
const DEFAULT_CONTEXT: usize = 4096;

#[derive(Serialize)]
struct Report<'m> {
    path: String,
    format: &'m str,
    architecture: &'static str,
    file_bytes: u64,
    parameters: u64,
    config: Config,
    tokenizer: Option<Tokenizer>,
    chat_template: bool,
    memory: Memory,
    tensors: Vec<Tensor<'m>>,
}

#[derive(Serialize)]
struct Config {
    dim: usize,
    hidden_dim: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    seq_len: usize,
    norm_eps: f32,
    rope_theta: f32,
}

#[derive(Serialize)]
struct Tokenizer {
    kind: String,
    vocab_size: usize,
    bos: Option<u32>,
    eos: Vec<u32>,
}

#[derive(Serialize)]
struct Memory {
    context: usize,
    mapped: u64,
    repacked: u64,
    kv_cache: u64,
    buffers: u64,
    tokenizer: u64,
    program: u64,
    total: u64,
}

#[derive(Serialize)]
struct Tensor<'m> {
    name: &'m str,
    shape: &'m [u64],
    #[serde(rename = "type")]
    type_name: &'m str,
    bytes: u64,
}

/// Prints a summary and one line a tensor, or one object.
pub(crate) fn run(args: &InspectArgs, out: &mut Output) -> Result<()> {
    let options = LoadOptions { only_described: true, ..load::options(&args.model.run, None) };
    let model = Model::load(&resolve::model(&args.model.model)?, &options)?;
    let context = args.context.unwrap_or(model.config.seq_len.min(DEFAULT_CONTEXT));
    let report = Report::new(&model, context);
    if args.json { out.json(&report) } else { print(&report, out) }
}

impl<'m> Report<'m> {
    fn new(model: &'m Model, context: usize) -> Self {
        let (config, info) = (&model.config, &model.info);
        let tensors = info.tensors.iter().map(|tensor| Tensor {
            name: &tensor.name,
            shape: &tensor.shape,
            type_name: &tensor.type_name,
            bytes: tensor.bytes,
        });
        Self {
            path: info.path.display().to_string(),
            format: &info.format,
            architecture: config.architecture.name(),
            file_bytes: info.file_bytes,
            parameters: info.parameters,
            config: Config {
                dim: config.dim,
                hidden_dim: config.hidden_dim,
                n_layers: config.n_layers,
                n_heads: config.n_heads,
                n_kv_heads: config.n_kv_heads,
                head_dim: config.head_dim,
                vocab_size: config.vocab_size,
                seq_len: config.seq_len,
                norm_eps: config.norm_eps,
                rope_theta: config.rope.theta,
            },
            tokenizer: model.tokenizer.as_ref().map(|tokenizer| Tokenizer {
                kind: format!("{:?}", tokenizer.kind()).to_lowercase(),
                vocab_size: tokenizer.vocab_size(),
                bos: tokenizer.bos(),
                eos: tokenizer.eos().to_vec(),
            }),
            chat_template: model.chat_template.is_some(),
            memory: Memory::new(context, model.memory(context)),
            tensors: tensors.collect(),
        }
    }
}

impl Memory {
    fn new(context: usize, estimate: MemoryEstimate) -> Self {
        Self {
            context,
            mapped: estimate.mapped,
            repacked: estimate.repacked,
            kv_cache: estimate.kv_cache,
            buffers: estimate.buffers,
            tokenizer: estimate.tokenizer,
            program: estimate.program,
            total: estimate.total(),
        }
    }
}

fn print(report: &Report<'_>, out: &mut Output) -> Result<()> {
    let c = &report.config;
    let m = &report.memory;
    let tokenizer = report.tokenizer.as_ref().map_or("none".to_owned(), |t| {
        format!("{}, {} tokens, bos {:?}, eos {:?}", t.kind, t.vocab_size, t.bos, t.eos)
    });
    for (name, value) in [
        ("path", report.path.clone()),
        ("format", report.format.to_owned()),
        ("architecture", report.architecture.to_owned()),
        ("parameters", report.parameters.to_string()),
        ("file", size(report.file_bytes)),
        ("dim", c.dim.to_string()),
        ("hidden_dim", c.hidden_dim.to_string()),
        ("n_layers", c.n_layers.to_string()),
        ("n_heads", format!("{} of {}, {} for keys and values", c.n_heads, c.head_dim, c.n_kv_heads)),
        ("vocab_size", c.vocab_size.to_string()),
        ("seq_len", c.seq_len.to_string()),
        ("norm_eps", format!("{:e}", c.norm_eps)),
        ("rope_theta", c.rope_theta.to_string()),
        ("tokenizer", tokenizer),
        ("chat template", if report.chat_template { "yes" } else { "no" }.to_owned()),
    ] {
        out.line(&format!("{name:<14} {value}"))?;
    }
    out.line(&format!("memory         {} at a context of {}:", size(m.total), m.context))?;
    for (name, bytes) in [
        ("weights in the mapped file", m.mapped),
        ("weights repacked", m.repacked),
        ("KV cache", m.kv_cache),
        ("buffers", m.buffers),
        ("tokenizer", m.tokenizer),
        ("program", m.program),
    ] {
        out.line(&format!("  {name:<27} {}", size(bytes)))?;
    }
    out.line(&format!("tensors        {}", report.tensors.len()))?;
    for tensor in &report.tensors {
        let shape = tensor.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
        out.line(&format!("  {:<44} {:<18} {:<10} {}", tensor.name, shape, tensor.type_name, tensor.bytes))?;
    }
    Ok(())
}

/// Bytes, with a unit where they are many.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
