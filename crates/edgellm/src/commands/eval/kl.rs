//! `edgellm eval kl`.

use anyhow::Result;
use engine::eval::kl;
use serde::Serialize;

use super::text_and_context;
use crate::args::KlArgs;
use crate::commands::load;
use crate::output::{self, Output};

#[derive(Serialize)]
struct Report {
    mean_kl: f64,
    p99_kl: f64,
    max_kl: f64,
    top1_agreement: f64,
    tokens: usize,
    perplexity: f64,
    reference_perplexity: f64,
}

/// Prints how far the model's distributions are from the reference's, or one object.
pub(super) fn run(args: &KlArgs, out: &mut Output) -> Result<()> {
    let model = load::model(&args.model)?;
    let reference = load::named_model(&args.reference, &args.model.run, None)?;
    let (text, context) = text_and_context(&args.text, &model)?;
    let progress = output::step_progress()?;
    let found = kl(&model, &reference, &text, context, &mut |done, all| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
    });
    progress.finish_and_clear();
    let found = found?;
    if args.json {
        return out.json(&Report {
            mean_kl: found.mean,
            p99_kl: found.p99,
            max_kl: found.max,
            top1_agreement: found.top1_agreement,
            tokens: found.tokens,
            perplexity: found.perplexity,
            reference_perplexity: found.reference_perplexity,
        });
    }
    out.line(&format!(
        "KL(reference || model)  mean {:.6}, 99th percentile {:.6}, largest {:.6} nats",
        found.mean, found.p99, found.max
    ))?;
    out.line(&format!("same most likely token  {:.3} %", found.top1_agreement * 100.0))?;
    out.line(&format!(
        "perplexity              {:.4}, reference {:.4}",
        found.perplexity, found.reference_perplexity
    ))?;
    out.line(&format!("scored                  {} tokens, context {context}", found.tokens))
}
