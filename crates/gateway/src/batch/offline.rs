//! A batch from file to file, without a server.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use thiserror::Error;

use super::journal::Journal;
use super::line::{self, Done, Fault};
use crate::config::Config;
use crate::router;
use crate::state::App;

/// Why a batch cannot be run.
#[derive(Debug, Error)]
pub enum BatchError {
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The lines are no requests.
    #[error("{path}, line {line}: {message}{more}", path = path.display())]
    Lines {
        /// Of the requests.
        path: PathBuf,
        /// The first that is wrong.
        line: usize,
        /// What is wrong with it.
        message: String,
        /// How many more there are, in words.
        more: String,
    },
    /// The model cannot be loaded.
    #[error("{0}")]
    Model(String),
}

/// How far a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Requests of the batch.
    pub total: usize,
    /// Requests that were answered.
    pub completed: usize,
    /// Requests that were refused.
    pub failed: usize,
}

impl Progress {
    /// The state that a journal tells.
    pub(crate) fn of(total: usize, done: &[(usize, bool)]) -> Self {
        let completed = done.iter().filter(|(_, is_success)| *is_success).count();
        Self { total, completed, failed: done.len() - completed }
    }
}

/// Runs the requests of `input` (OpenAI's batch lines) on the models of `config` and writes the results to `output` in the
/// order of the requests. Results so far lie in `output` with `.part` behind its name: a second call goes on there.
/// `tell` hears of each result.
///
/// # Errors
/// See [`BatchError`]. A request that is refused is no error: its line says so.
pub async fn run_file(
    config: Config,
    input: &Path,
    output: &Path,
    mut tell: impl FnMut(Progress),
) -> Result<Progress, BatchError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BatchError::File { path, source }
    };
    let lines = line::parse(BufReader::new(File::open(input).map_err(failed(input))?), None);
    let lines = lines.map_err(|faults| lines_error(input, &faults))?;
    let mut name = output.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let mut journal = Journal::open(&part, &lines).map_err(failed(&part))?;
    let at_once = config.parallel;
    let app = App::new(config, None, None, None);
    app.models.get(None).await.map_err(|error| BatchError::Model(error.message))?;
    let total = lines.len();
    tell(Progress::of(total, &journal.done));
    let mut results = std::pin::pin!(line::run(router::api(app), lines, &journal, at_once));
    while let Some(Done { place, request, outcome }) = results.next().await {
        journal.add(place, request, outcome).map_err(failed(&part))?;
        tell(Progress::of(total, &journal.done));
    }
    let progress = Progress::of(total, &journal.done);
    journal.write_sorted(output, |_| true).map_err(failed(output))?;
    journal.remove().map_err(failed(&part))?;
    Ok(progress)
}

fn lines_error(path: &Path, faults: &[Fault]) -> BatchError {
    let (line, message) =
        faults.first().map_or((1, String::new()), |fault| (fault.line, fault.message.clone()));
    let more = match faults.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more lines)", n - 1),
    };
    BatchError::Lines { path: path.to_owned(), line, message, more }
}
