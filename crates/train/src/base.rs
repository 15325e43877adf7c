//! Models of files as what is trained further, and what became of them back in their place.

use std::path::{Path, PathBuf};

use engine::chat_template::ChatTemplate;
use engine::config::{Activation as EngineActivation, Architecture, Pairing};
use engine::tokenizer::Tokenizer;
use engine::weights::{Layer, Linear, WeightMatrix, Weights};
use engine::{EngineError, KernelFamily, LoadOptions, Model, ModelConfig};
use kernels::codec::quantize_row;
use kernels::row::RowType;

use crate::error::TrainError;
use crate::model::{
    Activation, Frozen, Kind, Layout, Nf4, Planes, RowOrder, Shape, Stored, Tensor, ternary_row,
};

/// How the matrices of frozen linear layers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In f32: fastest, most memory.
    F32,
    /// As the file has them, read in place.
    File,
    /// NF4: 4 bits, and an f32 for 64 weights.
    Nf4,
    /// Q4V1's blocks: 4 bits, and an f16 for 32 weights.
    Int4,
    /// T-MAC v2's rows: ternary, and an f16 a row.
    Ternary,
}

impl Storage {
    /// All of them with their names.
    pub const ALL: [(&'static str, Self); 5] = [
        ("f32", Self::F32),
        ("file", Self::File),
        ("nf4", Self::Nf4),
        ("int4", Self::Int4),
        ("ternary", Self::Ternary),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, storage)| *storage == self).map_or("", |&(name, _)| name)
    }
}

/// A type of floats in which a trained model is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight.
    F16,
    /// 2 bytes a weight, with the range of F32.
    BF16,
}

impl FloatType {
    fn row_type(self) -> RowType {
        match self {
            Self::F32 => RowType::F32,
            Self::F16 => RowType::F16,
            Self::BF16 => RowType::BF16,
        }
    }
}

/// How a trained model's matrices are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// All of them in floats.
    Floats(FloatType),
    /// Linear layers in TG1 or, of two planes, TG2, as [`crate::model::Network::distill`] rounds them; embedding and classifier
    /// in Q8_0, or in F16 where their rows are no whole blocks of 32.
    Ternary(Planes),
}

impl Written {
    /// The type of a matrix with `cols` columns.
    fn row_type(self, kind: Kind, cols: usize) -> RowType {
        match (self, kind) {
            (Self::Floats(float), _) => float.row_type(),
            (Self::Ternary(planes), Kind::Linear) => planes.row_type(),
            (Self::Ternary(_), _) if RowType::Q8_0.row_bytes(cols).is_some() => RowType::Q8_0,
            (Self::Ternary(_), _) => RowType::F16,
        }
    }
}

/// A model of a file without its way of running.
#[derive(Debug)]
pub struct Base {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is.
    pub shape: Shape,
    /// Its parameters.
    pub frozen: Frozen,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, if any.
    pub template: Option<ChatTemplate>,
    /// Tokens that end an answer, in ascending order.
    pub eos: Vec<u32>,
}

/// Loads a model so that its matrices are as its file has them: to be trained, or to be written.
///
/// # Errors
/// What the engine says of the file.
pub fn load_rows(path: &Path, options: &LoadOptions) -> Result<Model, TrainError> {
    // One thread: nothing is multiplied.
    let options = LoadOptions { threads: Some(1), kernel: KernelFamily::Reference, ..options.clone() };
    Ok(Model::load(path, &options)?)
}

/// A model with a low-rank adapter, a folder as PEFT writes it, added to its weights; the matrices that change are in `float`,
/// all others as they were.
///
/// # Errors
/// What the engine says of the model and of the adapter.
pub fn merged(
    path: &Path,
    options: &LoadOptions,
    adapter: &Path,
    float: FloatType,
) -> Result<Model, TrainError> {
    let mut model = load_rows(path, options)?;
    model.merge_adapter(adapter, float.row_type())?;
    Ok(model)
}

impl Base {
    /// Takes a model up with its linear layers kept as `storage` says; one whose rows are no whole blocks of that stays as its
    /// file has it, and so do embedding and classifier.
    ///
    /// # Errors
    /// What the engine says of the file; a model without tokenizer; a field of an architecture for which there is no backward
    /// pass.
    pub fn load(path: &Path, options: &LoadOptions, storage: Storage) -> Result<Self, TrainError> {
        let model = load_rows(path, options)?;
        model.need_tokenizer()?;
        let shape = shape(&model)
            .map_err(|(field, problem)| TrainError::input(format!("{}: {field}", path.display()), problem))?;
        let layout = Layout::new(&shape);
        let Model { config, weights, tokenizer, chat_template, eos, .. } = model;
        let mut frozen = take(&config, &layout, weights).map_err(EngineError::from)?;
        keep(&mut frozen, &layout, storage);
        let missing = || TrainError::input(path.display().to_string(), "this file has no tokenizer");
        let tokenizer = tokenizer.ok_or_else(missing)?;
        Ok(Self { path: path.to_owned(), shape, frozen, tokenizer, template: chat_template, eos })
    }
}

