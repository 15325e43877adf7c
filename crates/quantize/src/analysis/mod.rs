//! What quantization has done to a model: each tensor before and after, each layer's hidden states, and the distributions
//! of the next token.
//!
//! Models may come from any container: tensors are matched by what they are for, and rows of wq and wk by what RoPE turns
//! together. Tensors are read row by row from the mapped files; for the text both models are run side by side.

mod curve;
mod error;
pub mod page;
mod roles;
mod size;
mod tensor;

use std::path::{Path, PathBuf};

use engine::eval::{Compare, LayerError, compare};
use engine::{KernelFamily, LoadOptions, Model};
use serde::{Serialize, Serializer};

use crate::convert::parts::{RowOrder, Tensor};
use roles::{Role, check_same};
use size::Stored;
use tensor::{Rows, Sums, measure};

pub use curve::{CurvePoint, parse_curve};
pub use error::AnalysisError;
pub use size::{Size, TypeSize};
pub use tensor::{Histogram, SCALE_BINS, Scales, TensorReport, WEIGHT_BINS};

/// How to compare.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How the models are loaded and run.
    pub load: LoadOptions,
    /// The text that they are run on; without it only tensors are compared.
    pub text: Option<Text>,
}

/// A text that models are compared on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The text itself.
    pub text: String,
    /// Tokens of a chunk; 512 by default, at most what the models were made for.
    pub context: Option<usize>,
    /// Chunks at most.
    pub chunks: Option<usize>,
}

/// Tokens of a chunk unless the user says otherwise: llama.cpp's.
const DEFAULT_CONTEXT: usize = 512;

/// An original and what was made of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// The original.
    pub original: Size,
    /// Its perplexity, if there was a text.
    pub perplexity: Option<f64>,
    /// Each quantized model, in the order in which they were given.
    pub quantized: Vec<QuantizedReport>,
}

/// A quantized model beside the original.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantizedReport {
    /// How large it is.
    #[serde(flatten)]
    pub size: Size,
    /// Bytes of the original's files over those of its own.
    pub compression: f64,
    /// Over all matrices of the layers, as [`TensorReport::relative_error`].
    pub relative_error: f64,
    /// The same in dB; `None` (null) when nothing has changed.
    pub sqnr_db: Option<f64>,
    /// Tensors that only the original has, by its file's names.
    pub only_in_original: Vec<String>,
    /// Tensors that only the quantized model has.
    pub only_in_quantized: Vec<String>,
    /// Every tensor that both have, in the order in which they are used.
    pub tensors: Vec<TensorReport>,
    /// How far the hidden states behind each layer are from the original's; empty without a text.
    #[serde(serialize_with = "layers_as_objects")]
    pub layers: Vec<LayerError>,
    /// On the text, if there was one.
    pub text: Option<TextReport>,
}

/// A quantized model on the text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TextReport {
    /// Its perplexity.
    pub perplexity: f64,
    /// The original's on the same positions.
    pub original_perplexity: f64,
    /// Mean of KL(original || quantized) in nats.
    pub mean_kl: f64,
    /// Its 99th percentile.
    pub p99_kl: f64,
    /// Its largest value.
    pub max_kl: f64,
    /// Share of positions where both find the same token most likely.
    pub top1_agreement: f64,
    /// Scored positions.
    pub tokens: usize,
}

/// Hears what is being compared, how much of it is done, and how much there is.
pub type Progress<'a> = dyn FnMut(&str, usize, usize) + 'a;

