//! `edgellm eval perplexity`.

use anyhow::Result;
use engine::eval::{Stride, perplexity};
use serde::Serialize;

use super::text_and_context;
use crate::args::{PerplexityArgs, StrideArg};
use crate::commands::load;
use crate::output::{self, Output};

#[derive(Serialize)]
struct Report {
    perplexity: f64,
    nll: f64,
    tokens: usize,
    bytes: usize,
    bits_per_byte: f64,
}

/// Prints the perplexity, or one object.
pub(super) fn run(args: &PerplexityArgs, out: &mut Output) -> Result<()> {
    let model = load::model(&args.model)?;
    let (text, context) = text_and_context(&args.text, &model)?;
    let stride = match args.stride {
        StrideArg::Half => Stride::Half,
        StrideArg::Full => Stride::Full,
    };
    let progress = output::step_progress()?;
    let found = perplexity(&model, &text, context, stride, &mut |done, all, so_far| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
        progress.set_message(format!("perplexity {so_far:.4}"));
    });
    progress.finish_and_clear();
    let found = found?;
    if args.json {
        return out.json(&Report {
            perplexity: found.perplexity,
            nll: found.nll,
            tokens: found.tokens,
            bytes: found.bytes,
            bits_per_byte: found.bits_per_byte,
        });
    }
    out.line(&format!("perplexity     {:.4}", found.perplexity))?;
    out.line(&format!("nll            {:.6} nats a token", found.nll))?;
    out.line(&format!("scored         {} tokens, {} bytes, context {context}", found.tokens, found.bytes))?;
    out.line(&format!("bits per byte  {:.4}", found.bits_per_byte))
}
