//! `edgellm generate`: prompt in, text out.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use engine::generate::{GenerateOptions, Generated, Timings, generate};
use engine::tokenizer::EncodeOptions;
use engine::{Model, Sequence};
use serde::Serialize;

use super::load;
use crate::args::GenerateArgs;
use crate::output::{self, Output};

/// Streams prompt and continuation, or prints one object at the end.
pub(crate) fn run(args: &GenerateArgs, out: &mut Output) -> Result<()> {
    let started = Instant::now();
    let model = load::model(&args.model)?;
    let load = started.elapsed();
    let (prompt, prompt_ids) = prompt(args, &model)?;
    let options = GenerateOptions {
        max_tokens: Some(args.max_tokens),
        sampling: load::sampling(&args.sampling),
        stop: args.sampling.stop.clone(),
        ignore_eos: args.ignore_eos,
        draft: args.draft.into(),
    };
    // The last token is not run, so prompt + n positions are more than enough.
    let needed = prompt_ids.len().saturating_add(args.max_tokens);
    let mut sequence = Sequence::new(&model, needed.clamp(1, model.config.seq_len))?;
    load::note_refused(&sequence);
    if !args.json {
        out.bytes(prompt.as_bytes())?;
        out.flush()?;
    }
    let mut broken = Ok(());
    let generated = generate(&model, &mut sequence, &prompt_ids, &options, &mut |step| {
        if args.json || step.text.is_empty() {
            return ControlFlow::Continue(());
        }
        broken = out.bytes(step.text.as_bytes()).and_then(|()| out.flush());
        if broken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    broken?;
    load::note_seed(&options.sampling);
    if args.json {
        return out.json(&Report::new(prompt_ids, generated, load, args.draft > 0));
    }
    out.line("")?;
    out.flush()?;
    note_timings(&generated.timings, load, model.threads());
    Ok(())
}

/// The prompt as text and as ids.
fn prompt(args: &GenerateArgs, model: &Model) -> Result<(String, Vec<u32>)> {
    if let Some(ids) = &args.ids {
        let known = |&id: &u32| model.tokenizer.as_ref().is_some_and(|t| (id as usize) < t.vocab_size());
        let texts: Vec<u32> = ids.iter().copied().filter(known).collect();
        let text = model.tokenizer.as_ref().map(|t| t.decode(&texts)).transpose()?;
        return Ok((text.unwrap_or_default(), ids.clone()));
    }
    let text = load::text(args.prompt.as_deref().unwrap_or_default())?;
    let options = EncodeOptions { add_special: true, parse_special: true };
    let ids = model.need_tokenizer()?.encode(&text, options)?;
    Ok((text, ids))
}

fn note_timings(timings: &Timings, load: Duration, threads: usize) {
    output::note(&format!(
        "load {:.0} ms, first token {:.0} ms, prompt {} tokens at {:.1} tok/s, then {} tokens at {:.1} tok/s, {threads} threads",
        milliseconds(load),
        milliseconds(timings.ttft),
        timings.prefill_tokens,
        timings.prefill_tok_s(),
        timings.decode_tokens,
        timings.decode_tok_s(),
    ));
    if timings.drafted > 0 {
        output::note(&format!("{} of {} guessed tokens were right", timings.accepted, timings.drafted));
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The object of `--json`.
#[derive(Serialize)]
struct Report {
    prompt_ids: Vec<u32>,
    ids: Vec<u32>,
    text: String,
    finish_reason: &'static str,
    timings: ReportTimings,
}

#[derive(Serialize)]
struct ReportTimings {
    load_ms: f64,
    prefill_tok_s: f64,
    decode_tok_s: f64,
    ttft_ms: f64,
    /// With `--draft`.
    #[serde(flatten)]
    draft: Option<ReportDraft>,
}

#[derive(Serialize)]
struct ReportDraft {
    drafted: usize,
    accepted: usize,
}

impl Report {
    fn new(prompt_ids: Vec<u32>, generated: Generated, load: Duration, drafting: bool) -> Self {
        Self {
            prompt_ids,
            ids: generated.ids,
            text: generated.text,
            finish_reason: generated.finish_reason.name(),
            timings: ReportTimings {
                load_ms: milliseconds(load),
                prefill_tok_s: generated.timings.prefill_tok_s(),
                decode_tok_s: generated.timings.decode_tok_s(),
                ttft_ms: milliseconds(generated.timings.ttft),
                draft: drafting.then_some(ReportDraft {
                    drafted: generated.timings.drafted,
                    accepted: generated.timings.accepted,
                }),
            },
        }
    }
}
