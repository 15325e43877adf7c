//! A tensor of a file -> a matrix in a row type of the kernels. What the kernels read as it is stays in the
//! mapped file; everything else is repacked, one tensor at a time.

use formats::{Layout, TensorInfo, TensorType};
use kernels::codec::int8::Int8Groups;
use kernels::codec::repack::{TernaryLayout, TernaryMatrix};
use kernels::codec::{CodecError, UnpackedRow, dequantize_row, quantize_row, unpack_row};
use kernels::row::RowType;

use crate::error::EngineError;
use crate::source::{Bytes, SourceFile};
use crate::weights::WeightMatrix;

/// What a file says about the ternary matrices in it, beside their bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ternary {
    /// Nothing: the layout says it all.
    Plain,
    /// Hugging Face BitNet, packed: rows that lie a quarter apart in one byte, and the scale to multiply with.
    Packed {
        /// Factor on every weight.
        scale: f32,
    },
    /// BitNet master weights: rounded to ternary when they are loaded.
    Online,
    /// GGUF's `.scale` tensor: a factor on every weight.
    Scaled {
        /// The factor.
        scale: f32,
    },
    /// Rows whose own f16 scales are only near the true one, which is the same for all.
    Exact {
        /// The true scale.
        scale: f32,
    },
    /// The arrangement of an I2_S tensor, which the file does not tell.
    I2s(I2sLayout),
}

/// How a bitnet.cpp build arranged the codes of I2_S tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum I2sLayout {
    /// By its x86 build: groups of 128.
    X86,
    /// By its ARM build: groups of 64.
    Arm,
}

/// The row type of a GGUF or safetensors type that the kernels read in place.
pub(crate) fn row_type(ty: TensorType) -> Option<RowType> {
    Some(match ty {
        TensorType::F32 => RowType::F32,
        TensorType::F16 => RowType::F16,
        TensorType::BF16 => RowType::BF16,
        TensorType::Q4_0 => RowType::Q4_0,
        TensorType::Q4_1 => RowType::Q4_1,
        TensorType::Q5_0 => RowType::Q5_0,
        TensorType::Q5_1 => RowType::Q5_1,
        TensorType::Q8_0 => RowType::Q8_0,
        TensorType::Q2_K => RowType::Q2_K,
        TensorType::Q3_K => RowType::Q3_K,
        TensorType::Q4_K => RowType::Q4_K,
        TensorType::Q5_K => RowType::Q5_K,
        TensorType::Q6_K => RowType::Q6_K,
        TensorType::IQ4_NL => RowType::IQ4_NL,
        TensorType::IQ4_XS => RowType::IQ4_XS,
        TensorType::MXFP4 => RowType::MXFP4,
        TensorType::TQ1_0 => RowType::TQ1_0,
        TensorType::TQ2_0 => RowType::TQ2_0,
        TensorType::TG1 => RowType::TG1,
        TensorType::TG2 => RowType::TG2,
        TensorType::BG1 => RowType::BG1,
        _ => return None,
    })
}

