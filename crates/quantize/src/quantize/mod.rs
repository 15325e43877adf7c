//! A model with its matrices rounded to fewer bits.
//!
//! Each matrix is made by itself and kept in a journal, so that a run that was killed goes on where it stopped and
//! memory holds little more than one matrix in f32. When all are there the output is written from the journal as
//! [`mod@crate::convert`] writes any model, under a temporary name, and renamed.

mod error;
mod format;
mod journal;
mod plan;
mod round;

use std::path::Path;

use engine::{ActivationMode, KernelFamily, LoadOptions, Model};
use kernels::row::RowType;

pub use error::QuantizeError;
pub use format::{Format, VOCABULARY_TYPES};

use crate::calibrate::{self, Text};
use crate::convert::{self, Report, Target, TernaryType};
pub(crate) use journal::Journal;
pub(crate) use plan::Plan;
pub(crate) use round::rounded;

/// How matrices are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Each weight by itself, as the format's own quantizer does.
    #[default]
    Round,
    /// Together, so that the layers' outputs on a text change least.
    Calibrated,
}

impl Method {
    /// All of them with their names.
    pub const ALL: [(&'static str, Self); 2] = [("round", Self::Round), ("calibrated", Self::Calibrated)];

    /// The method of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, method)| method)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, method)| *method == self).map_or("", |&(name, _)| name)
    }
}

/// How to quantize.
#[derive(Debug, Clone)]
pub struct Options {
    /// How the input is loaded: tokenizer, chat template, arrangement of I2_S, threads.
    pub load: LoadOptions,
    /// What the matrices of the layers become.
    pub format: Format,
    /// How.
    pub method: Method,
    /// What [`Method::Calibrated`] reads.
    pub text: Text,
    /// Type of the embedding (see [`VOCABULARY_TYPES`]); the format's own by default, in GGUF the input's.
    pub embedding: Option<RowType>,
    /// Type of the classifier, likewise.
    pub head: Option<RowType>,
    /// Keep in F16 what the format cannot hold, and write the model although something is lost.
    pub force: bool,
}

impl Options {
    /// Plain rounding to a format.
    pub fn new(format: Format) -> Self {
        Self {
            load: LoadOptions::default(),
            format,
            method: Method::default(),
            text: Text::shipped(),
            embedding: None,
            head: None,
            force: false,
        }
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The container.
    pub container: &'static str,
    /// Every tensor of the output, and notes.
    pub report: Report,
    /// Mean bits of a weight in the linear layers.
    pub bits: f64,
    /// Matrices that an earlier run had done.
    pub resumed: usize,
}

/// Called before each matrix is quantized or written: its name, how many are done, how many there are.
pub type Progress<'a> = dyn FnMut(&str, usize, usize) + 'a;

/// Writes the model at `input` to `output`, quantized. The output appears when it is whole, or not at all.
///
/// # Errors
/// What the engine reports of the input; options that do not go together; weights that are not finite; rows that the
/// format cannot hold and an architecture that it cannot hold, unless forced; and what prevents the files from being
/// written.
pub fn quantize(
    input: &Path,
    output: &Path,
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<Summary, QuantizeError> {
    let load = LoadOptions {
        kernel: KernelFamily::Reference,
        activations: ActivationMode::F32,
        ..options.load.clone()
    };
    let mut model = Model::load(input, &load)?;
    let target = options.format.target(output);
    let plan = Plan::new(&model, target, options)?;
    let writing = convert::Options {
        load,
        ternary: TernaryType::default(),
        force: options.force,
        floats: plan.floats.clone(),
    };
    let mut resumed = 0;
    let mut journal = None;
    if !plan.steps.is_empty() {
        let fingerprint = fingerprint(input, options)?;
        let mut opened = Journal::open(output, &fingerprint)?;
        let made = match options.method {
            Method::Round => round::all(&model, &plan, &mut opened, progress),
            Method::Calibrated => calibrate::all(&model, &plan, &options.text, &mut opened, progress),
        };
        match made {
            Ok(found) => resumed = found,
            Err(err) => {
                opened.remove();
                return Err(err);
            }
        }
        plan::replace(&mut model, opened.matrices()?);
        journal = Some(opened);
    }
    let done = plan.steps.len();
    let written = convert::write(&model, input, output, target, &writing, &mut |name, written, tensors| {
        progress(name, done + written, done + tensors);
    });
    if let Some(journal) = journal {
        journal.remove();
    }
    let mut report = written?;
    report.notes.splice(0..0, plan.notes);
    Ok(Summary { container: target.name(), report, bits: plan::bits(&model, target), resumed })
}

/// All that decides what the matrices become, on one line.
fn fingerprint(input: &Path, options: &Options) -> Result<String, QuantizeError> {
    let at = |path: &Path, source| QuantizeError::Io { path: path.to_owned(), source };
    let mut files = vec![input.to_owned()];
    if input.is_dir() {
        let entries = std::fs::read_dir(input).map_err(|err| at(input, err))?;
        files = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
        files.sort();
    }
    let mut crc = crc32fast::Hasher::new();
    for path in &files {
        let file = engine::SourceFile::open(path)?;
        file.bytes().chunks(1 << 20).for_each(|bytes| crc.update(bytes));
    }
    crc.update(options.text.text.as_bytes());
    let text = Text { text: String::new(), ..options.text.clone() };
    let how =
        Options { load: LoadOptions { threads: None, ..options.load.clone() }, text, ..options.clone() };
    Ok(format!("{} {:08x} {how:?}", env!("CARGO_PKG_VERSION"), crc.finalize()).replace('\n', " "))
}

/// The bits that a weight takes in a container, its row's scale included.
pub(crate) fn bits_of(row_type: RowType, cols: usize, target: Target) -> f64 {
    match target {
        Target::TmacV1 => 2.0,
        _ => row_type.row_bytes(cols).map_or(0.0, |bytes| bytes as f64 * 8.0 / cols as f64),
    }
}
