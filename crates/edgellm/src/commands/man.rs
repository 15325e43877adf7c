//! `edgellm man`: the manual page, in roff.

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::args::{Cli, ManArgs};
use crate::output::Output;

/// Prints the page of the program or of one command.
pub(crate) fn run(args: &ManArgs, out: &mut Output) -> Result<()> {
    let mut cli = Cli::command();
    cli.build();
    let mut command = &cli;
    for name in &args.command {
        command = command
            .find_subcommand(name)
            .with_context(|| format!("{} has no command '{name}'", command.get_name()))?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    out.bytes(&page)
}
