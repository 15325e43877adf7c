//! A vocabulary for byte-level BPE, learned from a text.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Trainer};

use super::text::{DOCUMENT_END, each_document};
use crate::error::TrainError;

/// Learns a vocabulary of `vocab_size` tokens, the first of which is `<|endoftext|>`, from the documents of all files. The
/// result is a `tokenizer.json` that puts that token before every text.
///
/// # Errors
/// Files that cannot be read; a vocabulary smaller than the 257 tokens that spell every text; a text too small for it.
pub fn learn(files: &[PathBuf], field: &str, vocab_size: usize) -> Result<String, TrainError> {
    if !(257..=1 << 20).contains(&vocab_size) {
        let problem = format!("{vocab_size} tokens: 257 spell every text, 1048576 are the most");
        return Err(TrainError::input("vocabulary size", problem));
    }
    let failed = |error: tokenizers::Error| TrainError::input("tokenizer", error.to_string());
    let level = ByteLevel::new(false, true, true);
    let mut counts: HashMap<String, u64> = HashMap::new();
    for file in files {
        each_document(file, field, &mut |document| {
            let mut words = tokenizers::PreTokenizedString::from(document);
            tokenizers::PreTokenizer::pre_tokenize(&level, &mut words).map_err(failed)?;
            let splits =
                words.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
            for (word, ..) in splits {
                match counts.get_mut(word) {
                    Some(count) => *count += 1,
                    None => {
                        counts.insert(word.to_owned(), 1);
                    }
                }
            }
            Ok(())
        })?;
    }
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(DOCUMENT_END, true)])
        .build();
    // In a fixed order, so that equal counts are decided alike every time.
    let mut words: Vec<(&String, &u64)> = counts.iter().collect();
    words.sort_unstable();
    let fed = words.iter().flat_map(|(word, count)| std::iter::repeat_n(word.as_str(), **count as usize));
    trainer.feed(fed, |word| Ok(vec![word.to_owned()])).map_err(failed)?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(failed)?;
    let model = serde_json::to_value(&model).map_err(|e| TrainError::input("tokenizer", e.to_string()))?;
    let learned = model["vocab"].as_object().map_or(0, serde_json::Map::len);
    if learned != vocab_size {
        let problem = format!(
            "the text gives {learned} tokens, not {vocab_size}: take a larger text or a smaller vocabulary"
        );
        return Err(TrainError::input("tokenizer", problem));
    }
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": 0, "content": DOCUMENT_END, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                { "SpecialToken": { "id": DOCUMENT_END, "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
            ],
            "pair": [
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "Sequence": { "id": "B", "type_id": 1 } },
            ],
            "special_tokens": { DOCUMENT_END: { "id": DOCUMENT_END, "ids": [0], "tokens": [DOCUMENT_END] } },
        },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": model,
    });
    Ok(file.to_string())
}

/// The `tokenizer_config.json` that goes with [`learn`]'s result.
pub(crate) fn tokenizer_config() -> Value {
    json!({ "bos_token": DOCUMENT_END, "eos_token": DOCUMENT_END, "tokenizer_class": "PreTrainedTokenizerFast" })
}
