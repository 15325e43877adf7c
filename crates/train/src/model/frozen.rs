//! Parameters that are only read, in few bits: decoded a part of a matrix at a time.

use std::ops::Range;

use engine::weights::WeightMatrix;
use kernels::MatmulError;

use super::layout::{Id, Kind, Layout};
use super::nf4::Nf4;

/// Values that are decoded at once: a few megabytes.
const PANEL: usize = 1 << 21;

/// The parameters that a pass reads.
#[derive(Debug, Clone, Copy)]
pub enum Parameters<'a> {
    /// All of them in one vector, as the layout says.
    Floats(&'a [f32]),
    /// As they are kept.
    Frozen(&'a Frozen),
}

impl<'a> From<&'a [f32]> for Parameters<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::Floats(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Parameters<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Self::Floats(values)
    }
}

impl<'a> From<&'a Frozen> for Parameters<'a> {
    fn from(frozen: &'a Frozen) -> Self {
        Self::Frozen(frozen)
    }
}

/// How a tensor is kept.
#[derive(Debug)]
pub(crate) enum Stored {
    /// As they are read.
    Floats(Vec<f32>),
    /// Rows in a type of the kernels; row r of the tensor is row `source(r)` of it.
    Rows { matrix: WeightMatrix, order: RowOrder },
    /// In NF4.
    Nf4(Nf4),
}

/// Which row of a file's matrix is which of the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// The same.
    Kept,
    /// The file's heads have neighbours where the model turns elements half a head apart.
    Neighbours { head_dim: usize },
}

impl RowOrder {
    /// The file's row that is the model's row `row`.
    pub(crate) fn source(self, row: usize) -> usize {
        let Self::Neighbours { head_dim } = self else { return row };
        let (first, i, half) = (row / head_dim * head_dim, row % head_dim, head_dim / 2);
        first + if i < half { 2 * i } else { 2 * (i - half) + 1 }
    }
}

/// All tensors of a layout.
#[derive(Debug)]
pub struct Frozen {
    tensors: Vec<Stored>,
}

impl Frozen {
    /// Tensors in the order of the layout.
    ///
    /// # Errors
    /// A matrix in tiles, or of another shape than the layout says.
    ///
    /// # Panics
    /// When there are more or fewer than the layout has, or a norm is no floats.
    pub(crate) fn new(layout: &Layout, tensors: Vec<Stored>) -> Result<Self, MatmulError> {
        assert_eq!(layout.tensors.len(), tensors.len(), "tensors of another model");
        for (tensor, stored) in layout.tensors.iter().zip(&tensors) {
            match stored {
                Stored::Floats(values) => assert_eq!(values.len(), tensor.range.len(), "{}", tensor.name),
                Stored::Rows { matrix, .. } => {
                    matrix.view()?;
                    assert_eq!((matrix.rows, matrix.cols), (tensor.rows, tensor.cols), "{}", tensor.name);
                }
                Stored::Nf4(_) => {}
            }
            assert!(tensor.kind != Kind::Norm || matches!(stored, Stored::Floats(_)), "{}", tensor.name);
        }
        Ok(Self { tensors })
    }

    /// All parameters as floats.
    pub fn to_floats(&self, layout: &Layout) -> Vec<f32> {
        let mut values = vec![0.0; layout.len()];
        for (tensor, stored) in layout.tensors.iter().zip(&self.tensors) {
            stored.decode(0..tensor.rows, tensor.cols, &mut values[tensor.range.clone()]);
        }
        values
    }

    /// Replaces tensors by what `change` makes of them.
    pub(crate) fn change(&mut self, mut change: impl FnMut(Id, &Stored) -> Option<Stored>) {
        for (id, stored) in self.tensors.iter_mut().enumerate() {
            if let Some(changed) = change(id, stored) {
                *stored = changed;
            }
        }
    }

    /// Bytes of the tensors that are kept in memory, not in the model's file.
    pub fn byte_len(&self) -> usize {
        let bytes = |stored: &Stored| match stored {
            Stored::Floats(values) => 4 * values.len(),
            Stored::Rows { matrix, .. } if matrix.is_owned() => matrix.byte_len(),
            Stored::Rows { .. } => 0,
            Stored::Nf4(matrix) => matrix.byte_len(),
        };
        self.tensors.iter().map(bytes).sum()
    }

    /// The values of a tensor that is kept as floats; of others none.
    pub(super) fn floats(&self, id: Id) -> &[f32] {
        match &self.tensors[id] {
            Stored::Floats(values) => values,
            Stored::Rows { .. } | Stored::Nf4(_) => &[],
        }
    }

    /// Rows that are decoded at once.
    pub(super) fn panel(&self, id: Id, rows: usize, cols: usize) -> usize {
        match self.tensors[id] {
            Stored::Floats(_) => rows,
            Stored::Rows { .. } | Stored::Nf4(_) => (PANEL / cols.max(1)).clamp(1, rows.max(1)),
        }
    }

    /// Some rows of a tensor with `cols` columns, decoded into `room` where they are no floats.
    pub(super) fn rows<'r>(
        &'r self,
        id: Id,
        rows: Range<usize>,
        cols: usize,
        room: &'r mut Vec<f32>,
    ) -> &'r [f32] {
        if let Stored::Floats(values) = &self.tensors[id] {
            return &values[rows.start * cols..rows.end * cols];
        }
        room.resize(rows.len() * cols, 0.0);
        self.tensors[id].decode(rows, cols, room);
        room
    }
}

impl Stored {
    /// Writes some rows to `out`.
    pub(crate) fn decode(&self, rows: Range<usize>, cols: usize, out: &mut [f32]) {
        match self {
            Self::Floats(values) => out.copy_from_slice(&values[rows.start * cols..rows.end * cols]),
            Self::Nf4(matrix) => matrix.rows(rows, out),
            Self::Rows { matrix, order } => {
                let view = matrix.view();
                for (r, out) in rows.zip(out.chunks_exact_mut(cols)) {
                    let decoded = view.as_ref().map(|view| view.dequantize_row(order.source(r), out));
                    if !matches!(decoded, Ok(Ok(()))) {
                        // Checked when it was taken up; if it were not so, the loss would say it.
                        out.fill(f32::NAN);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_come_half_a_head_apart() {
        let order = RowOrder::Neighbours { head_dim: 6 };
        let rows: Vec<usize> = (0..12).map(|r| order.source(r)).collect();
        assert_eq!(rows, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
