//! What the inputs of a model's linear layers are like, in a file that can be used again.
//!
//! A safetensors file: for each block `l` and input (`qkv`, `wo`, `gate_up`, `down`) `layers.{l}.{input}.mean` and
//! `.absmax`, `[n]`, and `.moments`, `[n, n]`, the sum of the outer products over all tokens (of `wo` and `down`
//! each divided by the mean square of the residual stream that they add to, where no norm comes between); `tokens`, `[1]`; and
//! `sensitivity`, one number for each matrix of the layers in the order wq, wk, wv, wo, w1, w3, w2. All in f32.

use std::io::Write;
use std::path::Path;

use engine::layerwise::{Input, Layerwise};
use engine::{ActivationMode, KernelFamily, LoadOptions, Model, SourceFile};
use formats::TensorInfo;
use formats::writer::AtomicFile;
use serde_json::{Map, Value, json};

use super::moments::{Moments, inputs, weigh};
use super::{Text, sensitivity};
use crate::quantize::{Progress, QuantizeError};
use crate::solve::Products;

/// Statistics in a file.
#[derive(Debug, Clone)]
pub struct Statistics {
    file: SourceFile,
    tensors: Vec<TensorInfo>,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    /// Samples of the text.
    pub samples: usize,
    /// Tokens in all of them.
    pub tokens: usize,
}

/// Runs the model at `input` on a text and writes the statistics of its layers' inputs to `output`.
///
/// # Errors
/// What the engine reports of the model; a text that does not do; and what prevents the file from being written.
pub fn collect(
    input: &Path,
    output: &Path,
    text: &Text,
    load: &LoadOptions,
    progress: &mut Progress<'_>,
) -> Result<Collected, QuantizeError> {
    let load =
        LoadOptions { kernel: KernelFamily::Reference, activations: ActivationMode::F32, ..load.clone() };
    let model = Model::load(input, &load)?;
    let samples = text.samples(&model)?;
    let tokens: usize = samples.iter().map(Vec::len).sum();
    let sensitivity = sensitivity::measure(&model, &samples, progress)?;
    let at = |source| QuantizeError::Io { path: output.to_owned(), source };
    let mut out = AtomicFile::create(output).map_err(at)?;
    let directory = directory(&model, sensitivity.len());
    out.write_all(&(directory.len() as u64).to_le_bytes()).map_err(at)?;
    out.write_all(&directory).map_err(at)?;
    let mut put = |values: &[f32]| -> Result<(), QuantizeError> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes).map_err(at)
    };
    put(&[tokens as f32])?;
    put(&sensitivity)?;
    let context = samples.iter().map(Vec::len).max().unwrap_or(1);
    let (mut products, mut layerwise) = (Products::new(model.threads()), Layerwise::new(&model, context)?);
    let mut streams: Vec<Vec<f32>> =
        samples.iter().map(|ids| layerwise.embed(ids)).collect::<Result<_, _>>()?;
    let layers = &model.weights.layers;
    for (l, layer) in layers.iter().enumerate() {
        progress(&format!("block {l}"), l, layers.len());
        let wrong = QuantizeError::matrix(&layer.wq.weight.name);
        let layer = layer.in_f32().map_err(&wrong)?;
        let mut sums = Input::OF_BLOCK.map(|input| Sums::new(input.linears(&layer)[0].weight.cols));
        for x in &mut streams {
            let seen = inputs(&mut layerwise, l, &layer, x, model.config.dim)?;
            for (sums, seen) in sums.iter_mut().zip(seen) {
                sums.add(&mut products, seen.values, seen.weights).map_err(&wrong)?;
            }
        }
        for sums in sums {
            let mean: Vec<f32> = sums.sum.iter().map(|sum| (sum / tokens as f64) as f32).collect();
            put(&mean)?;
            put(&sums.absmax)?;
            put(&sums.moments.sum)?;
        }
    }
    out.commit().map_err(at)?;
    Ok(Collected { samples: samples.len(), tokens })
}

