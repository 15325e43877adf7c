//! The forward pass of every architecture, top to bottom.

use kernels::attention::{Queries, attend_all};
use kernels::ops::{add, rms_norm, rms_norm_in_place};
use kernels::rope::{rotate, rotation};
use kernels::{Activations, MatmulError};

use crate::config::{ModelConfig, Rope};
use crate::kv_cache::KvCache;
use crate::model::Model;
use crate::weights::{ActivationMode, Layer, Linear};

/// Tokens that go through the layers together at most: enough to use each row of weights many times while it
/// is in the cache, few enough that their activations stay there too.
pub const MAX_BATCH: usize = 64;

/// What one element of a gated activation costs beside a multiply-add: mostly its exponential.
const GATE_WORK: usize = 16;

/// Buffers of the forward pass, reused from step to step. T stands for the tokens of the batch.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Residual stream, `[T, dim]`.
    x: Vec<f32>,
    /// Output of a norm or of a block, `[T, dim]` or `[T, n_heads * head_dim]`.
    xb: Vec<f32>,
    /// Queries, then gate: `[T, n_heads * head_dim]`.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// `[T, hidden_dim]`
    gate: Vec<f32>,
    up: Vec<f32>,
    input: Activations,
    /// Rotation of each token, `[T][head_dim / 2]`.
    rotations: Vec<Vec<(f32, f32)>>,
    sliding_rotations: Vec<Vec<(f32, f32)>>,
    /// `[rows, vocab_size]`
    pub(crate) logits: Vec<f32>,
}

/// Frequencies of both kinds of layers, computed once for a model.
#[derive(Debug)]
pub(crate) struct Frequencies {
    all: Vec<f32>,
    sliding: Vec<f32>,
}

impl Frequencies {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        let of = |rope: &Rope| rope.inverse_frequencies(config.head_dim);
        Self {
            all: of(&config.rope),
            sliding: config.sliding_window.as_ref().map_or(vec![], |s| of(&s.rope)),
        }
    }
}

/// Which positions of the batch get logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogitsOf {
    Last,
    All,
}

/// Runs `tokens` (at most [`MAX_BATCH`], ids inside the vocabulary) from `position` on through all layers,
/// extends the cache, and leaves logits in `buffers.logits`.
pub(crate) fn forward(
    model: &Model,
    cache: &mut KvCache,
    tokens: &[u32],
    position: usize,
    logits_of: LogitsOf,
    buffers: &mut Buffers,
) -> Result<(), MatmulError> {
    let c = &model.config;
    embed(model, tokens, buffers)?;
    rotations(&model.frequencies.all, position, tokens.len(), &mut buffers.rotations);
    rotations(&model.frequencies.sliding, position, tokens.len(), &mut buffers.sliding_rotations);
    for (l, layer) in model.weights.layers.iter().enumerate() {
        attention(model, layer, l, cache, position, buffers)?;
        feed_forward(model, layer, buffers)?;
    }
    let b = buffers;
    if logits_of == LogitsOf::Last {
        let last = b.x.len() - c.dim;
        b.x.drain(..last);
    }
    let rows = b.x.len() / c.dim;
    norm_rows(c, &b.x, &model.weights.rms_final, &mut b.xb);
    b.input.load(&b.xb, rows, c.dim);
    let classifier = model.weights.classifier();
    let form = model.activations.form(classifier.row_type, false);
    b.logits.resize(rows * c.vocab_size, 0.0);
    classifier.multiply(&model.team, &mut b.input, form, &mut b.logits)
}

fn embed(model: &Model, tokens: &[u32], b: &mut Buffers) -> Result<(), MatmulError> {
    let c = &model.config;
    b.x.resize(tokens.len() * c.dim, 0.0);
    let table = &model.weights.token_embedding;
    for (&token, x) in tokens.iter().zip(b.x.chunks_exact_mut(c.dim)) {
        table.dequantize_row(token as usize, x)?;
        if c.embedding_scale != 1.0 {
            x.iter_mut().for_each(|x| *x *= c.embedding_scale);
        }
    }
    Ok(())
}

