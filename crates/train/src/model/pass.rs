//! All layers forward and backward over a batch, its sequences shared among threads.

use std::thread;

use kernels::gemm::Precision;
use kernels::rope::{Pairing, rotation, table_len};

use super::adapters::{Adapters, Dropout};
use super::distill::{Distance, Lesson, Teacher, TeacherRoom, apart};
use super::elementwise::{rms_norm, rms_norm_backward};
use super::frozen::Parameters;
use super::layer::{self, Cache, Scratch, Tokens};
use super::layout::{Kind, Layout};
use super::linear::{Gradients, Room, Weights};
use super::loss::{Targets, cross_entropy};
use super::round::round_weights;
use super::shape::Shape;

/// Sequences of one length. Each field has an element for each token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// What the model reads.
    pub inputs: Vec<u32>,
    /// What it should say next.
    pub targets: Vec<u32>,
    /// How much each position counts; 0: not at all.
    pub weights: Vec<f32>,
    /// The first position of its sequence that a token sees, where its document begins; never falls in a sequence.
    pub starts: Vec<u32>,
}

impl Batch {
    /// One sequence that is one document: each token is predicted by those before it.
    pub fn of_document(ids: &[u32]) -> Self {
        let n = ids.len().saturating_sub(1);
        Self {
            seq_len: n,
            inputs: ids[..n].to_vec(),
            targets: ids[ids.len().min(1)..].to_vec(),
            weights: vec![1.0; n],
            starts: vec![0; n],
        }
    }

    /// Sum of all weights.
    pub fn weight(&self) -> f64 {
        self.weights.iter().map(|&w| f64::from(w)).sum()
    }
}

/// What a pass computes with: sizes, places, and room for the work of each thread.
#[derive(Debug)]
pub struct Network {
    shape: Shape,
    layout: Layout,
    /// `[seq_len, 2, head_dim]`, and the same for turning back.
    rope: (Vec<f32>, Vec<f32>),
    workers: Vec<Worker>,
    /// The parameters as the matrix products see them.
    pub(super) rounded: Vec<f32>,
    /// Whether layers are computed anew in the backward pass instead of being kept.
    recompute: bool,
    /// How the products are made where derivatives are wanted.
    precision: Precision,
    /// Decides which inputs adapters are not shown.
    dropout_seed: u64,
}

/// One thread's room.
#[derive(Debug, Default)]
struct Worker {
    room: Room,
    scratch: Scratch,
    caches: Vec<Cache>,
    /// The residual stream before each layer, and behind the last.
    stream: Vec<Vec<f32>>,
    normed: Vec<f32>,
    d_normed: Vec<f32>,
    d_stream: Vec<f32>,
    logits: Vec<f32>,
    teacher: TeacherRoom,
    d_model: Vec<f32>,
    d_adapters: Vec<f32>,
}