/// Makes the matrix `[rows, cols]` of tensor `info` of `file`.
pub(crate) fn matrix(
    file: &SourceFile,
    info: &TensorInfo,
    (rows, cols): (usize, usize),
    ternary: Ternary,
) -> Result<WeightMatrix, EngineError> {
    let tensor = Tensor { file, info, rows, cols };
    let packed = matches!(ternary, Ternary::Packed { .. });
    let stored_rows = if packed { rows / 4 } else { rows };
    if tensor.dims() != [stored_rows, cols] {
        return Err(
            tensor.wrong(format!("its shape is {:?}, the model needs [{stored_rows}, {cols}]", info.shape))
        );
    }
    let (row_type, bytes) = match (info.layout, ternary) {
        (Layout::Rows(TensorType::U8), Ternary::Packed { scale }) => {
            tensor.ternary(TernaryLayout::HfBitnet, tensor.bytes(0)?, |_| scale)?
        }
        (Layout::Rows(ty), Ternary::Online) => tensor.round_to_ternary(ty)?,
        (Layout::Rows(TensorType::I2_S), ternary) => tensor.i2_s(ternary)?,
        (Layout::Rows(TensorType::F64), _) => tensor.narrow_f64()?,
        (Layout::Rows(ty), ternary) => {
            let Some(row_type) = row_type(ty) else {
                return Err(tensor.wrong(format!("weights of type {ty:?} are not supported")));
            };
            match ternary {
                Ternary::Scaled { scale } => tensor.scaled(row_type, scale)?,
                _ => (row_type, tensor.mapped()?),
            }
        }
        (Layout::TernaryRows, Ternary::Exact { scale }) => tensor.rescaled_rows(scale)?,
        (Layout::TernaryRows, _) => (RowType::Ternary16, tensor.mapped()?),
        (Layout::TernaryRun { first }, _) => {
            let layout = TernaryLayout::Run { first: tensor.index(first)? };
            tensor.ternary(layout, tensor.bytes(0)?, |_| 1.0)?
        }
        (Layout::TernaryScaled { most_significant_first }, _) => {
            let (scale, codes) = tensor.bytes(0)?.split_first_chunk::<4>().ok_or_else(|| tensor.short())?;
            let scale = f32::from_le_bytes(*scale);
            let layout = if most_significant_first {
                TernaryLayout::RunMostSignificantFirst { first: 0 }
            } else {
                TernaryLayout::Run { first: 0 }
            };
            tensor.ternary(layout, codes, |_| scale)?
        }
        (Layout::Int4Run { first }, _) => tensor.int4_run(tensor.index(first)?)?,
        (Layout::Int8Groups { group }, _) => tensor.int8_groups(tensor.index(group)?)?,
    };
    Ok(WeightMatrix::of_rows(info.name.clone(), row_type, rows, cols, bytes))
}

/// A vector of f32, whatever floating-point type the file has; NaN and infinity are refused.
pub(crate) fn vector(file: &SourceFile, info: &TensorInfo, len: usize) -> Result<Vec<f32>, EngineError> {
    let tensor = Tensor { file, info, rows: 1, cols: len };
    let count = info.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    if count != Some(len as u64) {
        return Err(tensor.wrong(format!("its shape is {:?}, the model needs [{len}]", info.shape)));
    }
    let Layout::Rows(ty) = info.layout else {
        return Err(tensor.wrong("a vector must be of a floating-point type".to_owned()));
    };
    let values = match ty {
        TensorType::F64 => tensor.f64s()?,
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => {
            let row_type = row_type(ty).unwrap_or(RowType::F32);
            let mut values = vec![0.0; len];
            dequantize_row(row_type, tensor.bytes(0)?, &mut values).map_err(|e| tensor.codec(&e))?;
            values
        }
        other => return Err(tensor.wrong(format!("a vector of type {other:?} is not supported"))),
    };
    match values.iter().position(|x| !x.is_finite()) {
        Some(i) => Err(tensor.wrong(format!("element {i} is {}", values[i]))),
        None => Ok(values),
    }
}

struct Tensor<'a> {
    file: &'a SourceFile,
    info: &'a TensorInfo,
    rows: usize,
    cols: usize,
}

impl<'a> Tensor<'a> {
    /// The shape as a matrix.
    fn dims(&self) -> [usize; 2] {
        [self.info.rows(), self.info.cols()].map(|d| usize::try_from(d).unwrap_or(usize::MAX))
    }

    fn wrong(&self, problem: String) -> EngineError {
        EngineError::Tensor { path: self.file.path().to_owned(), tensor: self.info.name.clone(), problem }
    }

    fn short(&self) -> EngineError {
        self.wrong("its bytes are too few".to_owned())
    }

    fn codec(&self, error: &CodecError) -> EngineError {
        self.wrong(error.to_string())
    }

    fn index(&self, value: u64) -> Result<usize, EngineError> {
        usize::try_from(value).map_err(|_| self.wrong(format!("{value} is too large for this machine")))
    }

