//! `edgellm eval logits`.

use std::io::{BufWriter, Write};

use anyhow::{Context, Result};
use engine::{EngineError, Sequence};
use formats::writer::AtomicFile;

use super::npy;
use crate::args::LogitsArgs;
use crate::commands::load;

/// Writes the logits behind each token, one row a token. The file appears when it is whole.
pub(super) fn run(args: &LogitsArgs) -> Result<()> {
    let model = load::model(&args.model)?;
    let mut sequence = Sequence::new(&model, args.ids.len().clamp(1, model.config.seq_len))?;
    let cannot_write = || format!("{}: cannot write", args.output.display());
    let mut file = BufWriter::new(AtomicFile::create(&args.output).with_context(cannot_write)?);
    file.write_all(&npy::header(args.ids.len(), model.config.vocab_size)).with_context(cannot_write)?;
    let mut row = Vec::with_capacity(model.config.vocab_size * 4);
    sequence.forward_all(&args.ids, &mut |_, logits| {
        row.clear();
        row.extend(logits.iter().flat_map(|x| x.to_le_bytes()));
        file.write_all(&row).map_err(|source| EngineError::Io { path: args.output.clone(), source })
    })?;
    let file = file.into_inner().map_err(|err| err.into_error()).with_context(cannot_write)?;
    file.commit().with_context(cannot_write)
}
