//! Ids of tensor types: ggml's `enum ggml_type`, those that bitnet.cpp's fork adds, and our own from 4001 on.

use crate::tensor::TensorType;

/// The types that we read, with their ids in the file.
const KNOWN: [(u32, TensorType); 27] = [
    (0, TensorType::F32),
    (1, TensorType::F16),
    (2, TensorType::Q4_0),
    (3, TensorType::Q4_1),
    (6, TensorType::Q5_0),
    (7, TensorType::Q5_1),
    (8, TensorType::Q8_0),
    (10, TensorType::Q2_K),
    (11, TensorType::Q3_K),
    (12, TensorType::Q4_K),
    (13, TensorType::Q5_K),
    (14, TensorType::Q6_K),
    (20, TensorType::IQ4_NL),
    (23, TensorType::IQ4_XS),
    (24, TensorType::I8),
    (25, TensorType::I16),
    (26, TensorType::I32),
    (27, TensorType::I64),
    (28, TensorType::F64),
    (30, TensorType::BF16),
    (34, TensorType::TQ1_0),
    (35, TensorType::TQ2_0),
    (36, TensorType::I2_S),
    (MXFP4_ID, TensorType::MXFP4),
    (4001, TensorType::TG1),
    (4002, TensorType::TG2),
    (4003, TensorType::BG1),
];

/// ggml's MXFP4, but TL2 in files of bitnet.cpp, whose fork took the id first.
const MXFP4_ID: u32 = 39;

/// Types that exist and that we do not read, so that an error can name them.
const FOREIGN: [(u32, &str); 15] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (38, "TL1 of bitnet.cpp"),
];

/// The type with this id, or what to say about it. `bitnet` tells the two meanings of id 39 apart.
pub(super) fn from_id(id: u32, bitnet: bool) -> Result<TensorType, String> {
    let foreign = if id == MXFP4_ID && bitnet {
        Some("TL2 of bitnet.cpp")
    } else if let Some(&(_, ty)) = KNOWN.iter().find(|&&(known, _)| known == id) {
        return Ok(ty);
    } else {
        FOREIGN.iter().find(|&&(foreign, _)| foreign == id).map(|&(_, name)| name)
    };
    let name = foreign.unwrap_or("unknown");
    let known: Vec<String> = KNOWN.iter().map(|(_, ty)| format!("{ty:?}")).collect();
    Err(format!("type {id} ({name}) is not supported; the supported ones are {}", known.join(", ")))
}

/// The id of a type; `None` for those that GGUF does not have (bool and u8 of safetensors).
pub(super) fn id(ty: TensorType) -> Option<u32> {
    KNOWN.iter().find(|&&(_, known)| known == ty).map(|&(id, _)| id)
}
