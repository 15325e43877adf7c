//! What the user calls a model -> where it lies.

use std::path::PathBuf;

use anyhow::Result;

use crate::built_in;
use crate::failure::Failure;
use crate::hub::{self, Cache, Hub, Location, NAMES};
use crate::output;

/// Finds a MODEL argument: an existing path wins, then the model that the program carries, then `hf:…` (pulled when it is
/// not in the cache), then a name that was pulled before.
pub(crate) fn model(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if path.exists() {
        return Ok(path);
    }
    if text == built_in::NAME {
        return Ok(built_in::PATH.into());
    }
    if let Some(text) = text.strip_prefix("hf:") {
        let location = Location::parse(text)?;
        if let Some(path) = Hub::cached(&Cache::from_env()?, &location) {
            return Ok(path);
        }
        return Ok(pull(&location, false)?.path);
    }
    if let Some(location) = hub::by_name(text) {
        let cached = Hub::cached(&Cache::from_env()?, &location?);
        let missing = || {
            Failure::new(format!("{text} is not in the cache"), format!("get it with: edgellm pull {text}"))
        };
        return Ok(cached.ok_or_else(missing)?);
    }
    let names = NAMES.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
    let own = built_in::NAME;
    let hint = format!("MODEL is a file, a folder, hf:owner/repo[/file], {own}, or one of {names}");
    Err(Failure::new(format!("{text}: no such file or folder, and no name of a model"), hint).into())
}

/// The location that the user means: `hf:…` or a name.
pub(crate) fn location(text: &str) -> Result<Location> {
    match (text.strip_prefix("hf:"), hub::by_name(text)) {
        (Some(text), _) => Ok(Location::parse(text)?),
        (None, Some(location)) => Ok(location?),
        (None, None) => {
            let hint = "edgellm pull --list shows the names; anything else is hf:owner/repo[/file]";
            Err(Failure::new(format!("{text} is no name of a model"), hint).into())
        }
    }
}

/// Pulls with a progress bar.
pub(crate) fn pull(location: &Location, verify: bool) -> Result<hub::Pulled> {
    let progress = output::download_progress()?;
    let pulled = Hub::from_env()?.pull(location, verify, &progress);
    progress.finish_and_clear();
    Ok(pulled?)
}
