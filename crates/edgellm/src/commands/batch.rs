//! `edgellm batch`: many requests from file to file.

use anyhow::Result;
use gateway::Config;
use gateway::batch::{Progress, run_file};

use super::serve;
use crate::args::BatchArgs;
use crate::output;

/// Answers all requests of a file.
pub(crate) fn run(args: &BatchArgs) -> Result<()> {
    // Only as many are sent as run, so the queue holds the choices of each.
    let config = Config { queue: usize::from(u16::MAX), ..serve::models(&args.models)? };
    let bar = output::step_progress()?;
    let tell = |progress: Progress| {
        bar.set_length(progress.total as u64);
        bar.set_position((progress.completed + progress.failed) as u64);
    };
    let progress = serve::runtime()?.block_on(run_file(config, &args.input, &args.output, tell))?;
    bar.finish_and_clear();
    let Progress { total, completed, failed } = progress;
    output::note(&format!(
        "{total} requests: {completed} answered, {failed} refused, in {}",
        args.output.display()
    ));
    Ok(())
}
