//! What can be written: formats, their row types, and the files that hold them.

use std::path::Path;

use kernels::row::RowType;

use crate::convert::Target;

/// What the matrices become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// T-MAC v1: signs beyond a threshold of the whole tensor, no scale.
    Tmac,
    /// T-MAC v2: ternary rows with an f16 scale each.
    Tmac2,
    /// Ternary rows as BitNet has them; a BitNet model is repacked without loss.
    Bitnet,
    /// The engine's own ternary type.
    Ternary,
    /// Blocks of 32 four-bit weights: Q4V1, or Q4_0 in a GGUF file.
    Int4,
    /// Q8_0 in a GGUF file.
    Int8,
    /// Half precision in a GGUF file.
    F16,
    /// GGUF's TQ1_0.
    Tq1_0,
    /// GGUF's TQ2_0.
    Tq2_0,
}

impl Format {
    /// All of them with their names.
    pub const ALL: [(&'static str, Self); 11] = [
        ("tmac", Self::Tmac),
        ("tmac2", Self::Tmac2),
        ("bitnet", Self::Bitnet),
        ("ternary", Self::Ternary),
        ("int4", Self::Int4),
        ("int8", Self::Int8),
        ("f16", Self::F16),
        ("tq1_0", Self::Tq1_0),
        ("tq2_0", Self::Tq2_0),
        ("q4_0", Self::Int4),
        ("q8_0", Self::Int8),
    ];

    /// The format of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, format)| format)
    }

    /// Its first name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("", |&(name, _)| name)
    }

    /// The container of a file of this name.
    pub fn target(self, output: &Path) -> Target {
        let is_gguf = output.extension().is_some_and(|extension| extension == "gguf");
        match self {
            Self::Tmac => Target::TmacV1,
            Self::Tmac2 => Target::TmacV2,
            Self::Bitnet if !is_gguf => Target::TmacV2,
            Self::Int4 if !is_gguf => Target::Q4V1,
            _ => Target::Gguf,
        }
    }

    /// The type of the rows of linear layers in that container; `None` where a tensor is written as a whole.
    pub(crate) fn row_type(self, target: Target, planes: usize) -> Option<RowType> {
        match (self, target) {
            (Self::Tmac, _) => None,
            (Self::Tmac2, _) | (Self::Bitnet, Target::TmacV2) => Some(RowType::Ternary16),
            (Self::Bitnet | Self::Tq2_0, _) => Some(RowType::TQ2_0),
            (Self::Ternary, _) if planes == 2 => Some(RowType::TG2),
            (Self::Ternary, _) => Some(RowType::TG1),
            (Self::Int4, Target::Gguf) => Some(RowType::Q4_0),
            (Self::Int4, _) => Some(RowType::Int4),
            (Self::Int8, _) => Some(RowType::Q8_0),
            (Self::F16, _) => Some(RowType::F16),
            (Self::Tq1_0, _) => Some(RowType::TQ1_0),
        }
    }
}

/// The types that the embedding and the classifier may be asked to have, with their names.
pub const VOCABULARY_TYPES: [(&str, Option<RowType>); 8] = [
    ("keep", None),
    ("f32", Some(RowType::F32)),
    ("f16", Some(RowType::F16)),
    ("bf16", Some(RowType::BF16)),
    ("int8", Some(RowType::Q8_0)),
    ("int4", Some(RowType::Q4_0)),
    ("q4_1", Some(RowType::Q4_1)),
    ("ternary", Some(RowType::Ternary16)),
];