/// The shape of a model; an error names the field that no backward pass is written for.
fn shape(model: &Model) -> Result<Shape, (&'static str, String)> {
    let c = &model.config;
    let wrong = |field, problem: String| Err((field, problem));
    if !matches!(c.architecture, Architecture::Llama | Architecture::BitNet | Architecture::Bitllama) {
        return wrong("architecture", format!("{} cannot be trained, llama and bitnet can", c.architecture));
    }
    let biased = |layer: &Layer| layer.linears().any(|linear| linear.bias.is_some());
    if model.weights.layers.iter().any(biased) {
        return wrong("bias", "linear layers with biases cannot be trained".to_owned());
    }
    if c.q_dim() != c.dim {
        let problem = format!("{} heads of {} do not make {}", c.n_heads, c.head_dim, c.dim);
        return wrong("head_dim", problem);
    }
    if c.rope.scaling.is_some() || c.rope.divisors.is_some() {
        return wrong("rope_scaling", "models with scaled RoPE cannot be trained".to_owned());
    }
    if c.sliding_window.is_some() {
        return wrong("sliding_window", "models with a sliding window cannot be trained".to_owned());
    }
    let usual = 1.0 / (c.head_dim as f32).sqrt();
    if c.embedding_scale != 1.0 || (c.attention_scale - usual).abs() > 1e-6 * usual {
        return wrong("attention_scale", "models with scales of their own cannot be trained".to_owned());
    }
    let shape = Shape {
        dim: c.dim,
        hidden_dim: c.hidden_dim,
        n_layers: c.n_layers,
        n_heads: c.n_heads,
        n_kv_heads: c.n_kv_heads,
        vocab_size: c.vocab_size,
        seq_len: c.seq_len,
        norm_eps: c.norm_eps.max(f32::MIN_POSITIVE),
        rope_theta: c.rope.theta,
        activation: match c.activation {
            EngineActivation::Silu => Activation::Silu,
            EngineActivation::Relu2 => Activation::Relu2,
            EngineActivation::GeluTanh => return wrong("activation", "GELU cannot be trained".to_owned()),
        },
        sub_norms: c.architecture.has_sub_norms(),
        tied: model.weights.wcls.is_none(),
        ternary: c.int8_linear,
    };
    shape.check().map_err(|error| (error.field, error.problem))?;
    Ok(shape)
}

/// The order of queries' and keys' rows.
fn rotated(config: &ModelConfig) -> RowOrder {
    match config.pairing {
        Pairing::Half => RowOrder::Kept,
        Pairing::Adjacent => RowOrder::Neighbours { head_dim: config.head_dim },
    }
}

/// All tensors as the file has them.
fn take(config: &ModelConfig, layout: &Layout, weights: Weights) -> Result<Frozen, kernels::MatmulError> {
    let rotated = rotated(config);
    let mut stored: Vec<Stored> = layout.tensors.iter().map(|_| Stored::Floats(Vec::new())).collect();
    let mut matrix = |id: usize, matrix: WeightMatrix, order| stored[id] = Stored::Rows { matrix, order };
    matrix(layout.embedding, weights.token_embedding, RowOrder::Kept);
    if let Some(wcls) = weights.wcls {
        matrix(layout.head, wcls, RowOrder::Kept);
    }
    let mut norms = vec![(layout.norm, weights.rms_final)];
    for (ids, layer) in layout.layers.iter().zip(weights.layers) {
        let mut linear = |id: usize, linear: Linear, order| matrix(id, linear.weight, order);
        linear(ids.q, layer.wq, rotated);
        linear(ids.k, layer.wk, rotated);
        linear(ids.v, layer.wv, RowOrder::Kept);
        linear(ids.o, layer.wo, RowOrder::Kept);
        linear(ids.gate, layer.w1, RowOrder::Kept);
        linear(ids.up, layer.w3, RowOrder::Kept);
        linear(ids.down, layer.w2, RowOrder::Kept);
        norms.extend([(ids.input_norm, layer.rms_att), (ids.post_norm, layer.rms_ffn)]);
        norms.extend(ids.attn_sub_norm.zip(layer.attn_sub_norm));
        norms.extend(ids.ffn_sub_norm.zip(layer.ffn_sub_norm));
    }
    norms.into_iter().for_each(|(id, values)| stored[id] = Stored::Floats(values));
    Frozen::new(layout, stored)
}

