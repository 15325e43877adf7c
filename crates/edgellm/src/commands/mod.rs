//! One module per command.

mod access;
mod analyze;
mod batch;
mod benchmark;
mod calibrate;
mod chat;
mod completions;
mod config;
mod convert;
mod course;
mod dashboard;
mod doctor;
mod eval;
mod finetune;
mod generate;
mod html;
mod inspect;
mod keys;
mod load;
mod man;
mod merge;
mod picture;
mod plots;
mod pull;
mod quantize;
mod serve;
mod system;
mod tokenize;
mod train;
mod training_page;

use anyhow::Result;

use crate::args::Command;
use crate::output::Output;

/// Runs a command.
pub(crate) fn run(command: Command, out: &mut Output) -> Result<()> {
    match command {
        Command::Generate(args) => generate::run(&args, out),
        Command::Chat(args) => chat::run(&args, out),
        Command::Inspect(args) => inspect::run(&args, out),
        Command::Tokenize(args) => tokenize::run(&args, out),
        Command::Eval(args) => eval::run(&args, out),
        Command::Analyze(args) => analyze::run(&args, out),
        Command::Benchmark(args) => benchmark::run(&args, out),
        Command::Doctor(args) => doctor::run(&args, out),
        Command::Convert(args) => convert::run(&args, out),
        Command::Quantize(args) => quantize::run(&args, out),
        Command::Calibrate(args) => calibrate::run(&args, out),
        Command::Tokenizer(args) => train::tokenizer(&args, out),
        Command::Data(args) => train::data(&args, out),
        Command::Train(args) => train::train(&args, out),
        Command::Finetune(args) => finetune::run(&args, out),
        Command::Merge(args) => merge::run(&args, out),
        Command::Pull(args) => pull::run(&args, out),
        Command::Serve(args) => serve::run(*args),
        Command::Keys(args) => keys::run(&args, out),
        Command::Config(args) => config::run(args, out),
        Command::Batch(args) => batch::run(&args),
        Command::Completions(args) => completions::run(&args, out),
        Command::Man(args) => man::run(&args, out),
    }
}
