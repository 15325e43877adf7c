//! The only place that prints: data to stdout, everything else to stderr.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Standard output, buffered until [`Output::flush`].
pub(crate) struct Output {
    stdout: BufWriter<Stdout>,
}

impl Output {
    /// Standard output of this process.
    pub(crate) fn new() -> Self {
        Self { stdout: BufWriter::new(io::stdout()) }
    }

    /// Writes bytes of data as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stdout.write_all(bytes).map_err(StdoutError)?)
    }

    /// Writes a line of data.
    pub(crate) fn line(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.stdout, "{line}").map_err(StdoutError)?)
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    /// Brings what was written to the reader.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.stdout.flush().map_err(StdoutError)?)
    }
}

/// Writing to stdout failed. A type of its own, so that a broken pipe there is told from any other.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct StdoutError(#[source] io::Error);

/// Whether the reader of our output went away, as `head` does.
pub(crate) fn is_closed_pipe(err: &anyhow::Error) -> bool {
    err.downcast_ref::<StdoutError>().is_some_and(|err| err.0.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints what clap has to say (help, version or a wrong usage) and gives its exit code.
pub(crate) fn usage(err: &clap::Error) -> ExitCode {
    // A closed pipe behind `--help` is no error, and no better place is left to complain about another.
    let _ = err.print();
    if err.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

/// A remark for the user, on stderr.
pub(crate) fn note(text: &str) {
    to_stderr(text);
}

/// The one line of an error with all its causes, and advice where there is some. A cause that the error above it
/// has already told is not told again.
pub(crate) fn error(err: &anyhow::Error, hint: Option<&str>) {
    let mut line = "error".to_owned();
    for cause in err.chain().map(ToString::to_string) {
        if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    to_stderr(&line);
    if let Some(hint) = hint {
        to_stderr(&format!("hint: {hint}"));
    }
}

/// A progress bar for downloads; see [`progress`].
pub(crate) fn download_progress() -> anyhow::Result<ProgressBar> {
    progress("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
}

/// A progress bar for counted steps; see [`progress`].
pub(crate) fn step_progress() -> anyhow::Result<ProgressBar> {
    progress("[{bar:30}] {pos}/{len} {eta} {msg}")
}

/// In place of a progress bar what its message says, several lines; see [`progress`].
pub(crate) fn picture_progress() -> anyhow::Result<ProgressBar> {
    progress("{msg}")
}

/// A progress bar on stderr; it draws nothing when that is no terminal.
fn progress(template: &str) -> anyhow::Result<ProgressBar> {
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template)?.progress_chars("=> ");
    Ok(ProgressBar::with_draw_target(None, target).with_style(style))
}

fn to_stderr(line: &str) {
    // Nothing is left to tell when stderr itself is gone.
    let _ = writeln!(io::stderr(), "{line}");
}
