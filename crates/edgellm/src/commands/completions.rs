//! `edgellm completions`: a script that completes commands and options in a shell.

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::output::Output;

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs, out: &mut Output) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "edgellm", &mut script);
    out.bytes(&script)
}