/// Which derivatives are wanted.
pub enum Wanted<'a> {
    /// None: the loss alone.
    Loss,
    /// Those of all parameters, overwritten.
    Model(&'a mut [f32]),
    /// Those of the adapters, overwritten.
    Adapters(&'a mut [f32]),
}

impl Network {
    /// A network that works on `threads` threads.
    pub fn new(shape: Shape, threads: usize, recompute: bool) -> Self {
        let layout = Layout::new(&shape);
        let head_dim = shape.head_dim();
        let frequency = |i: usize| f64::from(shape.rope_theta).powf(-2.0 * i as f64 / head_dim as f64) as f32;
        let frequencies: Vec<f32> = (0..head_dim / 2).map(frequency).collect();
        let len = table_len(head_dim);
        let mut forward = vec![0.0; shape.seq_len * len];
        for (position, table) in forward.chunks_exact_mut(len).enumerate() {
            rotation(position, &frequencies, Pairing::Half, table);
        }
        let mut back = forward.clone();
        for table in back.chunks_exact_mut(len) {
            table[head_dim..].iter_mut().for_each(|sine| *sine = -*sine);
        }
        let workers = (0..threads.max(1)).map(|_| Worker::default()).collect();
        Self {
            shape,
            layout,
            rope: (forward, back),
            workers,
            rounded: Vec::new(),
            recompute,
            precision: Precision::F32,
            dropout_seed: 0,
        }
    }

    /// The network with the products of training made in `precision`. The loss alone is always computed in f32.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Sizes and kinds.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Names and places of the parameters.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Chooses anew what adapters are not shown of their inputs ([`Adapters::dropout`]).
    pub fn seed_dropout(&mut self, seed: u64) {
        self.dropout_seed = seed;
    }

    /// Mean loss of the batch in nats, by the weights of its positions, and its derivatives if wanted. A batch without
    /// weight has loss 0. `adapters`: adapters beside the linear layers and their values; inputs are left out where their
    /// derivatives are wanted. Frozen parameters have none.
    ///
    /// # Panics
    /// When `parameters`, the adapters' values or the wanted derivatives have another length than the layout says, or a
    /// token is outside the vocabulary.
    pub fn run<'p>(
        &mut self,
        parameters: impl Into<Parameters<'p>>,
        adapters: Option<(&Adapters, &[f32])>,
        batch: &Batch,
        wanted: Wanted<'_>,
    ) -> f64 {
        let parameters = parameters.into();
        let mut rounded = std::mem::take(&mut self.rounded);
        let values = match parameters {
            Parameters::Floats(values) => {
                assert_eq!(values.len(), self.layout.len(), "parameters of another model");
                if self.shape.ternary {
                    rounded.resize(values.len(), 0.0);
                    for tensor in &self.layout.tensors {
                        let range = tensor.range.clone();
                        let (from, to) = (&values[range.clone()], &mut rounded[range]);
                        match tensor.kind {
                            Kind::Linear => round_weights(from, to),
                            Kind::Embedding | Kind::Norm | Kind::Head => to.copy_from_slice(from),
                        }
                    }
                    Parameters::Floats(&rounded)
                } else {
                    parameters
                }
            }
            // As they were rounded when they were frozen.
            Parameters::Frozen(_) => parameters,
        };
        let loss = self.pass(values, adapters, None, batch, wanted).nll;
        self.rounded = rounded;
        loss
    }

    /// The mean losses of the batch, with those derivatives that are wanted: of the loss itself, or with a lesson of the
    /// distance from its teacher. `values` are as the matrix products see them.
    pub(super) fn pass(
        &mut self,
        values: Parameters<'_>,
        adapters: Option<(&Adapters, &[f32])>,
        lesson: Option<&Lesson<'_>>,
        batch: &Batch,
        wanted: Wanted<'_>,
    ) -> Distance {
        assert!(batch.seq_len <= self.shape.seq_len, "sequences longer than the context");
        let total = batch.weight();
        let factor = if total > 0.0 { (1.0 / total) as f32 } else { 0.0 };
        let rate = adapters.map_or(0.0, |(adapters, _)| adapters.dropout);
        let dropout = (rate > 0.0 && matches!(wanted, Wanted::Adapters(_))).then_some(Dropout {
            rate,
            seed: self.dropout_seed,
            first: 0,
        });
        let weights = Weights { shape: &self.shape, layout: &self.layout, values, adapters, dropout };
        let teacher = lesson.map(|lesson| Teacher {
            weights: Weights { values: lesson.teacher, adapters: None, dropout: None, ..weights },
            hidden: lesson.hidden,
            embedding: lesson.embedding,
        });
        let sequences = batch.inputs.len() / batch.seq_len.max(1);
        let share = sequences.div_ceil(self.workers.len()).max(1) * batch.seq_len;
        let (rope, recompute, precision) = (&self.rope, self.recompute, self.precision);
        let used = batch.inputs.len().div_ceil(share.max(1));
        let derivatives = match &wanted {
            Wanted::Loss => (None, None),
            Wanted::Model(d) => (Some(d.len()), None),
            Wanted::Adapters(d) => (None, Some(d.len())),
        };
        let run = |index: usize, worker: &mut Worker| {
            let part = index * share..batch.inputs.len().min((index + 1) * share);
            let starts = &batch.starts[part.clone()];
            let tokens = Tokens { seq_len: batch.seq_len, starts, rope: (&rope.0, &rope.1) };
            let targets =
                Targets { ids: &batch.targets[part.clone()], weights: &batch.weights[part.clone()] };
            let with_gradients = derivatives != (None, None);
            worker.room.gemm.precision = if with_gradients { precision } else { Precision::F32 };
            let dropout = dropout.map(|dropout| Dropout { first: part.start, ..dropout });
            let weights = Weights { dropout, ..weights };
            worker.run(weights, teacher, tokens, &batch.inputs[part], targets, factor, derivatives, recompute)
        };
        let run = &run;
        let loss = thread::scope(|scope| {
            let mut workers = self.workers[..used].iter_mut().enumerate();
            let first = workers.next();
            let others: Vec<_> =
                workers.map(|(index, worker)| scope.spawn(move || run(index, worker))).collect();
            let mut sum = first.map_or(Distance::default(), |(index, worker)| run(index, worker));
            for other in others {
                match other.join() {
                    Ok(loss) => sum += loss,
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            sum
        });
        let sum = |out: &mut [f32], of: fn(&Worker) -> &[f32]| {
            out.fill(0.0);
            self.workers[..used].iter().for_each(|worker| kernels::ops::add(out, of(worker)));
        };
        match wanted {
            Wanted::Loss => {}
            Wanted::Model(out) => sum(out, |worker| &worker.d_model),
            Wanted::Adapters(out) => sum(out, |worker| &worker.d_adapters),
        }
        if total > 0.0 { loss * (1.0 / total) } else { Distance::default() }
    }
}

/// The residual stream before each layer and behind the last, and the last one normed. Layers leave what their backward pass
/// needs in a cache each, or all in one.
#[allow(clippy::too_many_arguments, reason = "what is read, room for the work, and what is written")]
fn forward(
    weights: Weights<'_>,
    room: &mut Room,
    scratch: &mut Scratch,
    tokens: Tokens<'_>,
    inputs: &[u32],
    caches: &mut [Cache],
    stream: &mut Vec<Vec<f32>>,
    normed: &mut Vec<f32>,
) {
    let (shape, layout, dim) = (weights.shape, weights.layout, weights.shape.dim);
    let len = inputs.len() * dim;
    stream.resize_with(shape.n_layers + 1, Vec::new);
    stream.iter_mut().for_each(|x| x.resize(len, 0.0));
    for (x, &id) in stream[0].chunks_exact_mut(dim).zip(inputs) {
        let id = id as usize;
        x.copy_from_slice(weights.rows(layout.embedding, id..id + 1, &mut room.dense));
    }
    let kept = caches.len();
    for (l, ids) in layout.layers.iter().enumerate() {
        let (before, behind) = stream.split_at_mut(l + 1);
        let cache = &mut caches[if kept > 1 { l } else { 0 }];
        layer::forward(weights, ids, room, scratch, tokens, &before[l], cache, &mut behind[0]);
    }
    normed.resize(len, 0.0);
    rms_norm(&stream[shape.n_layers], weights.of(layout.norm), shape.norm_eps, normed);
}

impl Worker {
    /// Sums of the weighted losses of some sequences.
    #[allow(clippy::too_many_arguments, reason = "what is read, and what is wanted of it")]
    fn run(
        &mut self,
        weights: Weights<'_>,
        teacher: Option<Teacher<'_>>,
        tokens: Tokens<'_>,
        inputs: &[u32],
        targets: Targets<'_>,
        factor: f32,
        wanted: (Option<usize>, Option<usize>),
        recompute: bool,
    ) -> Distance {
        let Self {
            room, scratch, caches, stream, normed, d_normed, d_stream, logits, teacher: taught, ..
        } = self;
        let (shape, layout) = (weights.shape, weights.layout);
        let dim = shape.dim;
        let len = inputs.len() * dim;
        let with_gradients = wanted.0.is_some() || wanted.1.is_some();
        let kept = if with_gradients && !recompute { shape.n_layers } else { 1 };
        caches.resize_with(caches.len().max(kept), Cache::default);
        let caches = &mut caches[..kept];
        if let Some(Teacher { weights, .. }) = teacher {
            let TeacherRoom { stream, normed, .. } = taught;
            forward(weights, room, scratch, tokens, inputs, &mut caches[..1], stream, normed);
        }
        forward(weights, room, scratch, tokens, inputs, caches, stream, normed);
        let per_layer = 1.0 / shape.n_layers as f64;
        let hidden: f64 = match teacher {
            None => 0.0,
            Some(_) => {
                let pairs = stream[1..].iter().zip(&taught.stream[1..]);
                pairs.map(|(x, y)| per_layer * apart(x, y, dim, targets.weights, None)).sum()
            }
        };
        let teaching = |taught| teacher.map(|teacher| (teacher.weights, taught));
        if !with_gradients {
            let loss = cross_entropy(weights, room, logits, normed, targets, teaching(taught), None);
            return Distance { hidden, ..loss };
        }

        let zeroed = |buffer: &mut Vec<f32>, len: usize| {
            buffer.clear();
            buffer.resize(len, 0.0);
        };
        zeroed(&mut self.d_model, wanted.0.unwrap_or(0));
        zeroed(&mut self.d_adapters, wanted.1.unwrap_or(0));
        zeroed(d_stream, len);
        d_normed.resize(len, 0.0);
        let mut gradients = Gradients {
            model: wanted.0.map(|_| &mut self.d_model[..]),
            adapters: wanted.1.map(|_| &mut self.d_adapters[..]),
            embedding: teacher.is_none_or(|teacher| teacher.embedding),
        };
        let backward = Some((factor, &mut gradients, &mut d_normed[..]));
        let loss = cross_entropy(weights, room, logits, normed, targets, teaching(&mut *taught), backward);
        let last = &stream[shape.n_layers];
        let norm_range = layout.tensors[layout.norm].range.clone();
        let d_norm = gradients.model.as_deref_mut().map(|d| &mut d[norm_range]);
        rms_norm_backward(last, weights.of(layout.norm), shape.norm_eps, d_normed, d_stream, d_norm);
        for (l, ids) in layout.layers.iter().enumerate().rev() {
            let cache = &mut caches[if kept > 1 { l } else { 0 }];
            if kept == 1 && l + 1 < shape.n_layers {
                // The last layer's is there still; what comes out was computed before.
                layer::forward(weights, ids, room, scratch, tokens, &stream[l], cache, normed);
            }
            if let Some(teacher) = teacher {
                let by = factor * teacher.hidden * per_layer as f32;
                let derivative = Some((by, &mut d_stream[..]));
                apart(&stream[l + 1], &taught.stream[l + 1], dim, targets.weights, derivative);
            }
            layer::backward(weights, ids, room, scratch, tokens, &stream[l], cache, &mut gradients, d_stream);
        }
        if let (Some(d), true) = (gradients.model, gradients.embedding) {
            let d = &mut d[layout.tensors[layout.embedding].range.clone()];
            for (d_x, &id) in d_stream.chunks_exact(dim).zip(inputs) {
                kernels::ops::add(&mut d[id as usize * dim..][..dim], d_x);
            }
        }
        Distance { hidden, ..loss }
    }
}
