//! `edgellm tokenizer`, `data` and `train`.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use engine::generate::{GenerateOptions, generate};
use engine::sampler::Sampling;
use engine::tokenizer::EncodeOptions;
use engine::{EngineError, LoadOptions, Model, Sequence};
use train::TrainError;
use train::data::{NearDuplicates, PrepareOptions, PrepareReport, learn, prepare};
use train::trainer::{Config, Ended, Event, Run};

use super::dashboard::Dashboard;
use super::{load, training_page};
use crate::args::{
    DataArgs, DataCommand, DataPrepareArgs, NearArg, TokenizerArgs, TokenizerCommand, TokenizerTrainArgs,
    TrainArgs,
};
use crate::failure::Stopped;
use crate::output::{self, Output};

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

/// `edgellm tokenizer`.
pub(crate) fn tokenizer(args: &TokenizerArgs, out: &mut Output) -> Result<()> {
    let TokenizerCommand::Train(TokenizerTrainArgs { data, vocab_size, output, field }) = &args.command;
    let json = learn(data, field, *vocab_size)?;
    std::fs::write(output, json).with_context(|| format!("{}: cannot write", output.display()))?;
    out.line(&output.display().to_string())
}

/// `edgellm data`.
pub(crate) fn data(args: &DataArgs, out: &mut Output) -> Result<()> {
    let DataCommand::Prepare(args) = &args.command;
    let DataPrepareArgs {
        input,
        valid,
        tokenizer,
        output,
        valid_fraction,
        field,
        seed,
        json,
        near_duplicates,
    } = args;
    let options = PrepareOptions {
        train: input.clone(),
        valid: valid.clone(),
        valid_fraction: *valid_fraction,
        field: field.clone(),
        tokenizer: tokenizer.clone(),
        seed: *seed,
        near_duplicates: match near_duplicates {
            NearArg::Ignore => NearDuplicates::Ignore,
            NearArg::Report => NearDuplicates::Report,
            NearArg::Drop => NearDuplicates::Drop,
        },
    };
    let report = prepare(&options, output, &mut |file| output::note(&format!("{}", file.display())))?;
    if *json {
        return out.json(&report);
    }
    for (name, shard) in [("train", report.train), ("valid", report.valid)] {
        output::note(&format!(
            "{name}: {} documents, {} tokens, {} bytes",
            shard.documents, shard.tokens, shard.bytes
        ));
    }
    output::note(&format!("{} documents came twice and were left out", report.duplicates));
    near_duplicates_of(&report, *near_duplicates);
    out.line(&output.display().to_string())
}

/// Tells of documents that are nearly the same.
fn near_duplicates_of(report: &PrepareReport, what: NearArg) {
    if report.near_duplicates > 0 {
        let become_of = match what {
            NearArg::Drop => "were left out",
            _ => "were kept (--near-duplicates drop leaves them out)",
        };
        let count = report.near_duplicates;
        output::note(&format!("{count} documents are nearly the same as one before and {become_of}:"));
    }
    for example in &report.near_duplicate_examples {
        output::note(&format!(
            "  {} document {}: {:.0} % as in {} document {}: {:?}",
            example.file.display(),
            example.document,
            example.similarity * 100.0,
            example.like_file.display(),
            example.like_document,
            example.begins
        ));
    }
    if report.not_remembered > 0 {
        let count = report.not_remembered;
        output::note(&format!(
            "near duplicates of {count} documents were not looked for: too many came before"
        ));
    }
}

/// `edgellm train`.
pub(crate) fn train(args: &TrainArgs, out: &mut Output) -> Result<()> {
    let run = Run {
        config: Config::read(&args.config)?,
        data: args.data.clone(),
        output: args.output.clone(),
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        resume: args.resume,
    };
    ctrlc::set_handler(|| STOP.store(true, std::sync::atomic::Ordering::Relaxed))
        .context("cannot catch Ctrl-C")?;
    let mut dashboard = Dashboard::new(&args.output, !args.plain && !args.json)?;
    dashboard.set_steps(run.config.training.steps);
    let config = load::file(&args.config)?;
    let (mut shown, mut printed, mut page) = (Ok(()), Ok(()), Ok(()));
    let ended = run.train(&STOP, &mut sample, &mut |event| {
        if shown.is_ok() {
            shown = show(event, &mut dashboard);
        }
        if matches!(event, Event::Checkpoint { .. }) && page.is_ok() {
            page = training_page::write(&args.output, &config);
        }
        if args.json && printed.is_ok() {
            printed = out.json(event).and_then(|()| out.flush());
        }
    });
    dashboard.finish();
    let ended = ended?;
    shown?;
    printed?;
    page?;
    if ended == Ended::Stopped {
        return Err(Stopped.into());
    }
    if args.json { Ok(()) } else { out.line(&args.output.join("model").display().to_string()) }
}

/// An event for the user.
fn show(event: &Event, dashboard: &mut Dashboard) -> Result<()> {
    match event {
        Event::Resumed { step } => dashboard.resumed(*step),
        Event::Step { step, loss, tokens_per_second, .. } => dashboard.step(*step, *loss, *tokens_per_second),
        Event::Validation { step, name, nll, bits_per_byte } => {
            dashboard.remark(&format!("step {step}: {name}: nll {nll:.6}, bits per byte {bits_per_byte:.4}"));
        }
        Event::Sample { step, text } => dashboard.remark(&format!("step {step}: {text}")),
        Event::Checkpoint { step } => dashboard.checkpoint(*step),
    }
    dashboard.event(event)
}

/// Tokens of a sample text.
const SAMPLE_TOKENS: usize = 80;

/// What the model in the folder writes behind the prompt.
fn sample(model: &Path, prompt: &str) -> Result<String, TrainError> {
    let model = Model::load(model, &LoadOptions::default())?;
    let tokenizer = model.need_tokenizer()?;
    let options = EncodeOptions { add_special: true, parse_special: false };
    let ids = tokenizer.encode(prompt, options).map_err(EngineError::from)?;
    let most = SAMPLE_TOKENS.min(model.config.seq_len.saturating_sub(ids.len()));
    let mut sequence = Sequence::new(&model, (ids.len() + most).clamp(1, model.config.seq_len))?;
    let sampling = Sampling { temperature: 0.7, ..Sampling::default() };
    let options = GenerateOptions { max_tokens: Some(most), sampling, ..GenerateOptions::default() };
    let generated = generate(&model, &mut sequence, &ids, &options, &mut |_| ControlFlow::Continue(()))?;
    Ok(format!("{prompt}{}", generated.text))
}
