//! T-MAC v1 (`.tmac.bin`): the tensors of llama2.c v0, the matrices as ternary codes without a scale.
//!
//! Each stacked matrix is one run of 2-bit codes, so that a layer may begin inside a byte. The byte table is
//! in `docs/src/formats/tmac-v1.md`.

use std::io::{self, Write};

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::detect::FileKind;
use crate::error::FormatError;
use crate::header::{Classifier, Header};
use crate::layout::{Directory, Encoding, legacy_order};
use crate::reader::Reader;
use crate::tensor::TensorInfo;
use crate::trailer;
use crate::writer::TensorData;

/// First bytes of the file.
pub(crate) const MAGIC: [u8; 4] = *b"TMAC";

/// Reads a file and checks every ternary code.
pub fn parse(bytes: &[u8]) -> Result<Checkpoint, FormatError> {
    let mut reader = Reader::new(bytes);
    if reader.array::<4>("magic")? != MAGIC {
        return Err(FormatError::field("magic", 0, "is not TMAC"));
    }
    let header = Header::read(&mut reader, Classifier::Sign)?;
    let directory = layout(Directory::over(bytes), &header)?;
    let trailer = trailer::parse(bytes, directory.end())?;
    directory.check_codes()?;
    Ok(Checkpoint { trailer, ..Checkpoint::new(FileKind::TmacV1, header, directory.into_tensors()) })
}

/// Every tensor in file order, one a layer; the layers of a matrix share the byte range of their run.
pub fn tensors(header: &Header) -> Result<Vec<TensorInfo>, FormatError> {
    header.check()?;
    Ok(layout(Directory::planned(), header)?.into_tensors())
}

/// Writes a file. `data` appends the encoded bytes of the tensor that it is asked for, in file order; a
/// stacked matrix is asked for as a whole, named by its stem (`wq`), shape `[layers, rows, cols]`.
pub fn write<E: From<io::Error> + From<FormatError>>(
    out: &mut dyn Write,
    header: &Header,
    metadata: Option<&Value>,
    data: &mut TensorData<'_, E>,
) -> Result<(), E> {
    header.check()?;
    layout(Directory::planned(), header)?.write(out, data)?;
    Ok(metadata.map_or(Ok(()), |metadata| trailer::write(out, metadata))?)
}

fn layout<'a>(mut directory: Directory<'a>, header: &Header) -> Result<Directory<'a>, FormatError> {
    directory.mark("magic", &MAGIC)?;
    directory.mark("header", &header.to_bytes(Classifier::Sign))?;
    for spec in legacy_order(header) {
        directory.push(&spec, if spec.quantizable { Encoding::TernaryRun } else { Encoding::F32 })?;
    }
    Ok(directory)
}
