//! The types that a row of weights can have, and how many bytes a row of each takes.

use std::fmt;

/// Type of a row of weights: how its bytes are laid out. A matrix is `rows` such rows one after another.
///
/// GGUF's types have GGUF's names and blocks (`ggml-common.h`); the others are our own or those of the seed
/// formats. Every block is byte for byte on the page "Row types" of the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "the field's own names")]
pub enum RowType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an F32.
    BF16,
    /// 32 x 4 bits, f16 scale; q - 8.
    Q4_0,
    /// 32 x 4 bits, f16 scale and f16 minimum.
    Q4_1,
    /// 32 x 5 bits, f16 scale; q - 16.
    Q5_0,
    /// 32 x 5 bits, f16 scale and f16 minimum.
    Q5_1,
    /// 32 x 8 bits, f16 scale.
    Q8_0,
    /// 256 x 2 bits; per 16 a 4-bit scale and a 4-bit minimum, of an f16 each.
    Q2_K,
    /// 256 x 3 bits; per 16 a 6-bit signed scale of an f16.
    Q3_K,
    /// 256 x 4 bits; per 32 a 6-bit scale and a 6-bit minimum, of an f16 each.
    Q4_K,
    /// 256 x 5 bits; scales as in Q4_K.
    Q5_K,
    /// 256 x 6 bits; per 16 an 8-bit signed scale of an f16; q - 32.
    Q6_K,
    /// 32 x 4 bits into a table of 16 values, f16 scale.
    IQ4_NL,
    /// 256 x 4 bits into IQ4_NL's table; per 32 a 6-bit signed scale of an f16.
    IQ4_XS,
    /// 32 x 4-bit floats (E2M1), one power of two (E8M0): OCP Microscaling Formats 1.0.
    MXFP4,
    /// 256 ternary weights, 5 a byte in base 3, f16 scale.
    TQ1_0,
    /// 256 ternary weights, 4 a byte, f16 scale.
    TQ2_0,
    /// A Q4V1 block: f16 scale, 32 x 4 bits with neighbours in one byte; q - 8.
    Int4,
    /// f32 scale, then 32 x i8: what llama2.c v2 checkpoints are repacked into.
    Int8,
    /// A row of T-MAC v2: f16 scale, then 2-bit ternary codes.
    Ternary16,
    /// As [`RowType::Ternary16`] with an f32 scale: what all other ternary files are repacked into.
    Ternary32,
    /// 64 ternary weights, 5 a byte in base 3; per 32 an 8-bit scale. The last block of a row may be filled up.
    TG1,
    /// 64 weights in -4..=4 as two planes of ternary digits, 3 t + u; per 32 an 8-bit scale. Filled up likewise.
    TG2,
    /// 64 weights of -1 or +1; per 32 an 8-bit scale. Filled up likewise.
    BG1,
}

impl RowType {
    /// All types, in the order of their declaration.
    pub const ALL: [Self; 25] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ4_NL,
        Self::IQ4_XS,
        Self::MXFP4,
        Self::TQ1_0,
        Self::TQ2_0,
        Self::Int4,
        Self::Int8,
        Self::Ternary16,
        Self::Ternary32,
        Self::TG1,
        Self::TG2,
        Self::BG1,
    ];

    /// `(weights, bytes)` of one block. A row is a whole number of blocks, save for those whose last block may be
    /// filled up with zeros ([`RowType::takes_any_width`]). The scale of [`RowType::Ternary16`] and
    /// [`RowType::Ternary32`] stands before the first block ([`RowType::header_bytes`]).
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q4_0 | Self::IQ4_NL | Self::Int4 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Int8 => (32, 36),
            Self::MXFP4 => (32, 17),
            Self::Q2_K => (256, 84),
            Self::Q3_K => (256, 110),
            Self::Q4_K => (256, 144),
            Self::Q5_K => (256, 176),
            Self::Q6_K => (256, 210),
            Self::IQ4_XS => (256, 136),
            Self::TQ1_0 => (256, 54),
            Self::TQ2_0 => (256, 66),
            Self::Ternary16 | Self::Ternary32 => (4, 1),
            Self::TG1 => (64, 15),
            Self::TG2 => (64, 28),
            Self::BG1 => (64, 10),
        }
    }

    /// Bytes of a row before its first block: the row's scale for Ternary16 (2) and Ternary32 (4), else 0.
    pub const fn header_bytes(self) -> usize {
        match self {
            Self::Ternary16 => 2,
            Self::Ternary32 => 4,
            _ => 0,
        }
    }

    /// Bytes of a row of `cols` weights; `None` when `cols` is not a whole number of blocks or the size
    /// overflows.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        let (weights, bytes) = self.block();
        let header = self.header_bytes();
        if !self.takes_any_width() && !cols.is_multiple_of(weights) {
            return None;
        }
        match cols.div_ceil(weights).checked_mul(bytes) {
            Some(blocks) => blocks.checked_add(header),
            None => None,
        }
    }

    /// Whether the last block of a row may be filled up: Ternary16, Ternary32, TG1, TG2, BG1.
    pub const fn takes_any_width(self) -> bool {
        matches!(self, Self::Ternary16 | Self::Ternary32 | Self::TG1 | Self::TG2 | Self::BG1)
    }

    /// Whether a weight is a floating-point number by itself: F32, F16, BF16.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// Weights that share a scale in [`crate::codec::UnpackedRow`]: 16, 32 or, for Ternary16 and Ternary32,
    /// the whole row (`cols`). 1 for the floating-point types, which are not unpacked.
    pub const fn group(self, cols: usize) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q2_K | Self::Q3_K | Self::Q6_K => 16,
            Self::Ternary16 | Self::Ternary32 => cols,
            _ => 32,
        }
    }

    /// Whether a group has an offset beside its scale: Q4_1, Q5_1, Q2_K, Q4_K, Q5_K.
    pub const fn has_offset(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q2_K | Self::Q4_K | Self::Q5_K)
    }

    /// Whether [`crate::codec::quantize_row`] writes this type; the others are only read.
    pub const fn is_writable(self) -> bool {
        !matches!(
            self,
            Self::Q5_0
                | Self::Q5_1
                | Self::Q2_K
                | Self::Q3_K
                | Self::Q4_K
                | Self::Q5_K
                | Self::Q6_K
                | Self::IQ4_NL
                | Self::IQ4_XS
                | Self::MXFP4
        )
    }

    /// The name as users and files write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2_K => "Q2_K",
            Self::Q3_K => "Q3_K",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
            Self::IQ4_NL => "IQ4_NL",
            Self::IQ4_XS => "IQ4_XS",
            Self::MXFP4 => "MXFP4",
            Self::TQ1_0 => "TQ1_0",
            Self::TQ2_0 => "TQ2_0",
            Self::Int4 => "Int4",
            Self::Int8 => "Int8",
            Self::Ternary16 => "Ternary16",
            Self::Ternary32 => "Ternary32",
            Self::TG1 => "TG1",
            Self::TG2 => "TG2",
            Self::BG1 => "BG1",
        }
    }
}

impl fmt::Display for RowType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
