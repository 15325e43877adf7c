//! `edgellm calibrate`: what a model's linear layers see of a text.

use anyhow::Result;
use engine::LoadOptions;
use quantize::calibrate::{Text, collect};
use serde::Serialize;

use super::load;
use crate::args::CalibrateArgs;
use crate::output::{self, Output};
use crate::resolve;

#[derive(Serialize)]
struct Report {
    path: String,
    samples: usize,
    tokens: usize,
}

/// Writes the file and prints its path, or one object.
pub(crate) fn run(args: &CalibrateArgs, out: &mut Output) -> Result<()> {
    let text = Text {
        text: match &args.calibration_data {
            Some(file) => load::file(file)?,
            None => Text::shipped().text,
        },
        samples: args.num_samples,
        tokens: args.sample_tokens,
    };
    let load =
        LoadOptions { tokenizer: args.tokenizer.clone(), threads: args.threads, ..LoadOptions::default() };
    let input = resolve::model(&args.input)?;
    let progress = output::step_progress()?;
    let collected = collect(&input, &args.output, &text, &load, &mut |name, done, all| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
        progress.set_message(name.to_owned());
    });
    progress.finish_and_clear();
    let collected = collected?;
    let path = args.output.display().to_string();
    if args.json {
        return out.json(&Report { path, samples: collected.samples, tokens: collected.tokens });
    }
    out.line(&path)
}
