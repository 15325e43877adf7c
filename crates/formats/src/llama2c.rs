//! llama2.c checkpoints: legacy (v0, f32), v1 (f32 with magic) and v2 (int8 groups).
//!
//! Follows karpathy/llama2.c `export.py`, `run.c` and `runq.c`; the byte tables are in
//! `docs/src/formats/llama2c.md`. RoPE rotates adjacent pairs, theta is 10000, eps is 1e-5.

use std::io::{self, Write};

use crate::checkpoint::Checkpoint;
use crate::detect::FileKind;
use crate::error::FormatError;
pub use crate::header::Header;
use crate::header::{Classifier, HEADER_BYTES};
use crate::layout::{Directory, Encoding, Spec, legacy_order};
use crate::reader::Reader;
use crate::tensor::TensorInfo;
use crate::writer::TensorData;

/// The magic of v1, v2 and bitllama: 0x616b3432, "ak42" as a number.
pub(crate) const MAGIC: [u8; 4] = 0x616b_3432_u32.to_le_bytes();
/// Length of the header of v1, v2 and bitllama, zeros included.
const PADDED_HEADER: u64 = 256;

/// Which of the three checkpoint versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// No magic, f32, the order of `legacy_export`.
    V0,
    /// Magic, 256-byte header, f32.
    V1,
    /// As v1 with the matrices in int8.
    V2 {
        /// Weights that share an f32 scale; it divides the number of weights of every matrix.
        group: u32,
    },
}

/// Reads a checkpoint without magic. It ends with its last tensor.
pub fn parse_v0(bytes: &[u8]) -> Result<Checkpoint, FormatError> {
    let header = Header::read(&mut Reader::new(bytes), Classifier::Sign)?;
    let directory = layout(Directory::over(bytes), &header, Version::V0)?;
    directory.finish()?;
    Ok(Checkpoint::new(FileKind::Llama2cV0, header, directory.into_tensors()))
}

/// Reads a v1 or v2 checkpoint, as its version field says.
pub fn parse_versioned(bytes: &[u8]) -> Result<Checkpoint, FormatError> {
    let (header, version, group) = read_versioned_header(bytes)?;
    let (kind, version) = match version {
        1 => (FileKind::Llama2cV1, Version::V1),
        2 => (FileKind::Llama2cV2, Version::V2 { group }),
        _ => return Err(FormatError::field("version", 4, format!("must be 1 or 2, but is {version}"))),
    };
    let directory = layout(Directory::over(bytes), &header, version)?;
    directory.finish()?;
    Ok(Checkpoint::new(kind, header, directory.into_tensors()))
}

/// The header that v1, v2 and bitllama share: `(header, version, group size)`, the last two unchecked.
pub(crate) fn read_versioned_header(bytes: &[u8]) -> Result<(Header, i32, u32), FormatError> {
    let mut reader = Reader::new(bytes);
    if reader.array::<4>("magic")? != MAGIC {
        return Err(FormatError::field("magic", 0, "is not ak42"));
    }
    let version = reader.i32("version")?;
    let mut header = Header::read(&mut reader, Classifier::Flag)?;
    header.shared_classifier = match reader.u8("shared_classifier")? {
        0 => false,
        1 => true,
        other => {
            let problem = format!("must be 0 or 1, but is {other}");
            return Err(FormatError::field("shared_classifier", reader.offset() - 1, problem));
        }
    };
    let group = if version == 2 { reader.u32("group_size")? } else { 0 };
    Ok((header, version, group))
}

/// Marks the header that v1, v2 and bitllama share, up to byte 256.
pub(crate) fn mark_versioned_header(
    directory: &mut Directory<'_>,
    header: &Header,
    version: i32,
    group: Option<u32>,
) -> Result<(), FormatError> {
    directory.mark("magic", &MAGIC)?;
    directory.mark("version", &version.to_le_bytes())?;
    directory.mark("header", &header.to_bytes(Classifier::Flag))?;
    directory.mark("shared_classifier", &[u8::from(header.shared_classifier)])?;
    if let Some(group) = group {
        directory.mark("group_size", &group.to_le_bytes())?;
    }
    let padding = PADDED_HEADER - directory.end();
    directory.mark("header padding", &vec![0; padding as usize])
}

/// Every tensor of a checkpoint of that version in file order, with its place in the file. The RoPE tables
/// `freq_cis_real` and `freq_cis_imag` of v0 are listed, though a reader computes RoPE itself.
pub fn tensors(header: &Header, version: Version) -> Result<Vec<TensorInfo>, FormatError> {
    header.check()?;
    Ok(layout(Directory::planned(), header, version)?.into_tensors())
}

/// Writes a checkpoint. `data` appends the encoded bytes of the tensor that it is asked for, one after another
/// in the order of [`tensors`].
pub fn write<E: From<io::Error> + From<FormatError>>(
    out: &mut dyn Write,
    header: &Header,
    version: Version,
    data: &mut TensorData<'_, E>,
) -> Result<(), E> {
    header.check()?;
    layout(Directory::planned(), header, version)?.write(out, data)
}

fn layout<'a>(
    mut directory: Directory<'a>,
    header: &Header,
    version: Version,
) -> Result<Directory<'a>, FormatError> {
    let group = match version {
        Version::V0 => {
            let bytes = header.to_bytes(Classifier::Sign);
            debug_assert_eq!(bytes.len() as u64, HEADER_BYTES);
            directory.mark("header", &bytes)?;
            for spec in legacy_order(header) {
                directory.push(&spec, Encoding::F32)?;
            }
            return Ok(directory);
        }
        Version::V1 => {
            mark_versioned_header(&mut directory, header, 1, None)?;
            None
        }
        Version::V2 { group } => {
            if group == 0 || group > i32::MAX as u32 {
                let problem = format!("must be positive, but is {}", group as i32);
                return Err(FormatError::field("group_size", 37, problem));
            }
            mark_versioned_header(&mut directory, header, 2, Some(group))?;
            Some(group)
        }
    };
    for spec in versioned_order(header) {
        let encoding = match group {
            Some(group) if spec.quantizable => Encoding::Int8Groups { group: u64::from(group) },
            _ => Encoding::F32,
        };
        directory.push(&spec, encoding)?;
    }
    Ok(directory)
}

/// The tensors of v1 and v2 in file order.
fn versioned_order(header: &Header) -> Vec<Spec> {
    let &Header { dim, hidden_dim, n_layers, vocab_size, .. } = header;
    let kv_dim = header.kv_dim();
    let layers = 0..n_layers;
    let mut specs = vec![Spec::vector("rms_att", dim).in_layers(layers.clone())];
    specs.push(Spec::vector("rms_ffn", dim).in_layers(layers.clone()));
    specs.push(Spec::vector("rms_final", dim));
    specs.push(Spec::matrix("token_embedding", vocab_size, dim));
    specs.push(Spec::matrix("wq", dim, dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("wk", kv_dim, dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("wv", kv_dim, dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("wo", dim, dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("w1", hidden_dim, dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("w2", dim, hidden_dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("w3", hidden_dim, dim).in_layers(layers));
    if !header.shared_classifier {
        specs.push(Spec::matrix("wcls", vocab_size, dim));
    }
    specs
}
