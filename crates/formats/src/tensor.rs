//! What a tensor is and where its bytes lie.

use std::ops::Range;

use crate::error::FormatError;

/// Element or block type of a tensor whose rows are stored one after another, each row a whole number of
/// blocks. GGUF's names; the block sizes are those of FORMATS page "GGUF" and ggml's `ggml-common.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, missing_docs, reason = "the field's own names say what they are")]
pub enum TensorType {
    F32,
    F16,
    BF16,
    F64,
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    MXFP4,
    TQ1_0,
    TQ2_0,
    /// bitnet.cpp's ternary type (GGUF type 36): 2-bit codes of the whole tensor, then one f32 scale in a
    /// tail of 32 bytes. The file does not say whether the codes are grouped as on x86 or as on ARM.
    I2_S,
    /// Our own: 64 ternary weights in 15 bytes; the last block of a row may be filled up.
    TG1,
    /// Our own: 64 weights in two ternary planes, 28 bytes; filled up likewise.
    TG2,
    /// Our own: 64 signs, 10 bytes; filled up likewise.
    BG1,
}

impl TensorType {
    /// `(weights, bytes)` of one block. I2_S counts its codes only: see [`TensorType::tail_bytes`].
    pub fn block(self) -> (u64, u64) {
        match self {
            Self::F32 | Self::I32 => (1, 4),
            Self::F16 | Self::BF16 | Self::I16 => (1, 2),
            Self::F64 | Self::I64 => (1, 8),
            Self::Bool | Self::U8 | Self::I8 => (1, 1),
            Self::Q4_0 | Self::IQ4_NL => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2_K => (256, 84),
            Self::Q3_K => (256, 110),
            Self::Q4_K => (256, 144),
            Self::Q5_K => (256, 176),
            Self::Q6_K => (256, 210),
            Self::IQ4_XS => (256, 136),
            Self::MXFP4 => (32, 17),
            Self::TQ1_0 => (256, 54),
            Self::TQ2_0 => (256, 66),
            Self::I2_S => (4, 1),
            Self::TG1 => (64, 15),
            Self::TG2 => (64, 28),
            Self::BG1 => (64, 10),
        }
    }

    /// Bytes behind the last row (32 for I2_S, which keeps its scale there; 0 otherwise).
    pub fn tail_bytes(self) -> u64 {
        if self == Self::I2_S { 32 } else { 0 }
    }

    /// Bytes of a tensor with this row length and number of rows; `None` when a row is not a whole number of
    /// blocks or the product overflows.
    pub fn tensor_bytes(self, rows: u64, cols: u64) -> Option<u64> {
        let (weights, bytes) = self.block();
        let filled_up = matches!(self, Self::TG1 | Self::TG2 | Self::BG1);
        if !filled_up && !cols.is_multiple_of(weights) {
            return None;
        }
        cols.div_ceil(weights).checked_mul(bytes)?.checked_mul(rows)?.checked_add(self.tail_bytes())
    }
}

/// How a tensor's weights lie in its byte range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Row after row of blocks: llama2.c floats, GGUF, safetensors.
    Rows(TensorType),
    /// T-MAC v1: 2-bit codes (00 = 0, 01 = +1, 11 = -1; weight j of a byte in bits 2j..2j+1) in one run over
    /// all layers, without scale. The byte range is that of the whole run; this tensor begins at weight `first`.
    TernaryRun {
        /// Index in the run of this tensor's first weight.
        first: u64,
    },
    /// T-MAC v2: per row an f16 scale, then `ceil(cols / 4)` bytes of the same codes.
    TernaryRows,
    /// Q4V1: blocks of 32 weights (f16 scale, 16 bytes, weight 2i in the low nibble and 2i+1 in the high one,
    /// stored as q + 8) in one run over all layers. The byte range is that of the whole run.
    Int4Run {
        /// Index in the run of this tensor's first weight.
        first: u64,
    },
    /// llama2.c v2: `int8[n]`, then `f32[n / group]` scales.
    Int8Groups {
        /// Weights that share a scale.
        group: u64,
    },
    /// bitllama: one f32 scale, then 2-bit codes row-major, 4 a byte.
    TernaryScaled {
        /// Whether the first weight of a byte lies in its most significant bits.
        most_significant_first: bool,
    },
}

/// One tensor of a file: what it is called, its shape and where its bytes are.
///
/// In the llama2.c family (llama2.c, T-MAC, Q4V1, bitllama) the names are ours, one tensor a layer:
/// `token_embedding`, `layers.{l}.rms_att`, `layers.{l}.wq|wk|wv|wo`, `layers.{l}.rms_ffn`,
/// `layers.{l}.w1|w2|w3`, `layers.{l}.attn_sub_norm`, `layers.{l}.ffn_sub_norm`, `rms_final`, `wcls`.
/// In GGUF and safetensors they are the file's.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Name, unique in the file.
    pub name: String,
    /// Row-major shape, outermost dimension first: `[rows, cols]` of a matrix is `[out, in]`.
    pub shape: Vec<u64>,
    /// How the weights lie in the bytes.
    pub layout: Layout,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// Product of all dimensions but the last (1 for a vector).
    pub fn rows(&self) -> u64 {
        self.shape.iter().rev().skip(1).product()
    }

    /// The last dimension: the length of a row (1 for a scalar).
    pub fn cols(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Byte range in the file; checked to lie inside `file_len` bytes.
    pub fn range(&self, file_len: u64) -> Result<Range<usize>, FormatError> {
        let end = self.offset.checked_add(self.bytes).filter(|&end| end <= file_len);
        match (usize::try_from(self.offset), end.and_then(|end| usize::try_from(end).ok())) {
            (Ok(start), Some(end)) => Ok(start..end),
            _ => Err(FormatError::Truncated {
                what: format!("tensor {}", self.name),
                offset: self.offset,
                end: self.offset.saturating_add(self.bytes),
                len: file_len,
            }),
        }
    }
}

/// Number of elements of a shape, checked.
pub fn element_count(shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d))
}
