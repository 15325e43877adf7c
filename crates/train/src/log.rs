//! `log.jsonl`: what happens in a training, a line each.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::TrainError;

/// An opened log.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Goes on with the log of a folder. A line that was cut off, by a full disk or a kill, is taken away.
    pub(crate) fn open(output: &Path) -> Result<Self, TrainError> {
        let path = output.join("log.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(TrainError::io(&path))?;
        let written = std::fs::read(&path).map_err(TrainError::io(&path))?;
        let whole = written.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        if whole < written.len() {
            file.set_len(whole as u64).map_err(TrainError::io(&path))?;
        }
        Ok(Self { path, file })
    }

    /// Writes a line.
    pub(crate) fn write(&mut self, event: &impl Serialize) -> Result<(), TrainError> {
        let line = serde_json::to_string(event).map_err(|e| TrainError::input("log", e.to_string()))?;
        writeln!(self.file, "{line}").map_err(TrainError::io(&self.path))
    }
}
