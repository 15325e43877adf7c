//! Token shards as rows: for trainings that go through a text in whole pieces.

use std::path::Path;

use engine::SourceFile;
use engine::tokenizer::Tokenizer;
use formats::token_shard::TokenShard;

use super::examples::{Example, ExamplesReport};
use crate::error::TrainError;

/// The documents of a token shard that [`crate::data::prepare()`] wrote, each as rows of at most `max_length` tokens that stand
/// alone; all of them count. A document begins with the tokenizer's mark of a beginning, where it puts one, and ends with its
/// first mark of an end. What is left of a document and too short to learn from is left out. A shard may hold no documents.
///
/// # Errors
/// A file that is no token shard, or one of another vocabulary.
pub fn shard_rows(
    path: &Path,
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<(Vec<Example>, ExamplesReport), TrainError> {
    let file = SourceFile::open(path)?;
    let wrong = |source| TrainError::Format { path: path.to_owned(), source };
    let shard = TokenShard::parse(file.bytes()).map_err(wrong)?;
    let known = tokenizer.vocab_size();
    if shard.vocab_size as usize != known {
        let problem = format!("its vocabulary has {} tokens, the model's has {known}", shard.vocab_size);
        return Err(TrainError::input(path.display().to_string(), problem));
    }
    let (mut rows, mut report) = (Vec::new(), ExamplesReport::default());
    let mut from = 0;
    for document in 0..shard.documents() {
        let end = shard.document_end(document);
        let begins = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        let ids = (from..end).map(|i| shard.id(i));
        let ids: Vec<u32> = begins.into_iter().chain(ids).chain(tokenizer.eos().first().copied()).collect();
        from = end;
        for piece in ids.chunks(max_length.max(2)) {
            match piece.len() {
                0..2 => report.left_out += 1,
                n => rows.push(Example {
                    line: document + 1,
                    ids: piece.to_vec(),
                    answers: std::iter::once(1..n).collect(),
                }),
            }
        }
    }
    report.rows = rows.len();
    report.tokens = rows.iter().map(|row| row.ids.len()).sum();
    report.answer_tokens = rows.iter().map(Example::answer_tokens).sum();
    Ok((rows, report))
}
