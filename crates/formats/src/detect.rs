//! What kind of file it is, from its content.

use std::fmt;

use crate::error::FormatError;
use crate::header::{Classifier, Header};
use crate::reader::Reader;
use crate::{bitllama, int4, llama2c, tmac_v1, tmac_v2, tokenizer_file};

/// The file formats that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// llama2.c checkpoint without magic, f32.
    Llama2cV0,
    /// llama2.c checkpoint, version 1, f32.
    Llama2cV1,
    /// llama2.c checkpoint, version 2, int8.
    Llama2cV2,
    /// T-MAC v1, ternary without scales.
    TmacV1,
    /// T-MAC v2, ternary rows with f16 scales.
    TmacV2,
    /// Q4V1, four-bit blocks.
    Int4,
    /// bitllama2.c checkpoint, ternary with a scale a matrix.
    Bitllama,
    /// GGUF.
    Gguf,
    /// safetensors.
    Safetensors,
    /// llama2.c `tokenizer.bin`.
    Tokenizer,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Llama2cV0 => "llama2.c v0",
            Self::Llama2cV1 => "llama2.c v1",
            Self::Llama2cV2 => "llama2.c v2",
            Self::TmacV1 => "T-MAC v1",
            Self::TmacV2 => "T-MAC v2",
            Self::Int4 => "Q4V1",
            Self::Bitllama => "bitllama",
            Self::Gguf => "GGUF",
            Self::Safetensors => "safetensors",
            Self::Tokenizer => "tokenizer.bin",
        })
    }
}

/// Tells the kind of a whole file. Nothing but what tells kinds apart is checked: the kind's own parser finds
/// what is wrong with the file.
///
/// - A magic decides for GGUF, T-MAC, Q4V1 and llama2.c v2.
/// - bitllama has the magic and version of llama2.c v1 and differs only in what follows: it is one when the
///   header's shape gives exactly the file's length as bitllama (as v1 the same shape is always longer).
/// - safetensors: a u64 header length that fits the file, then `{`.
/// - tokenizer.bin: as a vocabulary it ends exactly at the end of the file.
/// - llama2.c v0: seven possible dimensions.
///
/// # Errors
/// [`FormatError::Unknown`]; and for a file with the magic of llama2.c what is wrong with its version.
pub fn detect(bytes: &[u8]) -> Result<FileKind, FormatError> {
    match bytes.first_chunk::<4>() {
        Some(b"GGUF") => return Ok(FileKind::Gguf),
        Some(&tmac_v1::MAGIC) => return Ok(FileKind::TmacV1),
        Some(&tmac_v2::MAGIC) => return Ok(FileKind::TmacV2),
        Some(&int4::MAGIC) => return Ok(FileKind::Int4),
        Some(&llama2c::MAGIC) => return detect_versioned(bytes),
        _ => {}
    }
    if is_safetensors(bytes) {
        Ok(FileKind::Safetensors)
    } else if tokenizer_file::parse(bytes).is_ok() {
        Ok(FileKind::Tokenizer)
    } else if Header::read(&mut Reader::new(bytes), Classifier::Sign).is_ok() {
        Ok(FileKind::Llama2cV0)
    } else {
        let start = bytes.get(..bytes.len().min(8)).unwrap_or_default();
        let problem = format!(
            "no magic of GGUF, llama2.c, T-MAC or Q4V1, no header of safetensors, llama2.c v0 or tokenizer.bin; \
             it is {} bytes long and begins with {start:02x?}",
            bytes.len()
        );
        Err(FormatError::Unknown { problem })
    }
}

fn detect_versioned(bytes: &[u8]) -> Result<FileKind, FormatError> {
    match Reader::new(bytes.get(4..).unwrap_or_default()).i32("version") {
        Ok(1) if bitllama::fits(bytes) => Ok(FileKind::Bitllama),
        Ok(1) => Ok(FileKind::Llama2cV1),
        Ok(2) => Ok(FileKind::Llama2cV2),
        Ok(version) => Err(FormatError::field("version", 4, format!("must be 1 or 2, but is {version}"))),
        Err(_) => {
            Err(FormatError::Truncated { what: "version".into(), offset: 4, end: 8, len: bytes.len() as u64 })
        }
    }
}

fn is_safetensors(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    let Ok(length) = reader.u64("header length") else { return false };
    length >= 2 && length <= reader.remaining() && bytes.get(8) == Some(&b'{')
}
