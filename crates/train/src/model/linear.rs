//! Linear layers, with an adapter beside the frozen matrix where there is one.

use std::ops::Range;

use kernels::gemm::{Gemm, Output, Size, View};

use super::adapters::{Adapters, Dropout};
use super::frozen::Parameters;
use super::layout::{Id, Layout};
use super::shape::Shape;

/// What a pass reads.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) layout: &'a Layout,
    /// All parameters as the matrix products see them: those of ternary layers rounded.
    pub(crate) values: Parameters<'a>,
    /// Adapters and their values.
    pub(crate) adapters: Option<(&'a Adapters, &'a [f32])>,
    /// What adapters are not shown of their inputs.
    pub(crate) dropout: Option<Dropout>,
}

/// Where derivatives are added.
pub(crate) struct Gradients<'a> {
    /// Of all parameters; `None` where they are frozen.
    pub(crate) model: Option<&'a mut [f32]>,
    /// Of the adapters.
    pub(crate) adapters: Option<&'a mut [f32]>,
    /// Whether those of embedding and classifier are wanted.
    pub(crate) embedding: bool,
}

/// Room that linear layers need.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) gemm: Gemm,
    /// Decoded rows of a frozen matrix.
    pub(crate) dense: Vec<f32>,
    low: Vec<f32>,
    d_low: Vec<f32>,
    shown: Vec<f32>,
    d_shown: Vec<f32>,
}

