//! Linear layers, with an adapter beside the frozen matrix where there is one.

use kernels::gemm::{Gemm, Output, Size, View};

use super::adapters::Adapters;
use super::layout::{Id, Layout};
use super::shape::Shape;

/// What a pass reads.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) layout: &'a Layout,
    /// All parameters as the matrix products see them: those of ternary layers rounded.
    pub(crate) values: &'a [f32],
    /// Adapters and their values.
    pub(crate) adapters: Option<(&'a Adapters, &'a [f32])>,
}

/// Where derivatives are added.
pub(crate) struct Gradients<'a> {
    /// Of all parameters; `None` where they are frozen.
    pub(crate) model: Option<&'a mut [f32]>,
    /// Of the adapters.
    pub(crate) adapters: Option<&'a mut [f32]>,
}

/// Room that linear layers need.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) gemm: Gemm,
    low: Vec<f32>,
    d_low: Vec<f32>,
}

impl<'a> Weights<'a> {
    /// The values of a tensor.
    pub(crate) fn of(&self, id: Id) -> &'a [f32] {
        &self.values[self.layout.tensors[id].range.clone()]
    }

    /// `y = x W^T`, plus `scale (x A^T) B^T` of an adapter.
    pub(crate) fn linear(&self, room: &mut Room, id: Id, x: &[f32], y: &mut [f32]) {
        let tensor = &self.layout.tensors[id];
        let (rows, cols) = (tensor.rows, tensor.cols);
        let tokens = x.len() / cols;
        let w = View::rows(self.of(id), cols).transposed();
        let size = Size { m: tokens, n: rows, k: cols };
        room.gemm.multiply(size, View::rows(x, cols), w, Output::Write, y, rows);
        let Some((adapters, values)) = self.adapters else { return };
        let Some(adapter) = adapters.of(id) else { return };
        let rank = adapters.rank;
        self.low(room, adapters.scale, &values[adapter.a.clone()], rank, x, cols);
        let b = View::rows(&values[adapter.b.clone()], rank).transposed();
        let size = Size { m: tokens, n: rows, k: rank };
        room.gemm.multiply(size, View::rows(&room.low, rank), b, Output::Add, y, rows);
    }

    /// `room.low = scale x A^T`.
    fn low(&self, room: &mut Room, scale: f32, a: &[f32], rank: usize, x: &[f32], cols: usize) {
        let tokens = x.len() / cols;
        room.low.resize(tokens * rank, 0.0);
        let size = Size { m: tokens, n: rank, k: cols };
        let a = View::rows(a, cols).transposed();
        room.gemm.multiply(size, View::rows(x, cols), a, Output::Write, &mut room.low, rank);
        room.low.iter_mut().for_each(|x| *x *= scale);
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
        let w = View::rows(self.of(id), cols);
        room.gemm.multiply(Size { m: tokens, n: cols, k: rows }, d_y_rows, w, output, d_x, cols);
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
        self.low(room, adapters.scale, a, rank, x, cols);
        let Room { gemm, low, d_low } = room;
        let size = Size { m: rows, n: rank, k: tokens };
        let low = View::rows(low, rank);
        gemm.multiply(size, d_y_rows.transposed(), low, Output::Add, &mut d[adapter.b.clone()], rank);
        d_low.resize(tokens * rank, 0.0);
        let size = Size { m: tokens, n: rank, k: rows };
        gemm.multiply(size, d_y_rows, View::rows(b, rank), Output::Write, d_low, rank);
        d_low.iter_mut().for_each(|x| *x *= adapters.scale);
        let d_low = View::rows(d_low, rank);
        let size = Size { m: rank, n: cols, k: tokens };
        gemm.multiply(size, d_low.transposed(), x_rows, Output::Add, &mut d[adapter.a.clone()], cols);
        gemm.multiply(
            Size { m: tokens, n: cols, k: rank },
            d_low,
            View::rows(a, cols),
            Output::Add,
            d_x,
            cols,
        );
    }
}
