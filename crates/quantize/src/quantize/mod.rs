//! A model with its matrices rounded to fewer bits.
//!
//! Each matrix is made by itself and kept in a journal, so that a run that was killed goes on where it stopped and
//! memory holds little more than one matrix in f32. When all are there the output is written from the journal as
//! [`mod@crate::convert`] writes any model, under a temporary name, and renamed.

mod budget;
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

use crate::calibrate::{self, Statistics, Text};
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
    /// Statistics that take the place of the text: each layer is then fitted to its own outputs in the original model.
    pub statistics: Option<Statistics>,
    /// Type of the embedding (see [`VOCABULARY_TYPES`]); the format's own by default, in GGUF the input's.
    pub embedding: Option<RowType>,
    /// Type of the classifier, likewise.
    pub head: Option<RowType>,
    /// Ternary planes that are added up in [`Format::Ternary`]: 1 or 2.
    pub planes: usize,
    /// Mean bits of a weight in the linear layers, for [`Format::Ternary`]: types are chosen by how much each matrix
    /// matters.
    pub bits: Option<f64>,
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
            statistics: None,
            embedding: None,
            head: None,
            planes: 1,
            bits: None,
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
    check_options(options)?;
    let mut opened = Journal::open(output, &fingerprint(input, options)?)?;
    let made = make(&model, target, options, &mut opened, progress);
    let (plan, resumed) = match made {
        Ok(made) => made,
        Err(err) => {
            opened.remove();
            return Err(err);
        }
    };
    let writing = convert::Options {
        load,
        ternary: TernaryType::default(),
        force: options.force,
        floats: plan.floats.clone(),
    };
    plan::replace(&mut model, opened.matrices()?);
    let done = plan.steps.len();
    let written = convert::write(&model, input, output, target, &writing, &mut |name, written, tensors| {
        progress(name, done + written, done + tensors);
    });
    opened.remove();
    let mut report = written?;
    report.notes.splice(0..0, plan.notes);
    Ok(Summary { container: target.name(), report, bits: plan::bits(&model, target), resumed })
}

/// Options that the format has no use for are refused.
fn check_options(options: &Options) -> Result<(), QuantizeError> {
    let ternary = options.format == Format::Ternary;
    match (options.planes, options.bits) {
        (1 | 2, None) | (1, Some(_)) if ternary => Ok(()),
        (1, None) => Ok(()),
        (2, Some(_)) if ternary => {
            Err(QuantizeError::option("--planes", "a budget of bits (--bits) chooses the planes itself"))
        }
        (1 | 2, bits) => {
            let option = if bits.is_some() { "--bits" } else { "--planes" };
            Err(QuantizeError::option(option, "only --format ternary has a choice"))
        }
        (planes, _) => Err(QuantizeError::option("--planes", format!("{planes}: take 1 or 2"))),
    }
}

/// Makes all matrices that are not in the journal; how many were.
fn make(
    model: &Model,
    target: Target,
    options: &Options,
    journal: &mut Journal,
    progress: &mut Progress<'_>,
) -> Result<(Plan, usize), QuantizeError> {
    let types = match options.bits {
        Some(budget) => {
            let damages = match journal.matrices()?.into_iter().find(|made| made.name == SENSITIVITY) {
                Some(measured) => measured.to_values().map_err(QuantizeError::matrix(SENSITIVITY))?,
                None if let Some(statistics) = &options.statistics => {
                    statistics.sensitivity(calibrate::sensitivity::names(model).count())?
                }
                None => {
                    let samples = options.text.samples(model)?;
                    let damages = calibrate::sensitivity::measure(model, &samples, progress)?;
                    let bytes: Vec<u8> = damages.iter().flat_map(|damage| damage.to_le_bytes()).collect();
                    journal.append(SENSITIVITY, RowType::F32, (1, damages.len()), &bytes)?;
                    damages
                }
            };
            Some(budget::choose(model, &damages, budget)?)
        }
        None => None,
    };
    let plan = Plan::new(model, target, options, types.as_deref())?;
    let resumed = match options.method {
        _ if plan.steps.is_empty() => 0,
        Method::Round => round::all(model, &plan, journal, progress)?,
        Method::Calibrated => calibrate::all(model, &plan, options, journal, progress)?,
    };
    Ok((plan, resumed))
}

/// What the journal calls the matrices' sensitivities.
const SENSITIVITY: &str = "sensitivity";

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
    let statistics = options.statistics.as_ref().map_or(0, Statistics::checksum);
    let how = Options {
        load: LoadOptions { threads: None, ..options.load.clone() },
        text,
        statistics: None,
        ..options.clone()
    };
    let version = env!("CARGO_PKG_VERSION");
    Ok(format!("{version} {:08x} {statistics:08x} {how:?}", crc.finalize()).replace('\n', " "))
}

/// The bits that a weight takes in a container, its row's scale included.
pub(crate) fn bits_of(row_type: RowType, cols: usize, target: Target) -> f64 {
    match target {
        Target::TmacV1 => 2.0,
        _ => row_type.row_bytes(cols).map_or(0.0, |bytes| bytes as f64 * 8.0 / cols as f64),
    }
}