/// The JSON header of the file.
fn directory(model: &Model, matrices: usize) -> Vec<u8> {
    let (mut entries, mut end) = (Map::new(), 0);
    let mut add = |name: String, shape: &[usize]| {
        let bytes = shape.iter().product::<usize>() * 4;
        entries.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [end, end + bytes] }));
        end += bytes;
    };
    add("tokens".to_owned(), &[1]);
    add("sensitivity".to_owned(), &[matrices]);
    for (l, layer) in model.weights.layers.iter().enumerate() {
        for input in Input::OF_BLOCK {
            let n = input.linears(layer)[0].weight.cols;
            add(name(l, input, "mean"), &[n]);
            add(name(l, input, "absmax"), &[n]);
            add(name(l, input, "moments"), &[n, n]);
        }
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    text
}

fn name(l: usize, input: Input, what: &str) -> String {
    format!("layers.{l}.{}.{what}", input.name())
}

/// Sums over the tokens of one input.
struct Sums {
    sum: Vec<f64>,
    absmax: Vec<f32>,
    moments: Moments,
}

impl Sums {
    fn new(n: usize) -> Self {
        Self { sum: vec![0.0; n], absmax: vec![0.0; n], moments: Moments::new(n, n) }
    }

    fn add(
        &mut self,
        products: &mut Products,
        mut values: Vec<f32>,
        weights: Option<Vec<f32>>,
    ) -> Result<(), kernels::MatmulError> {
        for row in values.chunks_exact(self.sum.len()) {
            for ((sum, absmax), x) in self.sum.iter_mut().zip(&mut self.absmax).zip(row) {
                *sum += f64::from(*x);
                *absmax = absmax.max(x.abs());
            }
        }
        weights.iter().for_each(|weights| weigh(&mut values, weights));
        self.moments.add(products, &values, &values)
    }
}

impl Statistics {
    /// Opens a file that [`collect`] has written.
    ///
    /// # Errors
    /// No such file, or no safetensors file.
    pub fn open(path: &Path) -> Result<Self, QuantizeError> {
        let file = SourceFile::open(path)?;
        let tensors = formats::safetensors_file::parse(file.bytes())
            .map_err(|source| engine::EngineError::Format { path: path.to_owned(), source })?;
        Ok(Self { file, tensors })
    }

    /// The checksum of the file.
    pub(crate) fn checksum(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        self.file.bytes().chunks(1 << 20).for_each(|bytes| crc.update(bytes));
        crc.finalize()
    }

    /// Tokens that were seen.
    pub(crate) fn tokens(&self) -> Result<usize, QuantizeError> {
        Ok(self.values("tokens", &[1])?[0].max(0.0) as usize)
    }

    /// The sensitivity of each of so many matrices.
    pub(crate) fn sensitivity(&self, matrices: usize) -> Result<Vec<f32>, QuantizeError> {
        self.values("sensitivity", &[matrices])
    }

    /// The second moments of an input, `[n, n]`.
    pub(crate) fn moments(&self, l: usize, input: Input, n: usize) -> Result<Vec<f32>, QuantizeError> {
        self.values(&name(l, input, "moments"), &[n, n])
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, QuantizeError> {
        let wrong = |problem: String| {
            let file = self.file.path().display();
            QuantizeError::option("--calibration", format!("{file}: {name}: {problem}: of another model?"))
        };
        let info = self.tensors.iter().find(|info| info.name == name);
        let info = info.ok_or_else(|| wrong("is not there".to_owned()))?;
        let bytes = info.range(self.file.bytes().len() as u64).map_err(|err| wrong(err.to_string()))?;
        let values = self.file.bytes()[bytes].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        let values: Vec<f32> = values.collect();
        let same = info.shape.iter().map(|&d| d as usize).eq(shape.iter().copied());
        if !same || values.len() != shape.iter().product::<usize>() {
            return Err(wrong(format!("its shape is {:?}, not {shape:?}", info.shape)));
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(i) => Err(wrong(format!("element {i} is {}", values[i]))),
            None => Ok(values),
        }
    }
}
