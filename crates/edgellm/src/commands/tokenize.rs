//! `edgellm tokenize`: a text as tokens.

use anyhow::Result;
use engine::tokenizer::EncodeOptions;
use serde::Serialize;

use super::load;
use crate::args::TokenizeArgs;
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    ids: Vec<u32>,
    tokens: Vec<String>,
}

/// Prints one token a line, its id and its bytes, or one object. Bytes that are no text are shown as U+FFFD.
pub(crate) fn run(args: &TokenizeArgs, out: &mut Output) -> Result<()> {
    let model = load::model(&args.model)?;
    let tokenizer = model.need_tokenizer()?;
    let options = EncodeOptions { add_special: !args.no_special, parse_special: true };
    let ids = tokenizer.encode(&load::text(&args.text)?, options)?;
    let mut tokens = Vec::with_capacity(ids.len());
    for &id in &ids {
        tokens.push(String::from_utf8_lossy(tokenizer.token_bytes(id)?).into_owned());
    }
    if args.json {
        return out.json(&Report { ids, tokens });
    }
    for (id, token) in ids.iter().zip(&tokens) {
        out.line(&format!("{id}\t{token:?}"))?;
    }
    Ok(())
}
