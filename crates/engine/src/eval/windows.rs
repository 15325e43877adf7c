//! A text as the runs of tokens that are scored.

use crate::error::EngineError;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// Which tokens of a text are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stride {
    /// llama.cpp's method: the text in chunks of the context, BOS in the place of each chunk's first token,
    /// the second half scored. Tokens behind the last whole chunk are not used.
    Half,
    /// Every token of every document once. A document longer than the context goes on in windows whose first
    /// half repeats what was scored before.
    Full,
}

/// What separates the documents of a text under [`Stride::Full`].
pub const DOCUMENT_END: &str = "<|endoftext|>";

/// A run of tokens of which those from `first_scored` on are scored (each predicted by those before it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) ids: Vec<u32>,
    pub(super) first_scored: usize,
}

pub(super) fn windows(
    tokenizer: &Tokenizer,
    text: &str,
    context: usize,
    stride: Stride,
) -> Result<Vec<Window>, EngineError> {
    if context < 2 {
        return Err(EngineError::Request(format!(
            "a context of {context} tokens scores nothing: take 2 or more"
        )));
    }
    match stride {
        Stride::Half => {
            let options = EncodeOptions { add_special: true, parse_special: false };
            let ids = tokenizer.encode(text, options)?;
            if ids.len() < 2 * context {
                return Err(EngineError::Request(format!(
                    "the text has {} tokens: at least {} are needed, two chunks of the context",
                    ids.len(),
                    2 * context
                )));
            }
            let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
            let chunk = |ids: &[u32]| {
                let mut ids = ids.to_vec();
                if let Some(bos) = bos {
                    ids[0] = bos;
                }
                // Position j predicts token j + 1; llama.cpp scores positions context / 2 to context - 2.
                Window { ids, first_scored: context / 2 + 1 }
            };
            Ok(ids.chunks_exact(context).map(chunk).collect())
        }
        Stride::Full => {
            let mut all = Vec::new();
            for document in text.split(DOCUMENT_END) {
                let document = document.trim_start_matches('\n');
                if !document.is_empty() {
                    document_windows(tokenizer, document, context, &mut all)?;
                }
            }
            Ok(all)
        }
    }
}

fn document_windows(
    tokenizer: &Tokenizer,
    document: &str,
    context: usize,
    windows: &mut Vec<Window>,
) -> Result<(), EngineError> {
    let options = EncodeOptions { add_special: false, parse_special: false };
    let mut ids: Vec<u32> = tokenizer.bos().or(tokenizer.eos().first().copied()).into_iter().collect();
    ids.extend(tokenizer.encode(document, options)?);
    let mut scored = 1;
    while scored < ids.len() {
        let from = if scored == 1 { 0 } else { scored - context / 2 };
        let to = ids.len().min(from + context);
        windows.push(Window { ids: ids[from..to].to_vec(), first_scored: scored - from });
        scored = to;
    }
    Ok(())
}
