//! Where a fine-tuning's rows come from: a file of rows, or a folder of token shards.

use std::path::Path;

use super::{Finetune, Method};
use crate::base::Base;
use crate::data::{Encoding, Example, ExamplesReport, examples, shard_rows};
use crate::error::TrainError;

/// Rows, and what became of them.
pub(super) type Rows = (Vec<Example>, ExamplesReport);

/// The rows to learn from and those to validate on.
pub(super) fn read(
    options: &Finetune,
    base: &Base,
    max_length: usize,
) -> Result<(Rows, Option<Rows>), TrainError> {
    let encoding =
        Encoding { tokenizer: &base.tokenizer, template: base.template.as_ref(), eos: &base.eos, max_length };
    let read = |path: &Path, shard: &str| match path.is_dir() {
        true => shard_rows(&path.join(shard), &base.tokenizer, max_length),
        false => examples(path, &encoding),
    };
    let some = |(rows, report): Rows, path: &Path| match rows.is_empty() {
        true => Err(TrainError::input(path.display().to_string(), "there are no documents in its shard")),
        false => Ok((rows, report)),
    };
    let train = some(read(&options.data, "train.tokens")?, &options.data)?;
    let valid = match &options.valid {
        Some(path) => Some(some(read(path, "valid.tokens")?, path)?),
        None if options.data.join("valid.tokens").is_file() => {
            Some(read(&options.data, "valid.tokens")?).filter(|(rows, _)| !rows.is_empty())
        }
        None => None,
    };
    if valid.is_none() && matches!(options.method, Method::Ternary { .. }) {
        let problem = "qat needs rows to validate on: it stops when they say so";
        return Err(TrainError::input("val-data", problem));
    }
    Ok((train, valid))
}
