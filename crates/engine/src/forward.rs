//! The forward pass of every architecture, top to bottom.

pub mod layerwise;

use kernels::attention::{Heads, Span, attend, parts_capacity};
use kernels::ops::{add_on, rms_norm_rows_in_place};
use kernels::rope::{rotate_rows, rotation, table_len};
use kernels::{Activations, MatmulError};

use crate::batch::Slot;
use crate::config::{ModelConfig, Rope};
use crate::head::ScanBuffers;
use crate::hidden_states::HiddenStates;
use crate::kv_cache::cache_shape;
use crate::lora::LoraBuffers;
use crate::model::Model;
use crate::names::Part;
use crate::profile::{Operation, Profile};
use crate::weights::{ActivationMode, Layer, Linear};

/// Tokens that go through the layers together at most: enough to use each row of weights many times while it
/// is in the cache, few enough that their activations stay there too.
pub const MAX_BATCH: usize = 128;

/// Buffers of the forward pass, reused from step to step. T stands for the tokens of the batch.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Residual stream, `[T, dim]`; after the pass that of the rows with logits.
    pub(crate) x: Vec<f32>,
    /// Output of a block, `[T, dim]` or `[T, n_heads * head_dim]`.
    xb: Vec<f32>,
    /// Queries, `[T, n_heads * head_dim]`.
    q: Vec<f32>,
    /// Keys and values, `[T, n_kv_heads * head_dim]`.
    k: Vec<f32>,
    v: Vec<f32>,
    /// `[T, hidden_dim]`
    gate: Vec<f32>,
    up: Vec<f32>,
    /// What a matrix takes, in the form that it wants.
    input: Activations,
    /// Rotation of each token, `[T, 2, head_dim]`, in layers that see all positions and in the others.
    rotations: Vec<f32>,
    sliding_rotations: Vec<f32>,
    /// Working space of the attention.
    parts: Vec<f32>,
    /// `[rows, vocab_size]`
    pub(crate) logits: Vec<f32>,
    scan: ScanBuffers,
    lora: LoraBuffers,
    /// Where the time goes, if somebody asked.
    pub(crate) profile: Option<Profile>,
    /// What each layer leaves, if somebody asked.
    pub(crate) hidden_states: Option<HiddenStates>,
}

impl Buffers {
    /// Room for `tokens` tokens whose sequences have up to `context` positions.
    pub(crate) fn new(model: &Model, tokens: usize, context: usize) -> Self {
        let c = &model.config;
        let room = |row: usize| Vec::with_capacity(tokens * row);
        let mut input = Activations::default();
        input.reserve(tokens, c.dim.max(c.q_dim()).max(c.hidden_dim));
        let mut scan = ScanBuffers::default();
        if model.weights.scan.is_some() {
            scan.reserve(c.vocab_size, c.dim);
        }
        let mut lora = LoraBuffers::default();
        lora.reserve(&model.adapters, c, tokens);
        Self {
            x: room(c.dim),
            xb: room(c.dim.max(c.q_dim())),
            q: room(c.q_dim()),
            k: room(c.kv_dim()),
            v: room(c.kv_dim()),
            gate: room(c.hidden_dim),
            up: room(c.hidden_dim),
            input,
            rotations: room(table_len(c.head_dim)),
            sliding_rotations: room(table_len(c.head_dim)),
            parts: Vec::with_capacity(parts_capacity(&heads(c, None), context)),
            logits: Vec::with_capacity(c.vocab_size),
            scan,
            lora,
            profile: None,
            hidden_states: None,
        }
    }

