//! `edgellm eval`: how good a model is.

mod choice;
mod kl;
mod logits;
mod npy;
mod perplexity;

use anyhow::Result;
use engine::Model;

use super::load;
use crate::args::{EvalArgs, EvalText, Measure};
use crate::output::Output;

/// Tokens of a chunk unless the user says otherwise: llama.cpp's.
const DEFAULT_CONTEXT: usize = 512;

/// Takes a measure.
pub(crate) fn run(args: &EvalArgs, out: &mut Output) -> Result<()> {
    match &args.measure {
        Measure::Perplexity(args) => perplexity::run(args, out),
        Measure::Logits(args) => logits::run(args),
        Measure::Kl(args) => kl::run(args, out),
        Measure::Choice(args) => choice::run(args, out),
    }
}

/// The text and the context that it is measured with.
fn text_and_context(args: &EvalText, model: &Model) -> Result<(String, usize)> {
    let text = load::file(&args.file)?;
    Ok((text, args.context.unwrap_or(DEFAULT_CONTEXT.min(model.config.seq_len))))
}