impl<'a> Weights<'a> {
    /// The values of a norm.
    pub(crate) fn of(&self, id: Id) -> &'a [f32] {
        match self.values {
            Parameters::Floats(values) => &values[self.layout.tensors[id].range.clone()],
            Parameters::Frozen(frozen) => frozen.floats(id),
        }
    }

    /// Some rows of a matrix, decoded into `room` where it is frozen.
    pub(crate) fn rows<'r>(&self, id: Id, rows: Range<usize>, room: &'r mut Vec<f32>) -> &'r [f32]
    where
        'a: 'r,
    {
        let tensor = &self.layout.tensors[id];
        match self.values {
            Parameters::Floats(values) => {
                let from = tensor.range.start;
                &values[from + rows.start * tensor.cols..from + rows.end * tensor.cols]
            }
            Parameters::Frozen(frozen) => frozen.rows(id, rows, tensor.cols, room),
        }
    }

    /// The rows of a matrix by parts that are multiplied at once: all of them, or as many as are decoded at a time.
    pub(crate) fn panels(&self, id: Id) -> impl Iterator<Item = Range<usize>> + use<> {
        let tensor = &self.layout.tensors[id];
        let rows = tensor.rows;
        let panel = match self.values {
            Parameters::Floats(_) => rows,
            Parameters::Frozen(frozen) => frozen.panel(id, rows, tensor.cols),
        };
        (0..rows).step_by(panel.max(1)).map(move |from| from..rows.min(from + panel))
    }

    /// `y = x W^T`, plus `scale (x A^T) B^T` of an adapter.
    pub(crate) fn linear(&self, room: &mut Room, id: Id, x: &[f32], y: &mut [f32]) {
        let tensor = &self.layout.tensors[id];
        let (rows, cols) = (tensor.rows, tensor.cols);
        let tokens = x.len() / cols;
        for panel in self.panels(id) {
            let size = Size { m: tokens, n: panel.len(), k: cols };
            let y = &mut y[panel.start..];
            let w = View::rows(self.rows(id, panel, &mut room.dense), cols).transposed();
            room.gemm.multiply(size, View::rows(x, cols), w, Output::Write, y, rows);
        }
        let Some((adapters, values)) = self.adapters else { return };
        let Some(adapter) = adapters.of(id) else { return };
        let rank = adapters.rank;
        self.low(room, adapters.scale, &values[adapter.a.clone()], rank, id, x, cols);
        let b = View::rows(&values[adapter.b.clone()], rank).transposed();
        let size = Size { m: tokens, n: rows, k: rank };
        room.gemm.multiply(size, View::rows(&room.low, rank), b, Output::Add, y, rows);
    }

    /// `room.low = scale x A^T`, of what dropout leaves of x.
    #[allow(clippy::too_many_arguments, reason = "a matrix, its factor and its input")]
    fn low(&self, room: &mut Room, scale: f32, a: &[f32], rank: usize, id: Id, x: &[f32], cols: usize) {
        let tokens = x.len() / cols;
        room.low.resize(tokens * rank, 0.0);
        let size = Size { m: tokens, n: rank, k: cols };
        let a = View::rows(a, cols).transposed();
        let x = self.shown(&mut room.shown, id, x, cols);
        room.gemm.multiply(size, View::rows(x, cols), a, Output::Write, &mut room.low, rank);
        room.low.iter_mut().for_each(|x| *x *= scale);
    }

    /// What an adapter is shown of its input.
    fn shown<'r>(&self, room: &'r mut Vec<f32>, id: Id, x: &'r [f32], cols: usize) -> &'r [f32] {
        let Some(dropout) = self.dropout else { return x };
        room.clear();
        room.extend_from_slice(x);
        dropout.apply(id, cols, room);
        room
    }

    /// What `d_y` means for the layer's input, written or added to `d_x`, and for its weights, added to `gradients`.
    #[allow(
        clippy::too_many_arguments,
        reason = "a layer's input, output and their derivatives, and where they go"
    )]
    pub(crate) fn linear_backward(
        &self,
        room: &mut Room,
        gradients: &mut Gradients<'_>,
        id: Id,
        x: &[f32],
        d_y: &[f32],
        output: Output,
        d_x: &mut [f32],
    ) {
        let tensor = &self.layout.tensors[id];
        let (rows, cols) = (tensor.rows, tensor.cols);
        let tokens = x.len() / cols;
        let (x_rows, d_y_rows) = (View::rows(x, cols), View::rows(d_y, rows));
        for panel in self.panels(id) {
            let output = if panel.start == 0 { output } else { Output::Add };
            let size = Size { m: tokens, n: cols, k: panel.len() };
            let d_y = View::rows(&d_y[panel.start..], rows);
            let w = View::rows(self.rows(id, panel, &mut room.dense), cols);
            room.gemm.multiply(size, d_y, w, output, d_x, cols);
        }
        if let Some(d_w) = gradients.model.as_deref_mut() {
            let d_w = &mut d_w[tensor.range.clone()];
            let size = Size { m: rows, n: cols, k: tokens };
            room.gemm.multiply(size, d_y_rows.transposed(), x_rows, Output::Add, d_w, cols);
        }
        let (Some((adapters, values)), Some(d)) = (self.adapters, gradients.adapters.as_deref_mut()) else {
            return;
        };
        let Some(adapter) = adapters.of(id) else { return };
        let rank = adapters.rank;
        let (a, b) = (&values[adapter.a.clone()], &values[adapter.b.clone()]);
        self.low(room, adapters.scale, a, rank, id, x, cols);
        let Room { gemm, low, d_low, shown, d_shown, .. } = room;
        let size = Size { m: rows, n: rank, k: tokens };
        let low = View::rows(low, rank);
        gemm.multiply(size, d_y_rows.transposed(), low, Output::Add, &mut d[adapter.b.clone()], rank);
        d_low.resize(tokens * rank, 0.0);
        let size = Size { m: tokens, n: rank, k: rows };
        gemm.multiply(size, d_y_rows, View::rows(b, rank), Output::Write, d_low, rank);
        d_low.iter_mut().for_each(|x| *x *= adapters.scale);
        let d_low = View::rows(d_low, rank);
        let size = Size { m: rank, n: cols, k: tokens };
        let x_rows = if self.dropout.is_some() { View::rows(shown, cols) } else { x_rows };
        gemm.multiply(size, d_low.transposed(), x_rows, Output::Add, &mut d[adapter.a.clone()], cols);
        let (size, a) = (Size { m: tokens, n: cols, k: rank }, View::rows(a, cols));
        match self.dropout {
            None => gemm.multiply(size, d_low, a, Output::Add, d_x, cols),
            Some(dropout) => {
                d_shown.resize(x.len(), 0.0);
                gemm.multiply(size, d_low, a, Output::Write, d_shown, cols);
                dropout.apply(id, cols, d_shown);
                kernels::ops::add(d_x, d_shown);
            }
        }
    }
}
