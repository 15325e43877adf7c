//! Matrices that others have made, to take the place of a model's own.

use std::ops::Range;

use kernels::row::RowType;
use kernels::{MatmulError, Matrix};

use crate::source::{Bytes, SourceFile};
use crate::weights::WeightMatrix;

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
