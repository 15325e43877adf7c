//! `edgellm quantize`: a model with its matrices rounded to fewer bits.

use std::time::Instant;

use anyhow::{Context, Result};
use engine::LoadOptions;
use quantize::calibrate::{Statistics, Text};
use quantize::convert::ConvertError;
use quantize::quantize::{Format, Method, Options, QuantizeError, Summary, VOCABULARY_TYPES, quantize};
use serde::Serialize;

use super::{load, system};
use crate::args::QuantizeArgs;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::resolve;

#[derive(Serialize)]
struct Report<'r> {
    path: String,
    container: &'static str,
    format: &'static str,
    method: &'static str,
    /// Of a weight in the linear layers.
    bits: f64,
    seconds: f64,
    /// Bytes; null where the system does not say.
    peak_memory: Option<u64>,
    resumed: usize,
    notes: &'r [String],
    tensors: Vec<Tensor<'r>>,
}

#[derive(Serialize)]
struct Tensor<'r> {
    name: &'r str,
    shape: &'r [u64],
    from: &'r str,
    to: &'r str,
    bytes: u64,
}

/// Writes the file and prints its path, or one object.
pub(crate) fn run(args: &QuantizeArgs, out: &mut Output) -> Result<()> {
    let options = options(args)?;
    let input = resolve::model(&args.input)?;
    let (start, progress) = (Instant::now(), output::step_progress()?);
    let summary = quantize(&input, &args.output, &options, &mut |name, done, all| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
        progress.set_message(name.to_owned());
    });
    progress.finish_and_clear();
    match summary {
        Ok(summary) => print(args, &options, &summary, start.elapsed().as_secs_f64(), out),
        Err(err @ QuantizeError::Convert(ConvertError::Io(_))) => {
            Err(err).with_context(|| format!("{}: cannot write", args.output.display()))
        }
        Err(err) => Err(err.into()),
    }
}

fn options(args: &QuantizeArgs) -> Result<Options> {
    let of = |option: &'static str, value: &str, known: Vec<&str>| {
        Failure::new(
            format!("--{option} {value}: no such {option}"),
            format!("known are {}", known.join(", ")),
        )
    };
    let format = Format::from_name(&args.format)
        .ok_or_else(|| of("format", &args.format, Format::ALL.map(|(name, _)| name).to_vec()))?;
    let method = Method::from_name(&args.method)
        .ok_or_else(|| of("method", &args.method, Method::ALL.map(|(name, _)| name).to_vec()))?;
    let vocabulary_type = |option: &'static str, value: &Option<String>| match value {
        None => Ok(None),
        Some(value) => match VOCABULARY_TYPES.iter().find(|(name, _)| name == value) {
            Some(&(_, row_type)) => Ok(row_type),
            None => Err(of(option, value, VOCABULARY_TYPES.map(|(name, _)| name).to_vec())),
        },
    };
    Ok(Options {
        load: LoadOptions {
            tokenizer: args.tokenizer.clone(),
            chat_template: args.chat_template.as_deref().map(load::file).transpose()?,
            i2s_layout: args.i2s.map(load::i2s_layout),
            threads: args.threads,
            ..LoadOptions::default()
        },
        method,
        text: Text {
            text: match &args.calibration_data {
                Some(file) => load::file(file)?,
                None => Text::shipped().text,
            },
            samples: args.num_samples,
            tokens: args.sample_tokens,
        },
        statistics: args.calibration.as_deref().map(Statistics::open).transpose()?,
        embedding: vocabulary_type("embedding", &args.embedding)?,
        head: vocabulary_type("head", &args.head)?,
        planes: args.planes,
        bits: args.bits,
        force: args.force,
        ..Options::new(format)
    })
}

fn print(
    args: &QuantizeArgs,
    options: &Options,
    summary: &Summary,
    seconds: f64,
    out: &mut Output,
) -> Result<()> {
    let path = args.output.display().to_string();
    let peak_memory = system::peak_memory();
    if !args.json {
        summary.report.notes.iter().for_each(|note| output::note(note));
        let memory = peak_memory.map_or(String::new(), |bytes| format!(", {} MiB at most", bytes >> 20));
        output::note(&format!(
            "{:.3} bits a weight in the linear layers, {seconds:.1} s{memory}",
            summary.bits
        ));
        return out.line(&path);
    }
    let tensors = summary.report.tensors.iter().map(|t| Tensor {
        name: &t.name,
        shape: &t.shape,
        from: &t.from,
        to: &t.to,
        bytes: t.bytes,
    });
    out.json(&Report {
        path,
        container: summary.container,
        format: options.format.name(),
        method: options.method.name(),
        bits: summary.bits,
        seconds,
        peak_memory,
        resumed: summary.resumed,
        notes: &summary.report.notes,
        tensors: tensors.collect(),
    })
}