    /// Says what the time since the last call went into.
    fn lap(&mut self, layer: Option<usize>, operation: Operation) {
        if let Some(profile) = &mut self.profile {
            profile.lap(layer, operation);
        }
    }
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

/// Runs the tokens of all slots (ids inside the vocabulary, positions inside the caches) through all layers,
/// stores their keys and values, and leaves the logits that the slots ask for in `b.logits`.
pub(crate) fn forward(model: &Model, slots: &mut [Slot<'_>], b: &mut Buffers) -> Result<(), MatmulError> {
    if let Some(profile) = &mut b.profile {
        profile.start();
    }
    embed(model, slots, b)?;
    rotations(model, slots, &model.frequencies.all, &mut b.rotations);
    rotations(model, slots, &model.frequencies.sliding, &mut b.sliding_rotations);
    b.lap(None, Operation::Embedding);
    for (l, layer) in model.weights.layers.iter().enumerate() {
        attention(model, layer, l, slots, b)?;
        feed_forward(model, layer, l, slots, b)?;
        if let Some(kept) = &mut b.hidden_states {
            kept.record(l, &b.x);
        }
    }
    logits(model, slots, b)?;
    b.lap(None, Operation::Classifier);
    Ok(())
}

/// x = the embeddings of all tokens
fn embed(model: &Model, slots: &[Slot<'_>], b: &mut Buffers) -> Result<(), MatmulError> {
    let c = &model.config;
    let ids = slots.iter().flat_map(|slot| slot.ids);
    b.x.resize(ids.clone().count() * c.dim, 0.0);
    let table = &model.weights.token_embedding;
    for (&id, x) in ids.zip(b.x.chunks_exact_mut(c.dim)) {
        table.dequantize_row(id as usize, x)?;
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
    slots: &mut [Slot<'_>],
    b: &mut Buffers,
) -> Result<(), MatmulError> {
    let (c, team) = (&model.config, &model.team);
    load_normed(model, &b.x, &layer.rms_att, &mut b.input);
    let layers = [(&layer.wq, &mut b.q), (&layer.wk, &mut b.k), (&layer.wv, &mut b.v)];
    linear(model, &mut b.input, layers)?;
    let layers = [(Part::Wq, &mut b.q), (Part::Wk, &mut b.k), (Part::Wv, &mut b.v)];
    adapt(model, slots, l, &b.input, layers, &mut b.lora)?;
    b.lap(Some(l), Operation::Qkv);
    for (x, norm) in [(&mut b.q, &layer.q_norm), (&mut b.k, &layer.k_norm)] {
        if let Some(norm) = norm {
            rms_norm_rows_in_place(team, x, norm, c.norm_eps);
        }
    }
    let sliding = c.sliding_window.as_ref().filter(|s| s.layers[l]);
    let rotations = if sliding.is_some() { &b.sliding_rotations } else { &b.rotations };
    rotate_rows(team, &mut b.q, c.q_dim(), c.head_dim, c.pairing, rotations);
    rotate_rows(team, &mut b.k, c.kv_dim(), c.head_dim, c.pairing, rotations);
    let (mut keys, mut values) = (&b.k[..], &b.v[..]);
    for slot in slots.iter_mut() {
        let n = slot.ids.len() * c.kv_dim();
        slot.cache.store(l, &keys[..n], &values[..n]);
        (keys, values) = (&keys[n..], &values[n..]);
    }
    b.lap(Some(l), Operation::Rope);
    let span = |i: usize| {
        let Slot { cache, ids, .. } = &slots[i];
        Span { tokens: ids.len(), position: cache.position(), layer: l, pages: cache.pages() }
    };
    b.xb.resize(b.q.len(), 0.0);
    let heads = heads(c, sliding.map(|s| s.window));
    attend(team, &heads, slots.len(), &span, &b.q, &mut b.xb, &mut b.parts);
    b.lap(Some(l), Operation::Attention);
    load(model, &b.xb, c.q_dim(), &layer.attn_sub_norm, &mut b.input);
    linear(model, &mut b.input, [(&layer.wo, &mut b.xb)])?;
    adapt(model, slots, l, &b.input, [(Part::Wo, &mut b.xb)], &mut b.lora)?;
    add_normed(model, &layer.post_att_norm, b);
    b.lap(Some(l), Operation::Wo);
    Ok(())
}

/// x += w2(f(w1 x') * w3 x') with x' = norm(x)
fn feed_forward(
    model: &Model,
    layer: &Layer,
    l: usize,
    slots: &[Slot<'_>],
    b: &mut Buffers,
) -> Result<(), MatmulError> {
    let c = &model.config;
    load_normed(model, &b.x, &layer.rms_ffn, &mut b.input);
    linear(model, &mut b.input, [(&layer.w1, &mut b.gate), (&layer.w3, &mut b.up)])?;
    adapt(model, slots, l, &b.input, [(Part::W1, &mut b.gate), (Part::W3, &mut b.up)], &mut b.lora)?;
    b.lap(Some(l), Operation::GateUp);
    c.activation.gate_on(&model.team, &mut b.gate, &b.up);
    b.lap(Some(l), Operation::Activation);
    load(model, &b.gate, c.hidden_dim, &layer.ffn_sub_norm, &mut b.input);
    linear(model, &mut b.input, [(&layer.w2, &mut b.xb)])?;
    adapt(model, slots, l, &b.input, [(Part::W2, &mut b.xb)], &mut b.lora)?;
    add_normed(model, &layer.post_ffn_norm, b);
    b.lap(Some(l), Operation::Down);
    Ok(())
}

/// logits = classifier(norm(x)) of the rows that the slots ask for
fn logits(model: &Model, slots: &[Slot<'_>], b: &mut Buffers) -> Result<(), MatmulError> {
    let c = &model.config;
    let (mut rows, mut end) = (0, 0);
    for slot in slots {
        end += slot.ids.len();
        b.x.copy_within((end - slot.rows()) * c.dim..end * c.dim, rows * c.dim);
        rows += slot.rows();
    }
    b.logits.resize(rows * c.vocab_size, 0.0);
    let classifier = model.weights.classifier();
    let form = model.activations.form(classifier.row_type, false);
    let weight = Some(&model.weights.rms_final[..]);
    let mut first = 0;
    // What a slot gets does not depend on what its neighbours ask for.
    for slots in slots.chunk_by(|a, b| a.logits.window() == b.logits.window()) {
        let n: usize = slots.iter().map(Slot::rows).sum();
        if n == 0 {
            continue;
        }
        let logits = &mut b.logits[first * c.vocab_size..(first + n) * c.vocab_size];
        b.input.load_normed(&model.team, &b.x[first * c.dim..(first + n) * c.dim], c.dim, weight, c.norm_eps);
        b.input.ensure_on(&model.team, form);
        match (&model.weights.scan, slots.first().and_then(|slot| slot.logits.window())) {
            (Some(scan), Some(window)) => {
                let exact = classifier.view()?;
                scan.logits(&exact, &model.team, &mut b.input, form, window, &mut b.scan, logits)?;
            }
            _ => classifier.multiply(&model.team, &mut b.input, form, logits)?,
        }
        first += n;
    }
    Ok(())
}

/// The attention of layers that see `window` positions.
fn heads(c: &ModelConfig, window: Option<usize>) -> Heads {
    Heads { n_heads: c.n_heads, cache: cache_shape(c), window, scale: c.attention_scale }
}

/// The norm of x, or x itself, as the input of linear layers.
fn load(model: &Model, x: &[f32], cols: usize, norm: &Option<Vec<f32>>, input: &mut Activations) {
    match norm {
        Some(weight) => load_normed(model, x, weight, input),
        None => {
            input.load(x, x.len() / cols, cols);
            round(model, input);
        }
    }
}

/// The norm of x as the input of linear layers.
fn load_normed(model: &Model, x: &[f32], weight: &[f32], input: &mut Activations) {
    input.load_normed(&model.team, x, weight.len(), Some(weight), model.config.norm_eps);
    round(model, input);
}

/// BitNet's definition rounds what its linear layers take; where the kernels then work in f32, the f32 form has
/// to be what the rounding stands for.
fn round(model: &Model, input: &mut Activations) {
    if model.config.int8_linear && model.rounds_in_f32 {
        input.round_to_int8_token();
    }
}

/// out = W input + b, for layers with the same input
fn linear<const N: usize>(
    model: &Model,
    input: &mut Activations,
    layers: [(&Linear, &mut Vec<f32>); N],
) -> Result<(), MatmulError> {
    let (int8_linear, tokens) = (model.config.int8_linear, input.tokens());
    let outputs = layers.map(|(linear, out)| {
        input.ensure_on(&model.team, model.activations.form(linear.weight.row_type, int8_linear));
        out.resize(tokens * linear.weight.rows, 0.0);
        (linear, &mut out[..])
    });
    Linear::apply(outputs.into_iter().collect(), &model.team, input, model.activations, int8_linear)
}

/// out += what the adapter of each sequence makes of its tokens' rows of the same input
fn adapt<const N: usize>(
    model: &Model,
    slots: &[Slot<'_>],
    l: usize,
    input: &Activations,
    layers: [(Part, &mut Vec<f32>); N],
    buffers: &mut LoraBuffers,
) -> Result<(), MatmulError> {
    if model.adapters.is_empty() {
        return Ok(());
    }
    let (tokens, cols) = (input.tokens().max(1), input.cols());
    for (part, out) in layers {
        let (rows, mut first) = (out.len() / tokens, 0);
        for slot in slots {
            let end = first + slot.ids.len();
            if let Some(lora) = slot.cache.adapter().and_then(|index| model.adapters.get(index)) {
                let (x, out) = (&input.f32()[first * cols..end * cols], &mut out[first * rows..end * rows]);
                lora.add(&model.team, (l, part), x, out, buffers)?;
            }
            first = end;
        }
    }
    Ok(())
}

/// x += norm(xb), or xb itself
fn add_normed(model: &Model, norm: &Option<Vec<f32>>, b: &mut Buffers) {
    if let Some(weight) = norm {
        rms_norm_rows_in_place(&model.team, &mut b.xb, weight, model.config.norm_eps);
    }
    add_on(&model.team, &mut b.x, &b.xb);
}

/// The rotation of each token's position; none for a model without layers of this kind.
fn rotations(model: &Model, slots: &[Slot<'_>], frequencies: &[f32], tables: &mut Vec<f32>) {
    let positions = slots.iter().flat_map(|slot| (slot.cache.position()..).take(slot.ids.len()));
    tables.resize(positions.clone().count() * table_len(2 * frequencies.len()), 0.0);
    let tables = tables.chunks_exact_mut(table_len(2 * frequencies.len()).max(1));
    for (position, table) in positions.zip(tables) {
        rotation(position, frequencies, model.config.pairing, table);
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
