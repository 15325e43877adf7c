//! A model from one container into another without changing a value.
//!
//! The engine loads the model as for running, so that whatever it can run can be converted. Each tensor is then
//! written in the type that it has, or in one that holds exactly the same numbers, one tensor at a time; what
//! is encoded anew is decoded again and compared. Rows of wq and wk change places where the target turns other
//! pairs of elements by RoPE. A target that cannot hold something refuses the model and names it.

mod error;
pub(crate) mod exact;
mod gguf;
mod hf_vocabulary;
mod llama2c;
pub(crate) mod parts;
mod rope_tables;
mod stacked;
mod trailer;
mod vocabulary;

use std::path::Path;

use engine::{KernelFamily, LoadOptions, Model, SourceFile, TokenizerSource};
use formats::writer::AtomicFile;

pub use error::ConvertError;

/// A container that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// GGUF version 3.
    Gguf,
    /// T-MAC v2 with a metadata trailer; for ternary models.
    TmacV2,
    /// llama2.c v0, f32.
    Llama2cV0,
    /// llama2.c v1, f32.
    Llama2cV1,
    /// T-MAC v1; only [`mod@crate::quantize`] writes it.
    TmacV1,
    /// Q4V1 with a metadata trailer; only [`mod@crate::quantize`] writes it.
    Q4V1,
}

impl Target {
    /// Those that a conversion can write, with their names on the command line.
    pub const ALL: [(&'static str, Self); 4] = [
        ("gguf", Self::Gguf),
        ("tmac2", Self::TmacV2),
        ("llama2c", Self::Llama2cV0),
        ("llama2c-v1", Self::Llama2cV1),
    ];

    /// The target of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, target)| target)
    }

    /// What the name of an output file asks for: `.gguf`, `.tmac2.bin` or another `.bin` (llama2.c v0).
    pub fn from_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        match name {
            _ if name.ends_with(".gguf") => Some(Self::Gguf),
            _ if name.ends_with(".tmac2.bin") => Some(Self::TmacV2),
            _ if name.ends_with(".bin") => Some(Self::Llama2cV0),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gguf => "gguf",
            Self::TmacV2 => "tmac2",
            Self::Llama2cV0 => "llama2c",
            Self::Llama2cV1 => "llama2c-v1",
            Self::TmacV1 => "tmac",
            Self::Q4V1 => "q4v1",
        }
    }
}

/// Which of GGUF's ternary types to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TernaryType {
    /// 54 bytes for 256 weights.
    Tq1_0,
    /// 66 bytes for 256 weights, faster to read.
    #[default]
    Tq2_0,
}

/// How to convert.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How the input is loaded: tokenizer, chat template, arrangement of I2_S.
    pub load: LoadOptions,
    /// Type of ternary matrices in GGUF.
    pub ternary: TernaryType,
    /// Write the model although the target cannot hold all of it, and note what is lost.
    pub force: bool,
    /// Matrices outside the layers that Q4V1 holds in f32: `token_embedding`, `wcls`.
    pub floats: Vec<&'static str>,
}

/// What became of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorReport {
    /// Its name in the output.
    pub name: String,
    /// Row-major shape, outermost dimension first.
    pub shape: Vec<u64>,
    /// Its type in the input.
    pub from: String,
    /// Its type in the output.
    pub to: String,
    /// Bytes in the output.
    pub bytes: u64,
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every tensor of the output in file order.
    pub tensors: Vec<TensorReport>,
    /// What the output holds in another way than the input, or not at all, though no weight differs.
    pub notes: Vec<String>,
}

/// Called before each tensor is written: its name in the output, how many are done, how many there are.
pub type Progress<'a> = dyn FnMut(&str, usize, usize) + 'a;

/// Writes the model at `input` to `output` as `target`. The output appears when it is whole, or not at all.
///
/// # Errors
/// [`ConvertError::Refused`] when the target cannot hold the model as it is; what the engine reports of the
/// input; and what prevents the output from being written.
pub fn convert(
    input: &Path,
    output: &Path,
    target: Target,
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<Report, ConvertError> {
    // Weights are only read here: one thread, whatever the user runs with.
    // The rows as the file has them: nothing is multiplied here.
    let load = LoadOptions { threads: Some(1), kernel: KernelFamily::Reference, ..options.load.clone() };
    let model = Model::load(input, &load)?;
    write(&model, input, output, target, options, progress)
}

/// Writes `model`, which was loaded from `input` row by row ([`KernelFamily::Reference`]) and may have changed since, to
/// `output` as [`convert`] does.
///
/// # Errors
/// As [`convert`].
pub fn write(
    model: &Model,
    input: &Path,
    output: &Path,
    target: Target,
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<Report, ConvertError> {
    let source = Source::new(model, input, options)?;
    let mut out = AtomicFile::create(output)?;
    let report = match target {
        Target::Gguf => gguf::write(&source, &mut out, progress)?,
        Target::TmacV2 | Target::Llama2cV0 | Target::Llama2cV1 => {
            llama2c::write(&source, target, &mut out, progress)?
        }
        Target::TmacV1 | Target::Q4V1 => stacked::write(&source, target, &mut out, progress)?,
    };
    out.commit()?;
    Ok(report)
}

/// Everything that a target is written from.
struct Source<'a> {
    model: &'a Model,
    /// The input's bytes, for what the engine does not keep; `None` for a directory.
    file: Option<SourceFile>,
    tokenizer: Option<TokenizerSource>,
    options: &'a Options,
}

impl<'a> Source<'a> {
    fn new(model: &'a Model, input: &Path, options: &'a Options) -> Result<Self, ConvertError> {
        Ok(Self {
            file: if input.is_dir() { None } else { Some(SourceFile::open(input)?) },
            tokenizer: TokenizerSource::find(input, &options.load)?,
            model,
            options,
        })
    }

    /// Refuses the model for what the target cannot hold of it, or notes what is lost, as the options say.
    fn lose(
        &self,
        target: Target,
        field: &str,
        problem: String,
        notes: &mut Vec<String>,
    ) -> Result<(), ConvertError> {
        if !self.options.force {
            return Err(ConvertError::refused(target.name(), field, problem));
        }
        notes.push(format!("lost: {field}: {problem}"));
        Ok(())
    }

    /// The type that the input has a tensor in.
    fn type_of(&self, name: &str) -> String {
        let found = self.model.info.tensors.iter().find(|tensor| tensor.name == name);
        found.map_or_else(String::new, |tensor| tensor.type_name.clone())
    }
}
