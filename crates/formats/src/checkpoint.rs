//! One entry point over the llama2.c family: llama2.c, T-MAC, Q4V1 and bitllama files.

use serde_json::Value;

use crate::detect::{FileKind, detect};
use crate::error::FormatError;
use crate::header::Header;
use crate::tensor::TensorInfo;
use crate::{bitllama, int4, llama2c, tmac_v1, tmac_v2};

/// A checked file of the family.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Which format.
    pub kind: FileKind,
    /// Shape of the model.
    pub header: Header,
    /// Whether it is T-MAC v2's BitNet variant: ReLU², sub-norms, half-split RoPE, theta 500000.
    pub bitnet: bool,
    /// Every tensor, one a layer, in file order, inside the file.
    pub tensors: Vec<TensorInfo>,
    /// The metadata trailer of T-MAC and Q4V1 files, a JSON object.
    pub trailer: Option<Value>,
}

impl Checkpoint {
    /// A checkpoint without what only some formats have.
    pub(crate) fn new(kind: FileKind, header: Header, tensors: Vec<TensorInfo>) -> Self {
        Self { kind, header, bitnet: false, tensors, trailer: None }
    }

    /// Reads a whole file of any format of the family, told from its content.
    ///
    /// # Errors
    /// What the format's own parser reports; [`FormatError::Unknown`] for a file outside the family.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        match detect(bytes)? {
            FileKind::Llama2cV0 => llama2c::parse_v0(bytes),
            FileKind::Llama2cV1 | FileKind::Llama2cV2 => llama2c::parse_versioned(bytes),
            FileKind::TmacV1 => tmac_v1::parse(bytes),
            FileKind::TmacV2 => tmac_v2::parse(bytes),
            FileKind::Int4 => int4::parse(bytes),
            FileKind::Bitllama => bitllama::parse(bytes, None),
            other @ (FileKind::Gguf | FileKind::Safetensors | FileKind::Tokenizer) => {
                Err(FormatError::Unknown { problem: format!("a {other} file is not of the llama2.c family") })
            }
        }
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`FormatError::MissingTensor`].
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, FormatError> {
        let found = self.tensors.iter().find(|tensor| tensor.name == name);
        found.ok_or_else(|| FormatError::MissingTensor { tensor: name.to_owned() })
    }
}
