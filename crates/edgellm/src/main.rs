//! The `edgellm` command: parses, calls, prints.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 an error in what was asked for, 2 an
//! error in how it was asked, 130 a training that Ctrl-C stopped. A reader that closes the pipe is no error.

mod args;
mod built_in;
mod commands;
mod failure;
mod hub;
mod output;
mod resolve;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::output::Output;

/// What a shell says of a command that SIGINT ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => return output::usage(&err),
    };
    built_in::provide();
    let mut out = Output::new();
    let result = commands::run(cli.command, &mut out).and_then(|()| out.flush());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) if output::is_closed_pipe(&err) => ExitCode::SUCCESS,
        Err(err) if err.is::<failure::Stopped>() => {
            output::note(&err.to_string());
            ExitCode::from(INTERRUPTED)
        }
        Err(err) => {
            output::error(&err, failure::hint(&err).as_deref());
            ExitCode::FAILURE
        }
    }
}
