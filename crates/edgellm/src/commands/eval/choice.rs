//! `edgellm eval choice`.

use anyhow::{Context, Result};
use engine::eval::{ChoiceError, Choices, Share, choice, parse_questions};
use serde::Serialize;

use crate::args::ChoiceArgs;
use crate::commands::load;
use crate::output::{self, Output};

#[derive(Serialize)]
struct Report {
    accuracy: f64,
    accuracy_stderr: Option<f64>,
    accuracy_per_byte: f64,
    accuracy_per_byte_stderr: Option<f64>,
    chance: f64,
    questions: usize,
}

/// Prints the share of right answers, or one object.
pub(super) fn run(args: &ChoiceArgs, out: &mut Output) -> Result<()> {
    let name = || args.file.display().to_string();
    let bytes = std::fs::read(&args.file).with_context(|| format!("{}: cannot read", name()))?;
    // A line that is no question is told before a model is loaded.
    let mut questions = parse_questions(&bytes).with_context(name)?;
    questions.truncate(args.limit.unwrap_or(usize::MAX));
    let model = load::model(&args.model)?;
    let progress = output::step_progress()?;
    let found = choice(&model, &questions, &mut |done, all, right| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
        progress.set_message(format!("right {:.1} %", right * 100.0));
    });
    progress.finish_and_clear();
    let found = match found {
        Ok(found) => found,
        Err(err @ ChoiceError::Row(_)) => return Err(err).with_context(name),
        Err(err) => return Err(err.into()),
    };
    print(args, &found, questions.len(), out)
}

fn print(args: &ChoiceArgs, found: &Choices, questions: usize, out: &mut Output) -> Result<()> {
    let (raw, per_byte) = (found.accuracy, found.accuracy_per_byte);
    if args.json {
        return out.json(&Report {
            accuracy: raw.mean,
            accuracy_stderr: raw.standard_error,
            accuracy_per_byte: per_byte.mean,
            accuracy_per_byte_stderr: per_byte.standard_error,
            chance: found.chance,
            questions,
        });
    }
    let percent = |share: Share| match share.standard_error {
        Some(error) => format!("{:.2} % +- {:.2}", share.mean * 100.0, error * 100.0),
        None => format!("{:.2} %", share.mean * 100.0),
    };
    out.line(&format!("accuracy           {}", percent(raw)))?;
    out.line(&format!("accuracy per byte  {}", percent(per_byte)))?;
    out.line(&format!("guessing           {:.2} %", found.chance * 100.0))?;
    out.line(&format!("questions          {questions}"))
}
