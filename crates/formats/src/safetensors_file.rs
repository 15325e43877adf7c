//! safetensors files: a JSON directory, then the tensors without gaps.
//!
//! The `safetensors` crate reads the directory; what it leaves open (names that occur twice, offsets beyond the
//! file) is checked here. Specification: the README of huggingface/safetensors.

use std::collections::HashSet;
use std::fmt;

use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::error::FormatError;
use crate::limits::{MAX_DIMS, MAX_NAME, MAX_SAFETENSORS_HEADER, MAX_TENSORS};
use crate::reader::Reader;
use crate::tensor::{Layout, TensorInfo, TensorType, element_count};

const HEADER: &str = "safetensors header";

/// The tensors of a whole file in the order of their bytes, with offsets from the start of the file.
///
/// # Errors
/// A header that is too long, is not JSON, names a tensor twice or leaves its data range; tensors that are
/// empty, overlap or leave a gap; element types without a [`TensorType`] (8-bit floats, unsigned integers of
/// more than 8 bits), by name of the tensor.
pub fn parse(bytes: &[u8]) -> Result<Vec<TensorInfo>, FormatError> {
    let mut reader = Reader::new(bytes);
    let length = reader.u64("safetensors header length")?;
    if length > MAX_SAFETENSORS_HEADER {
        let field = "safetensors header length".to_owned();
        return Err(FormatError::Limit { field, value: length, limit: MAX_SAFETENSORS_HEADER });
    }
    let header = reader.bytes(length, HEADER)?;
    let data = reader.offset();
    let directory: Directory = serde_json::from_slice(header).map_err(json)?;
    if let Some((name, end)) = directory.beyond(reader.remaining()) {
        let what = format!("tensor {name}");
        let (offset, len) = (data, bytes.len() as u64);
        return Err(FormatError::Truncated { what, offset, end: data.saturating_add(end), len });
    }
    let (_, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|e| directory.wrong(e, data, bytes.len()))?;
    directory.names.iter().map(|(name, _)| tensor(name, &metadata, data)).collect()
}

fn tensor(name: &str, metadata: &Metadata, data: u64) -> Result<TensorInfo, FormatError> {
    let info = metadata.info(name).ok_or_else(|| FormatError::MissingTensor { tensor: name.to_owned() })?;
    let (start, end) = info.data_offsets;
    let offset = data + start as u64;
    let shape: Vec<u64> = info.shape.iter().map(|&d| d as u64).collect();
    if shape.len() > MAX_DIMS || element_count(&shape).is_none_or(|n| n == 0) {
        return Err(FormatError::tensor(
            name,
            offset,
            format!("shape {shape:?} is empty or has more than {MAX_DIMS} dimensions"),
        ));
    }
    let ty = match info.dtype {
        Dtype::F32 => TensorType::F32,
        Dtype::F16 => TensorType::F16,
        Dtype::BF16 => TensorType::BF16,
        Dtype::F64 => TensorType::F64,
        Dtype::BOOL => TensorType::Bool,
        Dtype::U8 => TensorType::U8,
        Dtype::I8 => TensorType::I8,
        Dtype::I16 => TensorType::I16,
        Dtype::I32 => TensorType::I32,
        Dtype::I64 => TensorType::I64,
        other => {
            return Err(FormatError::tensor(
                name,
                offset,
                format!("element type {other:?} is not supported"),
            ));
        }
    };
    Ok(TensorInfo {
        name: name.to_owned(),
        shape,
        layout: Layout::Rows(ty),
        offset,
        bytes: (end - start) as u64,
    })
}

fn json(error: serde_json::Error) -> FormatError {
    FormatError::Json { what: HEADER.into(), problem: error.to_string() }
}

/// Names and data ranges of the header, before anything is made of them.
struct Directory {
    /// `(name, (start, end))` in the order of the bytes.
    names: Vec<(String, (u64, u64))>,
}

impl Directory {
    /// The first tensor that ends behind `data_len` bytes, and where.
    fn beyond(&self, data_len: u64) -> Option<(&str, u64)> {
        self.names.iter().find(|(_, (_, end))| *end > data_len).map(|(name, (_, end))| (name.as_str(), *end))
    }

    /// What the crate says, with the place in the file.
    fn wrong(&self, error: SafeTensorError, data: u64, file_len: usize) -> FormatError {
        let problem = match error {
            SafeTensorError::InvalidHeaderDeserialization(error) => return json(error),
            SafeTensorError::InvalidOffset(name) => {
                let found = self.names.iter().find(|(known, _)| *known == name);
                let offset = data + found.map_or(0, |(_, (start, _))| *start);
                let problem = "does not begin where the tensor before it ends";
                return FormatError::tensor(name, offset, problem);
            }
            SafeTensorError::MetadataIncompleteBuffer => {
                format!("the tensors do not end at the end of the file, byte {file_len}")
            }
            other => other.to_string(),
        };
        FormatError::Json { what: HEADER.into(), problem }
    }
}

#[derive(Deserialize)]
struct Offsets {
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Directory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DirectoryVisitor)
    }
}

struct DirectoryVisitor;

impl<'de> Visitor<'de> for DirectoryVisitor {
    type Value = Directory;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a member for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Directory, A::Error> {
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.len() as u64 > MAX_NAME || names.len() as u64 >= MAX_TENSORS {
                return Err(A::Error::custom("a name is too long or there are too many tensors"));
            }
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("{name} occurs twice")));
            }
            if name == "__metadata__" {
                map.next_value::<serde::de::IgnoredAny>()?;
            } else {
                names.push((name, map.next_value::<Offsets>()?.data_offsets));
            }
        }
        names.sort_by(|(a, a_range), (b, b_range)| (a_range, a).cmp(&(b_range, b)));
        Ok(Directory { names })
    }
}