/// Compares each of the quantized models with the original; one of them is in memory at a time beside it.
///
/// # Errors
/// What the engine reports of a model; models that differ in more than their weights' types; weights that are not finite.
pub fn analyze(
    original: &Path,
    quantized: &[PathBuf],
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<Analysis, AnalysisError> {
    // The rows as the files have them, read in place.
    let as_stored = LoadOptions { kernel: KernelFamily::Reference, ..options.load.clone() };
    let (mut reports, mut perplexity) = (Vec::new(), None);
    let mut size = {
        let original = Model::load(original, &as_stored)?;
        for path in quantized {
            let model = Model::load(path, &as_stored)?;
            check_same(&original, &model)?;
            reports.push(tensors(&original, &model, progress)?);
        }
        Size::new(&original)
    };
    tell_apart(original, &mut size, quantized, &mut reports);
    if let Some(text) = &options.text {
        let original = Model::load(original, &options.load)?;
        for (path, report) in quantized.iter().zip(&mut reports) {
            on_text(&original, path, text, options, report, progress)?;
            perplexity = report.text.map(|text| text.original_perplexity);
        }
    }
    Ok(Analysis { original: size, perplexity, quantized: reports })
}

/// Models of one name in several folders are called by their paths.
fn tell_apart(original: &Path, size: &mut Size, quantized: &[PathBuf], reports: &mut [QuantizedReport]) {
    let names: Vec<String> = std::iter::once(&*size)
        .chain(reports.iter().map(|report| &report.size))
        .map(|size| size.name.clone())
        .collect();
    let sizes = std::iter::once(size).chain(reports.iter_mut().map(|report| &mut report.size));
    let paths = std::iter::once(original).chain(quantized.iter().map(PathBuf::as_path));
    for (size, path) in sizes.zip(paths) {
        if names.iter().filter(|name| **name == size.name).count() > 1 {
            size.name = path.display().to_string();
        }
    }
}

/// All tensors of one model beside the original's.
fn tensors(
    original: &Model,
    model: &Model,
    progress: &mut Progress<'_>,
) -> Result<QuantizedReport, AnalysisError> {
    let (before, after) = (Stored::new(original), Stored::new(model));
    let rotated = RowOrder::between(&original.config, model.config.pairing);
    let roles: Vec<Role> = Role::all(original.config.n_layers).collect();
    let size = Size::new(model);
    let (mut reports, mut linear) = (Vec::new(), Sums::default());
    let (mut only_in_original, mut only_in_quantized) = (Vec::new(), Vec::new());
    for (i, role) in roles.iter().enumerate() {
        let name = role.name();
        progress(&format!("{}: {name}", size.name), i, roles.len());
        match (role.of(original, rotated), role.of(model, RowOrder::Kept)) {
            (None, None) => continue,
            (Some(_), None) => only_in_original.push(name.clone()),
            (None, Some(_)) => only_in_quantized.push(name.clone()),
            (Some(_), Some(_)) => {}
        }
        let pair = (role.used_by(original, rotated), role.used_by(model, RowOrder::Kept));
        let (Some(a), Some(b)) = pair else { continue };
        let found =
            measure(&Rows::new(&original.info.path, &name, a)?, &Rows::new(&model.info.path, &name, b)?)?;
        if role.is_linear() {
            linear.add_tensor(&found.sums);
        }
        let stored = [(a, &before), (b, &after)].map(|(tensor, stored)| type_and_bits(tensor, stored));
        let [(type_before, bits_before), (type_after, bits_after)] = stored;
        reports.push(TensorReport {
            name,
            layer: role.layer(),
            kind: role.kind(),
            shape: found.shape,
            types: [type_before, type_after],
            bits: [bits_before, bits_after],
            mse: found.mse(),
            relative_error: found.sums.relative_error(),
            sqnr_db: found.sums.sqnr_db(),
            max_error: found.max_error(),
            zeros: found.zeros(),
            histogram: found.histogram,
            scales: found.scales,
        });
    }
    Ok(QuantizedReport {
        compression: original.info.file_bytes as f64 / model.info.file_bytes.max(1) as f64,
        relative_error: linear.relative_error(),
        sqnr_db: linear.sqnr_db(),
        size,
        only_in_original,
        only_in_quantized,
        tensors: reports,
        layers: Vec::new(),
        text: None,
    })
}

/// As the file has it. Vectors are in f32 once they are read.
fn type_and_bits(tensor: Tensor<'_>, stored: &Stored<'_>) -> (String, f64) {
    match tensor {
        Tensor::Vector(..) => ("F32".to_owned(), 32.0),
        Tensor::Matrix(matrix, _) => {
            let weights = matrix.rows as u64 * matrix.cols as u64;
            let in_memory =
                || (matrix.row_type.to_string(), matrix.byte_len() as f64 * 8.0 / weights.max(1) as f64);
            stored.matrix(&matrix.name, weights).unwrap_or_else(in_memory)
        }
    }
}

/// Both models on the text.
fn on_text(
    original: &Model,
    path: &Path,
    text: &Text,
    options: &Options,
    report: &mut QuantizedReport,
    progress: &mut Progress<'_>,
) -> Result<(), AnalysisError> {
    let model = Model::load(path, &options.load)?;
    let longest = original.config.seq_len.min(model.config.seq_len);
    let context = text.context.unwrap_or(DEFAULT_CONTEXT.min(longest));
    let what = Compare { context, chunks: text.chunks, layers: true };
    let name = format!("{}: text", report.size.name);
    let found = compare(&model, original, &text.text, what, &mut |done, all| progress(&name, done, all))?;
    let divergence = found.divergence;
    report.layers = found.layers;
    report.text = Some(TextReport {
        perplexity: divergence.perplexity,
        original_perplexity: divergence.reference_perplexity,
        mean_kl: divergence.mean,
        p99_kl: divergence.p99,
        max_kl: divergence.max,
        top1_agreement: divergence.top1_agreement,
        tokens: divergence.tokens,
    });
    Ok(())
}

fn layers_as_objects<S: Serializer>(layers: &[LayerError], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Layer {
        relative_error: f64,
        cosine: f64,
        mse: f64,
    }
    serializer.collect_seq(layers.iter().map(|layer| Layer {
        relative_error: layer.relative_error,
        cosine: layer.cosine,
        mse: layer.mse,
    }))
}
