//! `edgellm benchmark`: how fast a model runs.

mod measure;
mod page;
mod report;
mod table;
mod variants;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engine::eval::{Stride, perplexity};
use engine::synthetic::{Shape, Synthetic};
use engine::{Model, StoredType};

use super::{html, load, system};
use crate::args::{BenchmarkArgs, ShapeArg, TypeArg};
use crate::output::Output;
use crate::resolve;
use measure::{Plan, measure};
use report::{ProfileReport, Report, rounded};

/// Lengths unless the user says otherwise: those that other engines' tools report.
const PROMPT_LENGTHS: [usize; 2] = [128, 512];
const DECODE_LENGTHS: [usize; 1] = [128];
const BATCH_SIZES: [usize; 1] = [1];

/// Tokens of a chunk for the perplexity: llama.cpp's.
const PERPLEXITY_CONTEXT: usize = 512;

/// Measures and prints a table, or one object.
pub(crate) fn run(args: &BenchmarkArgs, out: &mut Output) -> Result<()> {
    if args.all {
        return variants::run(args, out);
    }
    // A file that cannot be read is told before the measurements, not after.
    let other = args.compare.as_deref().map(earlier).transpose()?;
    let (model, load) = model(args)?;
    let plan = plan(args, model.config.seq_len);
    let measured = measure(&model, &plan)?;
    let mut report = Report::new(&model, &plan, &measured, load);
    if args.with_size {
        report.size_mb = Some(rounded(model.info.file_bytes as f64 / 1e6));
    }
    if let Some(text) = &args.text {
        let text = load::file(text)?;
        let context = PERPLEXITY_CONTEXT.min(model.config.seq_len);
        let found = perplexity(&model, &text, context, Stride::Half, &mut |_, _, _| {})?;
        report.perplexity = Some(found.perplexity);
    }
    if let Some(path) = &args.html {
        let page = page::render(&report, &plan, &measured, other.as_ref())?;
        html::write(path, &page)?;
    }
    if args.json {
        report.profile = ProfileReport::new(&measured);
        return out.json(&report);
    }
    table::print(&report, &plan, &measured, out)?;
    if let Some(profile) = ProfileReport::new(&measured) {
        table::print_profile(&profile, out)?;
    }
    match &other {
        Some(other) => table::compare(&report, other, out),
        None => Ok(()),
    }
}

/// The model, and the time that it took to load or to make.
fn model(args: &BenchmarkArgs) -> Result<(Model, Duration)> {
    let started = Instant::now();
    let options = load::options(&args.run, None);
    if let Some(shape) = args.synthetic {
        let (shape, layers) = (shape.engine(), args.layers.engine());
        let head = args.head.map_or_else(|| shape.default_head(layers), TypeArg::engine);
        let model = Model::synthetic(Synthetic { shape, layers, head }, &options)?;
        return Ok((model, started.elapsed()));
    }
    let path = resolve::model(args.model.as_deref().unwrap_or_default())?;
    let Some(layers) = args.stored_as.map(TypeArg::engine) else {
        let model = Model::load(&path, &options)?;
        return Ok((model, started.elapsed()));
    };
    let head = if matches!(layers, StoredType::F32 | StoredType::F16) { layers } else { StoredType::Int8 };
    let model = Model::load_rounded(&path, layers, head, &options)?;
    let loaded = started.elapsed();
    // The memory that counts is that of running the rounded model, not of rounding it.
    system::forget_peak_memory();
    Ok((model, loaded))
}

/// The lengths that were asked for; those that are taken by default shrink to what the model was made for.
fn plan(args: &BenchmarkArgs, seq_len: usize) -> Plan {
    let lengths = |given: &Option<Vec<usize>>, usual: &[usize]| {
        let mut lengths = given.clone().unwrap_or_else(|| usual.iter().map(|&n| n.min(seq_len)).collect());
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    };
    Plan {
        prompt_lengths: lengths(&args.prompt_lengths, &PROMPT_LENGTHS),
        decode_lengths: lengths(&args.decode_lengths, &DECODE_LENGTHS),
        depth: args.depth,
        batch_sizes: lengths(&args.batch_sizes, &BATCH_SIZES),
        repeat: args.repeat,
        profile: args.profile,
        bandwidth_mb: args.bandwidth_mb,
    }
}

/// The figures of an earlier run.
fn earlier(path: &Path) -> Result<Report> {
    serde_json::from_str(&load::file(path)?)
        .with_context(|| format!("{}: not the output of edgellm benchmark --json", path.display()))
}

impl ShapeArg {
    fn engine(self) -> Shape {
        match self {
            Self::Bitnet2b => Shape::Bitnet2b,
            Self::Llama1b => Shape::Llama1b,
            Self::Stories110m => Shape::Stories110m,
            Self::Smollm135m => Shape::Smollm135m,
        }
    }
}

impl TypeArg {
    fn engine(self) -> StoredType {
        match self {
            Self::F32 => StoredType::F32,
            Self::F16 => StoredType::F16,
            Self::Int8 => StoredType::Int8,
            Self::Q6K => StoredType::Q6K,
            Self::Int4 => StoredType::Int4,
            Self::Ternary => StoredType::Ternary,
            Self::Tmac1 => StoredType::TmacV1,
        }
    }
}