/// x += wo(attention(wq, wk, wv of norm(x)))
fn attention(
    model: &Model,
    layer: &Layer,
    l: usize,
    cache: &mut KvCache,
    position: usize,
    b: &mut Buffers,
) -> Result<(), MatmulError> {
    let c = &model.config;
    let tokens = b.x.len() / c.dim;
    norm_rows(c, &b.x, &layer.rms_att, &mut b.xb);
    load(model, &b.xb, tokens, c.dim, &mut b.input);
    linear(model, &layer.wq, &mut b.input, tokens, &mut b.q)?;
    linear(model, &layer.wk, &mut b.input, tokens, &mut b.k)?;
    linear(model, &layer.wv, &mut b.input, tokens, &mut b.v)?;
    for (x, norm) in [(&mut b.q, &layer.q_norm), (&mut b.k, &layer.k_norm)] {
        if let Some(norm) = norm {
            x.chunks_exact_mut(c.head_dim).for_each(|head| rms_norm_in_place(head, Some(norm), c.norm_eps));
        }
    }
    let sliding = c.sliding_window.as_ref().filter(|s| s.layers[l]);
    let rotations = if sliding.is_some() { &b.sliding_rotations } else { &b.rotations };
    for (x, row) in [(&mut b.q, c.q_dim()), (&mut b.k, c.kv_dim())] {
        for (x, rotation) in x.chunks_exact_mut(row).zip(rotations) {
            rotate(x, c.head_dim, c.pairing, rotation);
        }
    }
    cache.store(l, position, &b.k, &b.v);
    let (keys, values) = cache.layer(l);
    let queries = Queries {
        queries: &b.q,
        head_dim: c.head_dim,
        n_heads: c.n_heads,
        n_kv_heads: c.n_kv_heads,
        position,
        window: sliding.map(|s| s.window),
        scale: c.attention_scale,
    };
    b.xb.resize(tokens * c.q_dim(), 0.0);
    attend_all(&model.team, &queries, keys, values, &mut b.xb);
    norm_in_place(c, &layer.attn_sub_norm, &mut b.xb);
    load(model, &b.xb, tokens, c.q_dim(), &mut b.input);
    linear(model, &layer.wo, &mut b.input, tokens, &mut b.xb)?;
    norm_in_place(c, &layer.post_att_norm, &mut b.xb);
    add(&mut b.x, &b.xb);
    Ok(())
}

/// x += w2(f(w1 x') * w3 x') with x' = norm(x)
fn feed_forward(model: &Model, layer: &Layer, b: &mut Buffers) -> Result<(), MatmulError> {
    let c = &model.config;
    let tokens = b.x.len() / c.dim;
    norm_rows(c, &b.x, &layer.rms_ffn, &mut b.xb);
    load(model, &b.xb, tokens, c.dim, &mut b.input);
    linear(model, &layer.w1, &mut b.input, tokens, &mut b.gate)?;
    linear(model, &layer.w3, &mut b.input, tokens, &mut b.up)?;
    let (activation, hidden_dim) = (c.activation, c.hidden_dim);
    let (up, work) = (&b.up, b.gate.len() * GATE_WORK);
    let chunk = b.gate.len().div_ceil(model.team.threads());
    model.team.for_each_chunk(&mut b.gate, chunk, work, &|i, gate| {
        activation.gate(gate, &up[i * chunk..][..gate.len()]);
    });
    norm_in_place(c, &layer.ffn_sub_norm, &mut b.gate);
    load(model, &b.gate, tokens, hidden_dim, &mut b.input);
    linear(model, &layer.w2, &mut b.input, tokens, &mut b.xb)?;
    norm_in_place(c, &layer.post_ffn_norm, &mut b.xb);
    add(&mut b.x, &b.xb);
    Ok(())
}

/// Gives the linear layers their input. BitNet's definition rounds it; where the kernels then work in f32, the
/// f32 form has to be what the rounding stands for.
fn load(model: &Model, x: &[f32], tokens: usize, cols: usize, input: &mut Activations) {
    input.load(x, tokens, cols);
    if model.config.int8_linear && model.rounds_in_f32 {
        input.round_to_int8_token();
    }
}

fn linear(
    model: &Model,
    linear: &Linear,
    input: &mut Activations,
    tokens: usize,
    out: &mut Vec<f32>,
) -> Result<(), MatmulError> {
    out.resize(tokens * linear.weight.rows, 0.0);
    linear.apply(&model.team, input, model.activations, model.config.int8_linear, out)
}

fn norm_rows(c: &ModelConfig, x: &[f32], weight: &[f32], out: &mut Vec<f32>) {
    out.resize(x.len(), 0.0);
    for (x, out) in x.chunks_exact(c.dim).zip(out.chunks_exact_mut(c.dim)) {
        rms_norm(x, Some(weight), c.norm_eps, out);
    }
}

fn norm_in_place(c: &ModelConfig, weight: &Option<Vec<f32>>, x: &mut [f32]) {
    if let Some(weight) = weight {
        x.chunks_exact_mut(weight.len()).for_each(|x| rms_norm_in_place(x, Some(weight), c.norm_eps));
    }
}

fn rotations(frequencies: &[f32], position: usize, tokens: usize, tables: &mut Vec<Vec<(f32, f32)>>) {
    tables.resize_with(tokens.max(tables.len()), Vec::new);
    for (t, table) in tables[..tokens].iter_mut().enumerate() {
        rotation(position + t, frequencies, table);
    }
}

impl ActivationMode {
    /// Whether some matrix of these row types meets rounded activations in f32.
    pub(crate) fn rounds_in_f32(
        self,
        model_rounds: bool,
        mut types: impl Iterator<Item = kernels::row::RowType>,
    ) -> bool {
        model_rounds && types.any(|ty| self.form(ty, true) == kernels::ActivationForm::F32)
    }
}