    fn bytes(&self, from: usize) -> Result<&'a [u8], EngineError> {
        let file = self.file.bytes();
        let range = self
            .info
            .range(file.len() as u64)
            .map_err(|source| EngineError::Format { path: self.file.path().to_owned(), source })?;
        file[range].get(from..).ok_or_else(|| self.short())
    }

    /// The file's own bytes, without a tail behind the rows.
    fn mapped(&self) -> Result<Bytes, EngineError> {
        let file = self.file.bytes();
        let range = self
            .info
            .range(file.len() as u64)
            .map_err(|source| EngineError::Format { path: self.file.path().to_owned(), source })?;
        Ok(Bytes::Mapped(self.file.clone(), range))
    }

    fn row_bytes(&self, row_type: RowType) -> Result<usize, EngineError> {
        row_type.row_bytes(self.cols).ok_or_else(|| {
            self.wrong(format!("rows of {} are not whole blocks of {}", self.cols, row_type.name()))
        })
    }

    /// Room for the whole matrix in another row type. The file's bytes exist, and no type that we repack to is
    /// more than sixteen times as large, so this is bounded by the file.
    fn room(&self, row_type: RowType) -> Result<(usize, Vec<u8>), EngineError> {
        let row_bytes = self.row_bytes(row_type)?;
        let len = row_bytes.checked_mul(self.rows).ok_or_else(|| self.short())?;
        Ok((row_bytes, vec![0; len]))
    }

    fn ternary(
        &self,
        layout: TernaryLayout,
        codes: &[u8],
        scale: impl Fn(usize) -> f32,
    ) -> Result<(RowType, Bytes), EngineError> {
        let packed = TernaryMatrix::new(codes, layout, self.rows, self.cols).map_err(|e| self.codec(&e))?;
        let (row_bytes, mut out) = self.room(RowType::Ternary32)?;
        for (r, out) in out.chunks_exact_mut(row_bytes).enumerate() {
            let scale = scale(r);
            if !scale.is_finite() {
                return Err(self.wrong(format!("its scale is {scale}")));
            }
            packed.repack_row(r, scale, out).map_err(|e| self.codec(&e))?;
        }
        Ok((RowType::Ternary32, Bytes::Owned(out)))
    }

    /// T-MAC v2 rows with another scale than their own.
    fn rescaled_rows(&self, scale: f32) -> Result<(RowType, Bytes), EngineError> {
        if !scale.is_finite() {
            return Err(self.wrong(format!("its scale is {scale}")));
        }
        let (source_bytes, source) = (self.row_bytes(RowType::Ternary16)?, self.bytes(0)?);
        let (row_bytes, mut out) = self.room(RowType::Ternary32)?;
        for (row, out) in source.chunks_exact(source_bytes).zip(out.chunks_exact_mut(row_bytes)) {
            let (head, codes) = out.split_at_mut(RowType::Ternary32.header_bytes());
            head.copy_from_slice(&scale.to_le_bytes());
            codes.copy_from_slice(&row[RowType::Ternary16.header_bytes()..]);
        }
        Ok((RowType::Ternary32, Bytes::Owned(out)))
    }

    fn i2_s(&self, ternary: Ternary) -> Result<(RowType, Bytes), EngineError> {
        let Ternary::I2s(layout) = ternary else {
            return Err(self.wrong(
                "I2_S does not say how its codes are arranged: choose with --i2s-layout x86|arm".to_owned(),
            ));
        };
        let bytes = self.bytes(0)?;
        let (codes, tail) = bytes.split_at_checked(self.rows * self.cols / 4).ok_or_else(|| self.short())?;
        let scale = tail.first_chunk::<4>().map(|b| f32::from_le_bytes(*b)).ok_or_else(|| self.short())?;
        let layout = match layout {
            I2sLayout::X86 => TernaryLayout::I2sX86,
            I2sLayout::Arm => TernaryLayout::I2sArm,
        };
        self.ternary(layout, codes, |_| scale)
    }

    /// BitNet's weight rounding: round(w / mean|w|) clamped to -1..1, times mean|w| of the whole matrix.
    fn round_to_ternary(&self, ty: TensorType) -> Result<(RowType, Bytes), EngineError> {
        let Some(row_type) = row_type(ty) else {
            return Err(self.wrong(format!("master weights of type {ty:?} are not supported")));
        };
        let mut row = vec![0.0; self.cols];
        let source_bytes = self.row_bytes(row_type)?;
        let source = self.bytes(0)?;
        let mut sum = 0.0f64;
        for bytes in source.chunks_exact(source_bytes) {
            dequantize_row(row_type, bytes, &mut row).map_err(|e| self.codec(&e))?;
            sum += row.iter().map(|w| f64::from(w.abs())).sum::<f64>();
        }
        let scale = ((sum / (self.rows * self.cols) as f64) as f32).max(1e-5);
        if !scale.is_finite() {
            return Err(self.wrong(format!("the mean of its weights is {scale}")));
        }
        let (row_bytes, mut out) = self.room(RowType::Ternary32)?;
        for (bytes, out) in source.chunks_exact(source_bytes).zip(out.chunks_exact_mut(row_bytes)) {
            dequantize_row(row_type, bytes, &mut row).map_err(|e| self.codec(&e))?;
            let (head, codes) = out.split_at_mut(4);
            head.copy_from_slice(&scale.to_le_bytes());
            for (i, w) in row.iter().enumerate() {
                let code = match (w / scale).round_ties_even() {
                    q if q >= 1.0 => 0b01,
                    q if q <= -1.0 => 0b11,
                    _ => 0b00,
                };
                codes[i / 4] |= code << (2 * (i % 4));
            }
        }
        Ok((RowType::Ternary32, Bytes::Owned(out)))
    }

    /// TQ1_0 or TQ2_0 rows with one more factor, as codes with one scale a row; `None` where the blocks of a row
    /// have scales of their own.
    fn scaled_ternary(
        &self,
        row_type: RowType,
        factor: f32,
    ) -> Result<Option<(RowType, Bytes)>, EngineError> {
        let source_bytes = self.row_bytes(row_type)?;
        let (row_bytes, mut out) = self.room(RowType::Ternary32)?;
        let mut row = UnpackedRow::default();
        for (bytes, out) in self.bytes(0)?.chunks_exact(source_bytes).zip(out.chunks_exact_mut(row_bytes)) {
            unpack_row(row_type, bytes, self.cols, &mut row).map_err(|e| self.codec(&e))?;
            // A block of zeros may have any scale.
            let blocks = row.q.chunks(row.group).zip(&row.scale);
            let mut scales = blocks.filter(|(q, _)| q.iter().any(|&q| q != 0)).map(|(_, &scale)| scale);
            let scale = scales.next().unwrap_or(0.0);
            if scales.any(|other| other != scale) || row.q.iter().any(|q| !(-1..=1).contains(q)) {
                return Ok(None);
            }
            if !(scale * factor).is_finite() {
                return Err(self.wrong(format!("its scale is {scale} times {factor}")));
            }
            let (head, codes) = out.split_at_mut(RowType::Ternary32.header_bytes());
            head.copy_from_slice(&(scale * factor).to_le_bytes());
            for (i, q) in row.q.iter().enumerate() {
                codes[i / 4] |= (*q as u8 & 0b11) << (2 * (i % 4));
            }
        }
        Ok(Some((RowType::Ternary32, Bytes::Owned(out))))
    }

    /// Ternary or floating-point rows with one more factor: unchanged when that is 1, else ternary with f32
    /// scales where that holds the same values, else f32.
    fn scaled(&self, row_type: RowType, scale: f32) -> Result<(RowType, Bytes), EngineError> {
        if scale == 1.0 {
            return Ok((row_type, self.mapped()?));
        }
        if !scale.is_finite() {
            return Err(self.wrong(format!("its scale is {scale}")));
        }
        if matches!(row_type, RowType::TQ1_0 | RowType::TQ2_0)
            && let Some(ternary) = self.scaled_ternary(row_type, scale)?
        {
            return Ok(ternary);
        }
        let source_bytes = self.row_bytes(row_type)?;
        self.rows_f32(|r, row| {
            let bytes = self.bytes(r * source_bytes)?.get(..source_bytes).ok_or_else(|| self.short())?;
            dequantize_row(row_type, bytes, row).map_err(|e| self.codec(&e))?;
            row.iter_mut().for_each(|w| *w *= scale);
            Ok(())
        })
    }

    /// Q4V1's blocks run over rows and layers. Where rows are whole blocks they are read as they are;
    /// otherwise they become f32, which keeps their values.
    fn int4_run(&self, first: usize) -> Result<(RowType, Bytes), EngineError> {
        let (block, block_bytes) = RowType::Int4.block();
        if first.is_multiple_of(block) && self.cols.is_multiple_of(block) {
            let Bytes::Mapped(file, range) = self.mapped()? else { return Err(self.short()) };
            let start = range.start + first / block * block_bytes;
            let end = start + self.rows * self.cols / block * block_bytes;
            return Ok((RowType::Int4, Bytes::Mapped(file, start..end)));
        }
        let bytes = self.bytes(0)?;
        let mut values = [0.0; 32];
        self.rows_f32(|r, row| {
            for (c, w) in row.iter_mut().enumerate() {
                let at = first + r * self.cols + c;
                if c == 0 || at.is_multiple_of(block) {
                    let start = at / block * block_bytes;
                    let bytes = bytes.get(start..start + block_bytes).ok_or_else(|| self.short())?;
                    dequantize_row(RowType::Int4, bytes, &mut values).map_err(|e| self.codec(&e))?;
                }
                *w = values[at % block];
            }
            Ok(())
        })
    }

    /// llama2.c's int8 with a scale per group -> blocks of 32 with the same scales, or f32 where rows or
    /// groups are not whole blocks.
    fn int8_groups(&self, group: usize) -> Result<(RowType, Bytes), EngineError> {
        let groups =
            Int8Groups::new(self.bytes(0)?, self.rows * self.cols, group).map_err(|e| self.codec(&e))?;
        if groups.has_rows_of(self.cols) {
            let (row_bytes, mut out) = self.room(RowType::Int8)?;
            for (r, out) in out.chunks_exact_mut(row_bytes).enumerate() {
                groups.repack_row(r * self.cols, self.cols, out).map_err(|e| self.codec(&e))?;
            }
            return Ok((RowType::Int8, Bytes::Owned(out)));
        }
        self.rows_f32(|r, row| groups.dequantize(r * self.cols, row).map_err(|e| self.codec(&e)))
    }

    fn f64s(&self) -> Result<Vec<f32>, EngineError> {
        let values = self.bytes(0)?.as_chunks::<8>().0;
        Ok(values.iter().map(|b| f64::from_le_bytes(*b) as f32).collect())
    }

    fn narrow_f64(&self) -> Result<(RowType, Bytes), EngineError> {
        let values = self.f64s()?;
        self.rows_f32(|r, row| {
            let source = values.get(r * self.cols..(r + 1) * self.cols).ok_or_else(|| self.short())?;
            row.copy_from_slice(source);
            Ok(())
        })
    }

    /// Fills an f32 matrix row by row.
    fn rows_f32(
        &self,
        mut fill: impl FnMut(usize, &mut [f32]) -> Result<(), EngineError>,
    ) -> Result<(RowType, Bytes), EngineError> {
        let (row_bytes, mut out) = self.room(RowType::F32)?;
        let mut row = vec![0.0; self.cols];
        for (r, out) in out.chunks_exact_mut(row_bytes).enumerate() {
            fill(r, &mut row)?;
            quantize_row(RowType::F32, &row, out).map_err(|e| self.codec(&e))?;
        }
        Ok((RowType::F32, Bytes::Owned(out)))
    }
}
