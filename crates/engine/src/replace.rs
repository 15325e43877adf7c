//! Matrices that others have made, to take the place of a model's own.

use std::ops::Range;

use kernels::codec::quantize_row;
use kernels::row::RowType;
use kernels::{MatmulError, Matrix};

use crate::source::{Bytes, SourceFile};
use crate::weights::{Layer, Linear, WeightMatrix};

impl WeightMatrix {
    /// A matrix `[rows, cols]` whose rows, in `row_type`, are `bytes`.
    ///
    /// # Errors
    /// The bytes are not those of the shape.
    pub fn owned(
        name: String,
        row_type: RowType,
        (rows, cols): (usize, usize),
        bytes: Vec<u8>,
    ) -> Result<Self, MatmulError> {
        Matrix::new(row_type, rows, cols, &bytes)?;
        Ok(Self::of_rows(name, row_type, rows, cols, Bytes::Owned(bytes)))
    }

    /// The same read in place from `range` of a file.
    ///
    /// # Errors
    /// As [`WeightMatrix::owned`]; a range beyond the file counts as no bytes.
    pub fn mapped(
        name: String,
        row_type: RowType,
        (rows, cols): (usize, usize),
        file: &SourceFile,
        range: Range<usize>,
    ) -> Result<Self, MatmulError> {
        let bytes = Bytes::Mapped(file.clone(), range);
        Matrix::new(row_type, rows, cols, bytes.as_slice())?;
        Ok(Self::of_rows(name, row_type, rows, cols, bytes))
    }
}

impl WeightMatrix {
    /// All weights, row by row.
    ///
    /// # Errors
    /// The matrix is in tiles.
    pub fn to_values(&self) -> Result<Vec<f32>, MatmulError> {
        let view = self.view()?;
        let mut values = vec![0.0; self.rows * self.cols];
        let mut rows = values.chunks_exact_mut(self.cols).enumerate();
        rows.try_for_each(|(r, row)| view.dequantize_row(r, row))?;
        Ok(values)
    }

    /// A matrix of these `values`, `[rows, cols]`, in f32.
    ///
    /// # Errors
    /// The values are not those of the shape.
    pub fn of_values(name: String, shape: (usize, usize), values: &[f32]) -> Result<Self, MatmulError> {
        let mut bytes = vec![0; values.len() * 4];
        // F32 takes any values and any number of them.
        let _ = quantize_row(RowType::F32, values, &mut bytes);
        Self::owned(name, RowType::F32, shape, bytes)
    }
}

impl Layer {
    /// The same block with its matrices in f32: what is run often is not decoded each time.
    ///
    /// # Errors
    /// A matrix is in tiles.
    pub fn in_f32(&self) -> Result<Self, MatmulError> {
        let linear = |linear: &Linear| -> Result<Linear, MatmulError> {
            let weight = &linear.weight;
            let values = weight.to_values()?;
            let weight = WeightMatrix::of_values(weight.name.clone(), (weight.rows, weight.cols), &values)?;
            Ok(Linear { weight, bias: linear.bias.clone() })
        };
        Ok(Self {
            rms_att: self.rms_att.clone(),
            wq: linear(&self.wq)?,
            wk: linear(&self.wk)?,
            wv: linear(&self.wv)?,
            wo: linear(&self.wo)?,
            q_norm: self.q_norm.clone(),
            k_norm: self.k_norm.clone(),
            attn_sub_norm: self.attn_sub_norm.clone(),
            post_att_norm: self.post_att_norm.clone(),
            rms_ffn: self.rms_ffn.clone(),
            w1: linear(&self.w1)?,
            w2: linear(&self.w2)?,
            w3: linear(&self.w3)?,
            ffn_sub_norm: self.ffn_sub_norm.clone(),
            post_ffn_norm: self.post_ffn_norm.clone(),
        })
    }
}
