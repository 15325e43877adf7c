//! `edgellm pull`: from the hub into the cache.

use anyhow::Result;
use serde::Serialize;

use crate::args::PullArgs;
use crate::hub::{Cache, Hub, Location, NAMES, Pulled};
use crate::output::{self, Output};
use crate::resolve;

/// Prints the path of the model, so that `$(edgellm pull NAME)` can be used.
pub(crate) fn run(args: &PullArgs, out: &mut Output) -> Result<()> {
    let Some(model) = args.model.as_deref().filter(|_| !args.list) else {
        return list(args.json, out);
    };
    let location = resolve::location(model)?;
    let pulled = resolve::pull(&location, args.verify)?;
    if args.json {
        return out.json(&Report { location: location.to_string(), pulled });
    }
    let bytes: u64 = pulled.files.iter().map(|file| file.bytes).sum();
    if !pulled.files.is_empty() {
        output::note(&format!("{location}: {} files, {bytes} bytes, checksums right", pulled.files.len()));
    }
    out.line(&pulled.path.display().to_string())
}

#[derive(Serialize)]
struct Report {
    location: String,
    #[serde(flatten)]
    pulled: Pulled,
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    location: String,
    note: &'static str,
    path: Option<std::path::PathBuf>,
}

fn list(json: bool, out: &mut Output) -> Result<()> {
    let cache = Cache::from_env()?;
    let mut rows = Vec::with_capacity(NAMES.len());
    for known in NAMES {
        let location = Location::parse(known.location)?;
        let path = Hub::cached(&cache, &location);
        rows.push(Listed { name: known.name, location: location.to_string(), note: known.note, path });
    }
    if json {
        return out.json(&rows);
    }
    for row in rows {
        let state = if row.path.is_some() { "pulled" } else { "-" };
        out.line(&format!("{:<22} {:<6} {}  ({})", row.name, state, row.location, row.note))?;
    }
    Ok(())
}
