//! Texts as token shards.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use engine::tokenizer::{EncodeOptions, Tokenizer};
use formats::token_shard;
use formats::writer::AtomicFile;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::Serialize;

use super::near::{Like, MAX_DOCUMENTS, Near};
use super::text::{each_document, read_text};
use super::vocabulary::tokenizer_config;
use crate::error::TrainError;

/// What is prepared, and how.
#[derive(Debug, Clone, Default)]
pub struct PrepareOptions {
    /// Texts to train on.
    pub train: Vec<PathBuf>,
    /// Texts to validate on.
    pub valid: Vec<PathBuf>,
    /// The part of the training documents that is kept for validation, 0 to 1.
    pub valid_fraction: f64,
    /// Field or column that holds the text of JSON lines and CSV.
    pub field: String,
    /// `tokenizer.json`
    pub tokenizer: PathBuf,
    /// Chooses the documents that are kept for validation.
    pub seed: u64,
    /// What is done about documents that are nearly the same as one before.
    pub near_duplicates: NearDuplicates,
}

/// What is done about documents that are nearly the same as one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NearDuplicates {
    /// Nobody looks for them.
    Ignore,
    /// They are counted.
    #[default]
    Report,
    /// They are counted and left out.
    Drop,
}

/// What one shard holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ShardReport {
    /// Documents.
    pub documents: usize,
    /// Token ids.
    pub tokens: usize,
    /// Bytes of text.
    pub bytes: u64,
}

/// A document that is nearly the same as one before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NearDuplicate {
    /// The part of their groups of five words that both have, as estimated.
    pub similarity: f64,
    /// Its file.
    pub file: PathBuf,
    /// Its number in the file, from 1 on.
    pub document: usize,
    /// The file of the one before.
    pub like_file: PathBuf,
    /// The number of the one before.
    pub like_document: usize,
    /// How it begins.
    pub begins: String,
}

/// What became of the texts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PrepareReport {
    /// `train.tokens`
    pub train: ShardReport,
    /// `valid.tokens`
    pub valid: ShardReport,
    /// Documents left out because the same text came before.
    pub duplicates: usize,
    /// Documents of whose groups of five words a document before has about 80 % or more.
    pub near_duplicates: usize,
    /// The first few of them.
    pub near_duplicate_examples: Vec<NearDuplicate>,
    /// Documents to which no later one was compared, because too many came before.
    pub not_remembered: usize,
}

/// Near duplicates that the report shows.
const EXAMPLES: usize = 5;

/// Characters of a text that an example shows.
const EXAMPLE_CHARS: usize = 60;

/// Looks for near duplicates.
struct Search<'a> {
    what: NearDuplicates,
    near: Near,
    /// The file and the number of each document that is remembered.
    places: Vec<(u32, u32)>,
    files: Vec<&'a Path>,
}

impl<'a> Search<'a> {
    fn new(options: &'a PrepareOptions) -> Self {
        let files = options.valid.iter().chain(&options.train).map(PathBuf::as_path).collect();
        Self { what: options.near_duplicates, near: Near::new(MAX_DOCUMENTS), places: Vec::new(), files }
    }

    /// Whether a document, the `number`th of a file, is to be kept.
    fn keeps(&mut self, text: &str, file: usize, number: usize, report: &mut PrepareReport) -> bool {
        let look = match self.what {
            NearDuplicates::Ignore => None,
            _ => self.near.look(text),
        };
        let Some(look) = look else { return true };
        if let Some(Like { document, similarity }) = look.like {
            report.near_duplicates += 1;
            if report.near_duplicate_examples.len() < EXAMPLES {
                let (like_file, like_document) = self.places[document];
                report.near_duplicate_examples.push(NearDuplicate {
                    similarity,
                    file: self.files[file].to_owned(),
                    document: number,
                    like_file: self.files[like_file as usize].to_owned(),
                    like_document: like_document as usize,
                    begins: text.chars().take(EXAMPLE_CHARS).collect(),
                });
            }
            if self.what == NearDuplicates::Drop {
                return false;
            }
        }
        match self.near.remember(&look) {
            true => {
                let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                self.places.push((narrow(file), narrow(number)));
            }
            false => report.not_remembered += 1,
        }
        true
    }
}

