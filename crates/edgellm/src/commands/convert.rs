//! `edgellm convert`: a model in another container.

use anyhow::{Context, Result};
use engine::LoadOptions;
use quantize::convert::{ConvertError, Options, Report, Target, TernaryType, convert};
use serde::Serialize;

use super::load;
use crate::args::{ConvertArgs, Ternary};
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::resolve;

#[derive(Serialize)]
struct JsonReport<'r> {
    path: String,
    container: &'static str,
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
pub(crate) fn run(args: &ConvertArgs, out: &mut Output) -> Result<()> {
    let target = target(args)?;
    let options = Options {
        load: LoadOptions {
            tokenizer: args.tokenizer.clone(),
            chat_template: args.chat_template.as_deref().map(load::file).transpose()?,
            i2s_layout: args.i2s.map(load::i2s_layout),
            ..LoadOptions::default()
        },
        ternary: match args.ternary {
            Ternary::Tq1_0 => TernaryType::Tq1_0,
            Ternary::Tq2_0 => TernaryType::Tq2_0,
        },
        ..Options::default()
    };
    let input = resolve::model(&args.input)?;
    let progress = output::step_progress()?;
    let report = convert(&input, &args.output, target, &options, &mut |name, done, all| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
        progress.set_message(name.to_owned());
    });
    progress.finish_and_clear();
    match report {
        Ok(report) => print(args, target, &report, out),
        // What is wrong with the input names the input itself.
        Err(err @ ConvertError::Io(_)) => {
            Err(err).with_context(|| format!("{}: cannot write", args.output.display()))
        }
        Err(err) => Err(err.into()),
    }
}

fn print(args: &ConvertArgs, target: Target, report: &Report, out: &mut Output) -> Result<()> {
    let path = args.output.display().to_string();
    if !args.json {
        report.notes.iter().for_each(|note| output::note(note));
        return out.line(&path);
    }
    let tensors = report.tensors.iter().map(|t| Tensor {
        name: &t.name,
        shape: &t.shape,
        from: &t.from,
        to: &t.to,
        bytes: t.bytes,
    });
    let tensors = tensors.collect();
    out.json(&JsonReport { path, container: target.name(), notes: &report.notes, tensors })
}

/// The container that `--to` names, else the one that the name of the output asks for.
fn target(args: &ConvertArgs) -> Result<Target> {
    let known = || Target::ALL.map(|(name, _)| name).join(", ");
    match &args.to {
        Some(name) => Target::from_name(name).ok_or_else(|| {
            Failure::new(format!("--to {name}: no such container"), format!("known are {}", known())).into()
        }),
        None => Target::from_path(&args.output).ok_or_else(|| {
            let problem = format!("{}: the name does not tell the container", args.output.display());
            Failure::new(problem, format!("say it with --to: {}", known())).into()
        }),
    }
}
