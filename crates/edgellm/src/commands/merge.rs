//! `edgellm merge`: an adapter added to the weights.

use anyhow::{Context, Result};
use engine::LoadOptions;
use quantize::convert::{ConvertError, Options, Target, write};
use train::base::{FloatType, merged};

use super::load;
use crate::args::{FloatArg, MergeArgs};
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::resolve;

/// Writes the file and prints its path.
pub(crate) fn run(args: &MergeArgs, out: &mut Output) -> Result<()> {
    let target = Target::from_path(&args.output).ok_or_else(|| {
        let problem = format!("{}: the name does not tell the container", args.output.display());
        Failure::new(problem, "take a name that ends in .gguf")
    })?;
    let input = resolve::model(&args.base_model)?;
    let load = LoadOptions {
        tokenizer: args.tokenizer.clone(),
        chat_template: args.chat_template.as_deref().map(load::file).transpose()?,
        ..LoadOptions::default()
    };
    let float = match args.dtype {
        FloatArg::F32 => FloatType::F32,
        FloatArg::F16 => FloatType::F16,
        FloatArg::Bf16 => FloatType::BF16,
    };
    let model = merged(&input, &load, &args.adapter, float)?;
    let progress = output::step_progress()?;
    let options = Options { load, ..Options::default() };
    let report = write(&model, &input, &args.output, target, &options, &mut |name, done, all| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
        progress.set_message(name.to_owned());
    });
    progress.finish_and_clear();
    let report = match report {
        Err(err @ ConvertError::Io(_)) => {
            return Err(err).with_context(|| format!("{}: cannot write", args.output.display()));
        }
        report => report?,
    };
    report.notes.iter().for_each(|note| output::note(note));
    out.line(&args.output.display().to_string())
}