/// A shard in the making.
#[derive(Default)]
struct Shard {
    ids: Vec<u32>,
    ends: Vec<u64>,
    bytes: u64,
}

impl Shard {
    fn push(&mut self, tokenizer: &Tokenizer, document: &str) -> Result<(), TrainError> {
        let options = EncodeOptions { add_special: false, parse_special: false };
        self.ids.extend(tokenizer.encode(document, options)?);
        self.ends.push(self.ids.len() as u64);
        self.bytes += document.len() as u64;
        Ok(())
    }

    fn report(&self) -> ShardReport {
        ShardReport { documents: self.ends.len(), tokens: self.ids.len(), bytes: self.bytes }
    }

    /// Writes the shard if it has documents.
    fn write(&self, path: &Path, vocab_size: u32) -> Result<(), TrainError> {
        if self.ends.is_empty() {
            return Ok(());
        }
        let io = TrainError::io(path);
        let mut out = AtomicFile::create(path).map_err(&io)?;
        token_shard::write(&mut out, vocab_size, self.bytes, &self.ends, &self.ids).map_err(&io)?;
        out.commit().map_err(&io)
    }
}

/// Writes `train.tokens`, `valid.tokens`, `tokenizer.json` and `tokenizer_config.json` into `output`, a folder that is made
/// where it is not there. A document whose text came before is left out; validation texts come first, so that nothing of
/// them stays in the training text. Documents that are nearly the same as one before are looked for in the same order. `progress` hears of each file before it is read.
///
/// # Errors
/// Texts that cannot be read, with the line; a tokenizer without a token that begins a text; texts without documents.
pub fn prepare(
    options: &PrepareOptions,
    output: &Path,
    progress: &mut dyn FnMut(&Path),
) -> Result<PrepareReport, TrainError> {
    let tokenizer_json = read_text(&options.tokenizer)?;
    let beside = options.tokenizer.with_file_name("tokenizer_config.json");
    let config = if beside.is_file() { read_text(&beside)? } else { tokenizer_config().to_string() };
    let tokenizer = Tokenizer::from_hf(tokenizer_json.as_bytes(), Some(config.as_bytes()))?;
    if tokenizer.bos().is_none() {
        let what = options.tokenizer.display().to_string();
        return Err(TrainError::input(what, "no token begins a text: name one in tokenizer_config.json"));
    }
    let vocab_size = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let mut seen = HashSet::new();
    let mut report = PrepareReport::default();
    let mut search = Search::new(options);
    let mut nth = 0;
    let (mut train, mut valid) = (Shard::default(), Shard::default());
    for (files, for_training) in [(&options.valid, false), (&options.train, true)] {
        for file in files {
            progress(file);
            let mut number = 0;
            each_document(file, &options.field, &mut |document| {
                number += 1;
                if !seen.insert(fingerprint(document.as_bytes())) {
                    report.duplicates += 1;
                    return Ok(());
                }
                if !search.keeps(document, nth, number, &mut report) {
                    return Ok(());
                }
                let drawn = random.next_u64() as f64 / u64::MAX as f64;
                let keep = for_training && drawn >= options.valid_fraction;
                if keep { &mut train } else { &mut valid }.push(&tokenizer, document)
            })?;
            nth += 1;
        }
    }
    if train.ends.is_empty() && valid.ends.is_empty() {
        return Err(TrainError::input("data", "the files hold no documents"));
    }
    std::fs::create_dir_all(output).map_err(TrainError::io(output))?;
    train.write(&output.join("train.tokens"), vocab_size)?;
    valid.write(&output.join("valid.tokens"), vocab_size)?;
    for (name, text) in [("tokenizer.json", &tokenizer_json), ("tokenizer_config.json", &config)] {
        write_text(&output.join(name), text)?;
    }
    report.train = train.report();
    report.valid = valid.report();
    Ok(report)
}

/// 128 bits of a document's text, or of other bytes (FNV-1a).
pub(crate) fn fingerprint(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, &byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b)
    })
}

/// Writes a small file whole or not at all.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<(), TrainError> {
    let io = TrainError::io(path);
    let mut out = AtomicFile::create(path).map_err(&io)?;
    out.write_all(text.as_bytes()).map_err(&io)?;
    out.commit().map_err(&io)
}
