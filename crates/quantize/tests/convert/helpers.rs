//! Where the models are, and what they say.

use std::path::{Path, PathBuf};

use engine::weights::WeightMatrix;
use engine::{ActivationMode, KvType, LoadOptions, Model, Sequence};
use quantize::convert::{ConvertError, Options, Report, Target, convert};
use tempfile::TempDir;

/// A shared data file, from `EDGELLM_TEST_DATA` or `shared/data` beside the checkout; says why a test skips.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("EDGELLM_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    existing(root.join(name), "EDGELLM_TEST_DATA says where the shared data is")
}

/// A downloaded model, from the folder that `EDGELLM_TEST_MODELS` names; says why a test skips.
pub(crate) fn downloaded(name: &str) -> Option<PathBuf> {
    let root = PathBuf::from(std::env::var_os("EDGELLM_TEST_MODELS").unwrap_or_default());
    existing(root.join(name), "EDGELLM_TEST_MODELS says where downloaded models are")
}

fn existing(path: PathBuf, hint: &str) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there ({hint})", path.display());
    None
}

/// A model of the repository.
pub(crate) fn ours(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name)
}

/// A folder for the files of one test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Converts to the file `name`, whose ending says the target.
    pub(crate) fn convert(&self, input: &Path, name: &str, options: &Options) -> (PathBuf, Report) {
        let output = self.path(name);
        let report = self.attempt(input, name, options).unwrap();
        (output, report)
    }

    pub(crate) fn attempt(
        &self,
        input: &Path,
        name: &str,
        options: &Options,
    ) -> Result<Report, ConvertError> {
        let target = Target::from_path(Path::new(name)).unwrap();
        convert(input, &self.path(name), target, options, &mut |_, _, _| {})
    }

    /// The names of all files in it.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// With a tokenizer of its own.
pub(crate) fn with_tokenizer(path: PathBuf) -> Options {
    Options { load: LoadOptions { tokenizer: Some(path), ..LoadOptions::default() }, ..Options::default() }
}

/// Loaded for exact arithmetic: f32 activations and cache.
pub(crate) fn load(path: &Path) -> Model {
    let options = LoadOptions {
        activations: ActivationMode::F32,
        kv_type: KvType::F32,
        threads: Some(1),
        ..LoadOptions::default()
    };
    Model::load(path, &options).unwrap()
}

/// Logits of 24 positions.
pub(crate) fn logits(model: &Model) -> Vec<Vec<f32>> {
    let ids: Vec<u32> = (0..24u32).map(|i| if i == 0 { 1 } else { i * 37 % 120 + 3 }).collect();
    let mut rows = Vec::new();
    let mut keep = |_: usize, logits: &[f32]| {
        rows.push(logits.to_vec());
        Ok(())
    };
    Sequence::new(model, 32).unwrap().forward_all(&ids, &mut keep).unwrap();
    rows
}

/// The largest difference between the logits of two models.
pub(crate) fn difference(a: &Path, b: &Path) -> f32 {
    let (a, b) = (logits(&load(a)), logits(&load(b)));
    assert_eq!(a.len(), b.len());
    let each = a.iter().flatten().zip(b.iter().flatten());
    each.map(|(a, b)| (a - b).abs()).fold(0.0, |worst, d| if d.is_nan() { f32::NAN } else { worst.max(d) })
}

/// The largest logit, to hold a difference against: sums in another order differ in their last bits.
pub(crate) fn largest_logit(path: &Path) -> f32 {
    logits(&load(path)).iter().flatten().fold(1.0, |m, x| x.abs().max(m))
}

/// Positions at which the logits of two models differ by more than 1e-3. BitNet rounds its activations: where one
/// lies on a rounding edge, the last bits of the computation, which change with the order of rows and the row
/// type, decide which way it goes, and the logits move.
pub(crate) fn edges(a: &Path, b: &Path) -> usize {
    let (a, b) = (logits(&load(a)), logits(&load(b)));
    let differ = |(a, b): &(&Vec<f32>, &Vec<f32>)| a.iter().zip(*b).any(|(a, b)| (a - b).abs() > 1e-3);
    a.iter().zip(&b).filter(differ).count()
}

/// All values of a matrix, its rows sorted by themselves, so that two orders of rows compare equal.
pub(crate) fn sorted_rows(weight: &WeightMatrix) -> Vec<Vec<u32>> {
    let view = weight.view().unwrap();
    let mut rows: Vec<Vec<u32>> = (0..weight.rows)
        .map(|r| {
            let mut row = vec![0.0; weight.cols];
            view.dequantize_row(r, &mut row).unwrap();
            // + 0.0 makes -0 a 0.
            row.iter().map(|w| (w + 0.0).to_bits()).collect()
        })
        .collect();
    rows.sort_unstable();
    rows
}

/// Two models have the same numbers in all their matrices, whatever the order of rows within wq and wk.
pub(crate) fn assert_same_weights(a: &Path, b: &Path) {
    let (a, b) = (load(a), load(b));
    assert_eq!(a.weights.layers.len(), b.weights.layers.len());
    let count = a.weights.matrices().count().min(b.weights.matrices().count());
    for (a, b) in a.weights.matrices().zip(b.weights.matrices()).take(count) {
        assert!(sorted_rows(a) == sorted_rows(b), "{} and {} differ", a.name, b.name);
    }
    assert!(sorted_rows(a.weights.classifier()) == sorted_rows(b.weights.classifier()));
    assert_eq!(a.weights.rms_final, b.weights.rms_final);
    for (a, b) in a.weights.layers.iter().zip(&b.weights.layers) {
        assert_eq!(
            (&a.rms_att, &a.rms_ffn, &a.attn_sub_norm, &a.ffn_sub_norm),
            (&b.rms_att, &b.rms_ffn, &b.attn_sub_norm, &b.ffn_sub_norm)
        );
    }
}
