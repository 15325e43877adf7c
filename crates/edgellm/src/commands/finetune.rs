//! `edgellm finetune`.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use engine::LoadOptions;
use quantize::convert::{Options, Target, write};
use train::base::{Storage, load_rows, place};
use train::data::ExamplesReport;
use train::finetune::{Event, Finetune, Finished, Method, Planes, Precision};

use super::dashboard::Dashboard;
use super::{load, training_page};
use crate::args::{BaseType, FinetuneArgs, FinetuneMethod, PrecisionArg};
use crate::failure::{Failure, Stopped};
use crate::output::{self, Output};
use crate::resolve;

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

/// All linear layers.
const TARGETS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Trains, and prints what was written.
pub(crate) fn run(args: &FinetuneArgs, out: &mut Output) -> Result<()> {
    let finetune = options(args)?;
    ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")?;
    let mut dashboard = Dashboard::new(&args.output, !args.plain && !args.json)?;
    let (mut shown, mut printed, mut page) = (Ok(()), Ok(()), Ok(()));
    let finished = finetune.run(&STOP, &mut |event| {
        if shown.is_ok() {
            shown = show(event, &mut dashboard);
        }
        if matches!(event, Event::Checkpoint { .. }) && page.is_ok() {
            page = training_page::write(&args.output, &format!("{args:#?}"));
        }
        if args.json && printed.is_ok() {
            printed = out.json(event).and_then(|()| out.flush());
        }
    });
    dashboard.finish();
    let finished = finished?;
    shown?;
    printed?;
    page?;
    let written = match finished {
        Finished::Stopped => return Err(Stopped.into()),
        Finished::Adapters => args.output.clone(),
        Finished::Model { written, layout, parameters } => {
            let mut model = load_rows(&finetune.base, &finetune.load)?;
            place(&mut model, &layout, &parameters, written)?;
            let output = args.output.join("model.gguf");
            let options = Options { load: finetune.load.clone(), ..Options::default() };
            let report = write(&model, &finetune.base, &output, Target::Gguf, &options, &mut |_, _, _| ())?;
            report.notes.iter().for_each(|note| output::note(note));
            output
        }
    };
    if args.json { Ok(()) } else { out.line(&written.display().to_string()) }
}

/// The options as the library takes them.
fn options(args: &FinetuneArgs) -> Result<Finetune> {
    let quantized = args.method == FinetuneMethod::Qlora;
    let storage = args.base_type.map(storage);
    let method = match args.method {
        FinetuneMethod::Full | FinetuneMethod::Qat if storage.is_some() => {
            let hint = "leave it out, or take --method lora or qlora";
            let problem = "--base-type: nothing is frozen with --method full and qat";
            return Err(Failure::new(problem, hint).into());
        }
        FinetuneMethod::Full => Method::Full,
        FinetuneMethod::Qat => {
            let start = args.start.as_deref().map(resolve::model).transpose()?;
            let gradual = args.gradual.unwrap_or(if start.is_some() { 0.0 } else { 0.3 });
            let (hidden, patience, embedding) = (args.hidden_weight, args.patience, args.train_embedding);
            let planes = if args.planes == 2 { Planes::Two } else { Planes::One };
            Method::Ternary { planes, gradual, hidden, patience, start, embedding }
        }
        FinetuneMethod::Lora | FinetuneMethod::Qlora => Method::Adapters {
            rank: args.lora_r,
            alpha: args.lora_alpha,
            dropout: args.lora_dropout,
            targets: match args.target_modules.is_empty() {
                true => TARGETS.map(str::to_owned).to_vec(),
                false => args.target_modules.clone(),
            },
            storage: storage.unwrap_or(if quantized { Storage::Nf4 } else { Storage::F32 }),
        },
    };
    let usual_rate = match method {
        Method::Adapters { .. } => 2e-4,
        Method::Full => 2e-5,
        Method::Ternary { .. } => 5e-4,
    };
    Ok(Finetune {
        base: resolve::model(&args.base_model)?,
        load: LoadOptions {
            tokenizer: args.tokenizer.clone(),
            chat_template: args.chat_template.as_deref().map(load::file).transpose()?,
            ..LoadOptions::default()
        },
        data: args.data.clone(),
        valid: args.val_data.clone(),
        output: args.output.clone(),
        method,
        epochs: args.epochs,
        batch_size: args.batch_size,
        learning_rate: args.learning_rate.unwrap_or(usual_rate),
        muon_learning_rate: args.muon_learning_rate,
        weight_decay: args.weight_decay,
        warmup: args.warmup,
        max_length: args.max_length,
        micro_tokens: args.micro_tokens,
        recompute: quantized,
        precision: match args.precision {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Bf16 => Precision::Bf16,
        },
        validate_every: args.validate_every,
        checkpoint_every: args.checkpoint_every,
        keep: args.keep,
        seed: args.seed,
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        resume: args.resume,
    })
}

fn storage(kind: BaseType) -> Storage {
    match kind {
        BaseType::F32 => Storage::F32,
        BaseType::File => Storage::File,
        BaseType::Nf4 => Storage::Nf4,
        BaseType::Int4 => Storage::Int4,
        BaseType::Ternary => Storage::Ternary,
    }
}

/// An event for the user.
fn show(event: &Event, dashboard: &mut Dashboard) -> Result<()> {
    match event {
        Event::Data { train, valid, steps, trained, parameters } => {
            dashboard.set_steps(*steps);
            dashboard.note(&rows("to learn from", train));
            valid.iter().for_each(|valid| dashboard.note(&rows("to validate on", valid)));
            dashboard.note(&format!("{trained} of {parameters} parameters are trained, in {steps} steps"));
        }
        Event::Resumed { step } => dashboard.resumed(*step),
        Event::Step { step, loss, tokens_per_second, .. } => dashboard.step(*step, *loss, *tokens_per_second),
        Event::Validation { step, nll, kl: Some(kl), tokens, .. } => {
            let found = format!("validation nll {nll:.6}, KL {kl:.6}, all rounded");
            dashboard.remark(&format!("step {step}, {tokens} tokens: {found}"));
        }
        Event::Validation { step, nll, .. } => {
            dashboard.remark(&format!("step {step}: validation nll {nll:.6}"));
        }
        Event::Checkpoint { step } => dashboard.checkpoint(*step),
    }
    dashboard.event(event)
}

fn rows(what: &str, report: &ExamplesReport) -> String {
    let ExamplesReport { rows, cut, left_out, tokens, answer_tokens } = report;
    let mut text = format!("{rows} rows {what}: {tokens} tokens, {answer_tokens} of them answers");
    if *cut > 0 {
        text += &format!("; {cut} rows are too long and were cut off (--max-length)");
    }
    if *left_out > 0 {
        text += &format!("; {left_out} rows, of whose answers nothing would be left, were left out");
    }
    text
}
