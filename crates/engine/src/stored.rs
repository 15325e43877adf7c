//! Matrices that are made in memory, in the types in which files hold them.

use kernels::codec::quantize_row;
use kernels::codec::ternary::quantize_run;
use kernels::row::RowType;

use crate::error::EngineError;
use crate::model::TensorSummary;
use crate::source::Bytes;
use crate::weights::WeightMatrix;

/// A type in which a file can hold a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredType {
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight.
    F16,
    /// Q8_0: 34 bytes for 32 weights.
    Int8,
    /// Q6_K: 210 bytes for 256 weights. Numbers cannot be rounded to it here; random ones can be made.
    Q6K,
    /// Q4_0: 18 bytes for 32 weights.
    Int4,
    /// T-MAC v2: rows of 2-bit codes, an f16 scale each.
    Ternary,
    /// T-MAC v1: 2-bit codes without a scale.
    TmacV1,
}

impl StoredType {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::F32, Self::F16, Self::Int8, Self::Q6K, Self::Int4, Self::Ternary, Self::TmacV1];

    /// The name that the command line takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Q6K => "q6_k",
            Self::Int4 => "int4",
            Self::Ternary => "ternary",
            Self::TmacV1 => "tmac1",
        }
    }

    /// How the kernels read it.
    pub(crate) fn row_type(self) -> RowType {
        match self {
            Self::F32 => RowType::F32,
            Self::F16 => RowType::F16,
            Self::Int8 => RowType::Q8_0,
            Self::Q6K => RowType::Q6_K,
            Self::Int4 => RowType::Q4_0,
            Self::Ternary => RowType::Ternary16,
            Self::TmacV1 => RowType::Ternary32,
        }
    }

    /// Bytes of a row of `cols` weights; an error where a row is not a whole number of blocks.
    pub(crate) fn row_bytes(self, cols: usize) -> Result<usize, EngineError> {
        self.row_type().row_bytes(cols).ok_or_else(|| {
            EngineError::Request(format!(
                "rows of {cols} weights are not whole blocks of {}: take another type",
                self.name()
            ))
        })
    }

    /// Rounds `values`, `[rows, cols]`, to this type as the tools do that write such files. T-MAC v1 looks at the
    /// whole matrix at once, and here at one layer's, not at that of all layers.
    pub(crate) fn encode(self, values: &[f32], cols: usize) -> Result<Vec<u8>, EngineError> {
        let row_bytes = self.row_bytes(cols)?;
        if self == Self::TmacV1 {
            return self.scaled_codes(&quantize_run(values), cols);
        }
        let mut out = vec![0; values.len() / cols.max(1) * row_bytes];
        for (row, out) in values.chunks_exact(cols).zip(out.chunks_exact_mut(row_bytes)) {
            let refused = |err| EngineError::Request(format!("type {}: {err}", self.name()));
            quantize_row(self.row_type(), row, out).map_err(refused)?;
        }
        Ok(out)
    }

    /// T-MAC v1's codes as rows with a scale of 1.
    fn scaled_codes(self, codes: &[u8], cols: usize) -> Result<Vec<u8>, EngineError> {
        if !cols.is_multiple_of(4) {
            return Err(EngineError::Request(format!(
                "type {}: rows of {cols} weights end inside a byte",
                self.name()
            )));
        }
        let rows = codes.chunks_exact(cols / 4);
        Ok(rows.flat_map(|row| 1f32.to_le_bytes().into_iter().chain(row.iter().copied())).collect())
    }

    /// The matrix `[rows, cols]` of these bytes, and what a file would say of it.
    pub(crate) fn matrix(
        self,
        name: String,
        (rows, cols): (usize, usize),
        bytes: Vec<u8>,
    ) -> (WeightMatrix, TensorSummary) {
        let summary = TensorSummary {
            name: name.clone(),
            shape: vec![rows as u64, cols as u64],
            type_name: self.name().to_owned(),
            bytes: bytes.len() as u64,
        };
        let matrix = WeightMatrix::of_rows(name, self.row_type(), rows, cols, Bytes::Owned(bytes));
        (matrix, summary)
    }
}
