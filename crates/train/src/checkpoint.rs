//! Folders of checkpoints: there whole or not at all, the last few kept.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::TrainError;

/// The folder of the checkpoint of a step.
pub(crate) fn folder(output: &Path, step: u64) -> PathBuf {
    output.join(format!("checkpoint-{step:08}"))
}

/// Steps of all checkpoints, the last one last.
pub(crate) fn steps(output: &Path) -> Result<Vec<u64>, TrainError> {
    if !output.exists() {
        return Ok(Vec::new());
    }
    let io = TrainError::io(output);
    let mut steps = Vec::new();
    for entry in fs::read_dir(output).map_err(&io)? {
        let name = entry.map_err(&io)?.file_name();
        let step: Option<u64> = name.to_str().and_then(|name| name.strip_prefix("checkpoint-")?.parse().ok());
        steps.extend(step);
    }
    steps.sort_unstable();
    Ok(steps)
}

/// Writes a checkpoint with what `fill` puts into an empty folder, and takes away all but the last `keep`.
pub(crate) fn write(
    output: &Path,
    step: u64,
    keep: usize,
    fill: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let part = output.join(".checkpoint.part");
    let io = TrainError::io(&part);
    if part.exists() {
        fs::remove_dir_all(&part).map_err(&io)?;
    }
    fs::create_dir_all(&part).map_err(&io)?;
    if let Err(error) = fill(&part) {
        // On a full disk what is half written is in the way of all else. It is taken away next time if not now.
        let _ = fs::remove_dir_all(&part);
        return Err(error);
    }
    let whole = folder(output, step);
    if whole.exists() {
        fs::remove_dir_all(&whole).map_err(TrainError::io(&whole))?;
    }
    fs::rename(&part, &whole).map_err(TrainError::io(&whole))?;
    let all = steps(output)?;
    for &old in &all[..all.len().saturating_sub(keep)] {
        let old = folder(output, old);
        fs::remove_dir_all(&old).map_err(TrainError::io(&old))?;
    }
    Ok(())
}

/// Refuses a folder that holds a training already.
pub(crate) fn check_new(output: &Path) -> Result<(), TrainError> {
    if steps(output)?.is_empty() {
        return Ok(());
    }
    let problem = "holds a training already: --resume goes on with it, another folder begins anew";
    Err(TrainError::input(output.display().to_string(), problem))
}