/// Keeps the linear layers in another way.
fn keep(frozen: &mut Frozen, layout: &Layout, storage: Storage) {
    frozen.change(|id, stored| {
        let Tensor { name, rows, cols, kind, .. } = &layout.tensors[id];
        let (rows, cols) = (*rows, *cols);
        if *kind != Kind::Linear && !(storage == Storage::F32 && *kind != Kind::Norm) {
            return None;
        }
        match storage {
            Storage::File => None,
            Storage::F32 => {
                let mut values = vec![0.0; rows * cols];
                stored.decode(0..rows, cols, &mut values);
                Some(Stored::Floats(values))
            }
            Storage::Nf4 => {
                Some(Stored::Nf4(Nf4::new(rows, cols, |r, out| stored.decode(r..r + 1, cols, out))))
            }
            Storage::Int4 => rounded(name, stored, (rows, cols), RowType::Int4),
            Storage::Ternary => rounded(name, stored, (rows, cols), RowType::Ternary16),
        }
    });
}

/// A matrix in a type of the kernels, if its rows are whole blocks of it.
fn rounded(name: &str, stored: &Stored, (rows, cols): (usize, usize), row_type: RowType) -> Option<Stored> {
    let bytes = encode(rows, cols, row_type, |r, out| stored.decode(r..r + 1, cols, out))?;
    let matrix = WeightMatrix::owned(name.to_owned(), row_type, (rows, cols), bytes).ok()?;
    Some(Stored::Rows { matrix, order: RowOrder::Kept })
}

/// Rows that `row` writes in a type of the kernels; `None` where they are no whole blocks of it.
fn encode(
    rows: usize,
    cols: usize,
    row_type: RowType,
    mut row: impl FnMut(usize, &mut [f32]),
) -> Option<Vec<u8>> {
    let row_bytes = row_type.row_bytes(cols)?;
    let (mut bytes, mut values) = (vec![0; rows * row_bytes], vec![0.0; cols]);
    for (r, out) in bytes.chunks_exact_mut(row_bytes).enumerate() {
        row(r, &mut values);
        match row_type {
            // As it was learned; the type's own quantizer may choose other scales.
            RowType::TG1 => ternary_row(Planes::One, &values, out),
            RowType::TG2 => ternary_row(Planes::Two, &values, out),
            _ => quantize_row(row_type, &values, out).ok()?,
        }
    }
    Some(bytes)
}

/// Puts parameters of this layout into the model that they were made from ([`load_rows`]), its matrices as `written` says.
///
/// # Errors
/// A model of another shape.
pub fn place(
    model: &mut Model,
    layout: &Layout,
    parameters: &[f32],
    written: Written,
) -> Result<(), TrainError> {
    let rotated = rotated(&model.config);
    let matrix = |id: usize, place: &mut WeightMatrix, order: RowOrder| -> Result<(), TrainError> {
        let Tensor { rows, cols, range, kind, .. } = &layout.tensors[id];
        let row_type = written.row_type(*kind, *cols);
        // Where each of the model's rows comes from.
        let mut from = vec![0; *rows];
        (0..*rows).for_each(|r| from[order.source(r)] = r);
        let values = &parameters[range.clone()];
        let bytes = encode(*rows, *cols, row_type, |r, out| {
            out.copy_from_slice(&values[from[r] * cols..][..*cols]);
        });
        let name = place.name.clone();
        *place = WeightMatrix::owned(name, row_type, (*rows, *cols), bytes.unwrap_or_default())
            .map_err(EngineError::from)?;
        Ok(())
    };
    let norm =
        |id: usize, place: &mut Vec<f32>| *place = parameters[layout.tensors[id].range.clone()].to_vec();
    let weights = &mut model.weights;
    matrix(layout.embedding, &mut weights.token_embedding, RowOrder::Kept)?;
    if let Some(wcls) = &mut weights.wcls {
        matrix(layout.head, wcls, RowOrder::Kept)?;
    }
    norm(layout.norm, &mut weights.rms_final);
    for (ids, layer) in layout.layers.iter().zip(&mut weights.layers) {
        matrix(ids.q, &mut layer.wq.weight, rotated)?;
        matrix(ids.k, &mut layer.wk.weight, rotated)?;
        matrix(ids.v, &mut layer.wv.weight, RowOrder::Kept)?;
        matrix(ids.o, &mut layer.wo.weight, RowOrder::Kept)?;
        matrix(ids.gate, &mut layer.w1.weight, RowOrder::Kept)?;
        matrix(ids.up, &mut layer.w3.weight, RowOrder::Kept)?;
        matrix(ids.down, &mut layer.w2.weight, RowOrder::Kept)?;
        norm(ids.input_norm, &mut layer.rms_att);
        norm(ids.post_norm, &mut layer.rms_ffn);
    }
    Ok(())
}
