//! Q4V1 (`.q4.bin`): the tensors of llama2.c v0, the matrices in blocks of 32 four-bit weights.
//!
//! Each tensor begins with a flag: 1 for blocks, 0 for f32. The blocks of a stacked matrix are one run. The
//! byte table is in `docs/src/formats/int4.md`.

use std::io::{self, Write};

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::detect::FileKind;
use crate::error::FormatError;
use crate::header::{Classifier, Header};
use crate::layout::{Directory, Encoding, Spec, legacy_order};
use crate::reader::Reader;
use crate::tensor::TensorInfo;
use crate::trailer;
use crate::writer::TensorData;

/// First bytes of the file.
pub(crate) const MAGIC: [u8; 4] = *b"Q4V1";
/// Weights of a block, the only size that the format has.
const BLOCK: i32 = 32;

/// Reads a file.
pub fn parse(bytes: &[u8]) -> Result<Checkpoint, FormatError> {
    let mut reader = Reader::new(bytes);
    if reader.array::<4>("magic")? != MAGIC {
        return Err(FormatError::field("magic", 0, "is not Q4V1"));
    }
    let header = Header::read(&mut reader, Classifier::Sign)?;
    let directory = layout(Directory::over(bytes), &header, &|_| false)?;
    let trailer = trailer::parse(bytes, directory.end())?;
    Ok(Checkpoint { trailer, ..Checkpoint::new(FileKind::Int4, header, directory.into_tensors()) })
}

/// Every tensor in file order, one a layer; the layers of a matrix in blocks share the byte range of their
/// run. `keep_f32` says by stem (`token_embedding`, `wq`, …) which matrices are not quantized.
pub fn tensors(header: &Header, keep_f32: &dyn Fn(&str) -> bool) -> Result<Vec<TensorInfo>, FormatError> {
    header.check()?;
    Ok(layout(Directory::planned(), header, keep_f32)?.into_tensors())
}

/// Writes a file. `data` appends the encoded bytes of the tensor that it is asked for, in file order; a
/// stacked matrix in blocks is asked for as a whole, named by its stem, shape `[layers, rows, cols]`.
pub fn write<E: From<io::Error> + From<FormatError>>(
    out: &mut dyn Write,
    header: &Header,
    keep_f32: &dyn Fn(&str) -> bool,
    metadata: Option<&Value>,
    data: &mut TensorData<'_, E>,
) -> Result<(), E> {
    header.check()?;
    layout(Directory::planned(), header, keep_f32)?.write(out, data)?;
    Ok(metadata.map_or(Ok(()), |metadata| trailer::write(out, metadata))?)
}

fn layout<'a>(
    mut directory: Directory<'a>,
    header: &Header,
    keep_f32: &dyn Fn(&str) -> bool,
) -> Result<Directory<'a>, FormatError> {
    directory.mark("magic", &MAGIC)?;
    directory.mark("header", &header.to_bytes(Classifier::Sign))?;
    directory.mark("block size", &BLOCK.to_le_bytes())?;
    for spec in legacy_order(header) {
        let blocks = flag(&directory, &spec, keep_f32)?;
        directory.mark("flag", &[u8::from(blocks)])?;
        directory.push(&spec, if blocks { Encoding::Int4Run } else { Encoding::F32 })?;
    }
    Ok(directory)
}

/// Whether the next tensor is quantized: as the flag in the file says, or `keep_f32` when there is no file.
/// Only a weight matrix can be. T-MAC v2 has the same flags.
pub(crate) fn flag(
    directory: &Directory<'_>,
    spec: &Spec,
    keep_f32: &dyn Fn(&str) -> bool,
) -> Result<bool, FormatError> {
    let name = || format!("flag of tensor {}", spec.stem);
    let Some(mut reader) = directory.reader(spec.stem)? else {
        return Ok(spec.quantizable && !keep_f32(spec.stem));
    };
    match reader.u8(&name())? {
        0 => Ok(false),
        1 if spec.quantizable => Ok(true),
        1 => Err(FormatError::field(name(), directory.end(), "only a weight matrix can be quantized")),
        other => {
            let problem = format!("must be 0 or 1, but is {other}");
            Err(FormatError::field(name(), directory.end(), problem))
        }
    }
}
