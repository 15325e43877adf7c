//! From bytes to a checked directory.

use std::collections::HashSet;

use super::value::{ValueType, read_string, unknown_type};
use super::{Array, DEFAULT_ALIGNMENT, Entry, Gguf, MAGIC, Value, types};
use crate::error::FormatError;
use crate::limits::{MAX_DIMS, MAX_METADATA, MAX_NAME, MAX_TENSORS};
use crate::reader::Reader;
use crate::tensor::{Layout, TensorInfo, element_count};

/// Bytes of a metadata entry with an empty key and a value of one byte.
const MIN_ENTRY: u64 = 8 + 4 + 1;
/// Bytes of a tensor's description with an empty name and no dimensions.
const MIN_TENSOR: u64 = 8 + 4 + 4 + 8;

impl<'a> Gguf<'a> {
    /// Reads the header, all metadata and the tensor directory of GGUF version 2 or 3.
    ///
    /// # Errors
    /// Everything that the format forbids is refused with the key or tensor and the byte offset: another magic,
    /// version or byte order; counts beyond the file; strings that are not UTF-8; duplicate keys and tensors;
    /// an alignment that is no power of two; tensors of unknown type, with rows that are no whole number of
    /// blocks, misaligned, overlapping, or outside the file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let version = read_version(&mut reader)?;
        let n_tensors = read_count(&mut reader, "tensor count", MAX_TENSORS, MIN_TENSOR)?;
        let n_entries = read_count(&mut reader, "metadata count", MAX_METADATA, MIN_ENTRY)?;
        let metadata = read_metadata(&mut reader, n_entries)?;
        let mut gguf =
            Self { version, alignment: DEFAULT_ALIGNMENT, metadata, tensors: Vec::new(), data_offset: 0 };
        gguf.alignment = gguf.read_alignment()?;
        let bitnet = gguf.str("general.architecture")?.is_some_and(|name| name.starts_with("bitnet"));
        gguf.tensors = read_tensors(&mut reader, n_tensors, bitnet)?;
        let padding = reader.offset().next_multiple_of(gguf.alignment) - reader.offset();
        if n_tensors > 0 {
            reader.bytes(padding, "padding before the tensor data")?;
        }
        gguf.data_offset = reader.offset();
        gguf.place_tensors(bytes.len() as u64)?;
        Ok(gguf)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value of `key` as a non-negative integer, whatever its width; `None` when absent.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, FormatError> {
        self.typed(key, "a non-negative integer", |v| u64::try_from(v.as_integer()?).ok())
    }

    /// The value of `key` as a float; `None` when absent.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, FormatError> {
        self.typed(key, "a float", Value::as_f32)
    }

    /// The value of `key` as a bool; `None` when absent.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, FormatError> {
        self.typed(key, "a bool", |v| if let Value::Bool(v) = *v { Some(v) } else { None })
    }

    /// The value of `key` as a string; `None` when absent.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, FormatError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// The value of `key` as an array; `None` when absent.
    pub fn array(&self, key: &str) -> Result<Option<Array<'a>>, FormatError> {
        self.typed(key, "an array", |v| if let Value::Array(v) = *v { Some(v) } else { None })
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|t| t.name == name)
    }

    fn entry(&self, key: &str) -> Option<&Entry<'a>> {
        self.metadata.iter().find(|entry| entry.key == key)
    }

    fn typed<T>(
        &self,
        key: &str,
        wanted: &str,
        convert: impl Fn(&Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        convert(&entry.value).map(Some).ok_or_else(|| {
            let found = entry.value.value_type();
            FormatError::field(key, entry.offset, format!("wanted {wanted}, found a value of type {found}"))
        })
    }

    fn read_alignment(&self) -> Result<u64, FormatError> {
        let key = "general.alignment";
        let Some(alignment) = self.u64(key)? else { return Ok(DEFAULT_ALIGNMENT) };
        if alignment.is_power_of_two() && u32::try_from(alignment).is_ok() {
            return Ok(alignment);
        }
        let offset = self.entry(key).map_or(0, |entry| entry.offset);
        Err(FormatError::field(key, offset, format!("{alignment} is not a power of two below 2^32")))
    }

    /// Makes the tensors' offsets absolute and checks that each lies in the file and no two share a byte.
    fn place_tensors(&mut self, file_len: u64) -> Result<(), FormatError> {
        for tensor in &mut self.tensors {
            if tensor.offset % self.alignment != 0 {
                let problem = format!("offset {} is not a multiple of {}", tensor.offset, self.alignment);
                return Err(FormatError::tensor(&tensor.name, tensor.offset, problem));
            }
            tensor.offset = tensor.offset.checked_add(self.data_offset).ok_or_else(|| {
                FormatError::tensor(&tensor.name, tensor.offset, "the offset does not fit in 64 bits")
            })?;
            tensor.range(file_len)?;
        }
        let mut by_offset: Vec<&TensorInfo> = self.tensors.iter().collect();
        by_offset.sort_by_key(|tensor| tensor.offset);
        for pair in by_offset.windows(2) {
            if let [a, b] = pair
                && a.offset + a.bytes > b.offset
            {
                let problem = format!("overlaps {}, which ends at byte {}", a.name, a.offset + a.bytes);
                return Err(FormatError::tensor(&b.name, b.offset, problem));
            }
        }
        Ok(())
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<u32, FormatError> {
    let magic = reader.array::<4>("magic")?;
    if magic != MAGIC {
        return Err(FormatError::Unknown { problem: format!("wanted \"GGUF\", found {magic:?}") });
    }
    let offset = reader.offset();
    let version = reader.u32("version")?;
    let problem = match version {
        2 | 3 => return Ok(version),
        1 => "version 1 (32-bit counts, August 2023) is not supported: convert it with a llama.cpp of that time".into(),
        _ if matches!(version.swap_bytes(), 1..=3) => "the file is big-endian, which is not supported".into(),
        _ => format!("version {version} is unknown; 2 and 3 are supported"),
    };
    Err(FormatError::field("version", offset, problem))
}

/// Reads a count of things of at least `min_bytes` each, which must fit both the limit and the rest of the file.
fn read_count(reader: &mut Reader<'_>, field: &str, limit: u64, min_bytes: u64) -> Result<u64, FormatError> {
    let offset = reader.offset();
    let count = reader.u64(field)?;
    if count > limit {
        return Err(FormatError::Limit { field: field.to_owned(), value: count, limit });
    }
    let most = reader.remaining() / min_bytes;
    if count > most {
        let problem = format!("{count} do not fit in the rest of the file, which has room for {most}");
        return Err(FormatError::field(field, offset, problem));
    }
    Ok(count)
}

fn read_name<'a>(reader: &mut Reader<'a>, what: &str) -> Result<&'a str, FormatError> {
    let name = read_string(reader, what)?;
    if name.len() as u64 > MAX_NAME {
        return Err(FormatError::Limit { field: what.to_owned(), value: name.len() as u64, limit: MAX_NAME });
    }
    Ok(name)
}

fn read_metadata<'a>(reader: &mut Reader<'a>, count: u64) -> Result<Vec<Entry<'a>>, FormatError> {
    let mut seen = HashSet::new();
    let mut metadata = Vec::new();
    for index in 0..count {
        let start = reader.offset();
        let key = read_name(reader, &format!("key of metadata entry {index}"))?;
        if !seen.insert(key) {
            return Err(FormatError::field(key, start, "the key occurs twice"));
        }
        let at = reader.offset();
        let id = reader.u32(key)?;
        let ty = ValueType::from_id(id).ok_or_else(|| unknown_type(key, at, id))?;
        let offset = reader.offset();
        metadata.push(Entry { key, value: Value::read(reader, ty, key, 0)?, offset });
    }
    Ok(metadata)
}

/// Reads the directory; offsets are still relative to the data, as they stand in the file.
fn read_tensors(reader: &mut Reader<'_>, count: u64, bitnet: bool) -> Result<Vec<TensorInfo>, FormatError> {
    let mut seen = HashSet::new();
    let mut tensors = Vec::new();
    for index in 0..count {
        let start = reader.offset();
        let name = read_name(reader, &format!("name of tensor {index}"))?;
        let wrong = |problem: String| FormatError::tensor(name, start, problem);
        if !seen.insert(name) {
            return Err(wrong("the name occurs twice".into()));
        }
        let n_dims = reader.u32(name)? as usize;
        if n_dims > MAX_DIMS {
            return Err(wrong(format!("{n_dims} dimensions are more than {MAX_DIMS}")));
        }
        let mut shape = Vec::with_capacity(n_dims);
        for _ in 0..n_dims {
            shape.push(reader.u64(name)?);
        }
        // The file lists the innermost dimension first.
        shape.reverse();
        let ty = types::from_id(reader.u32(name)?, bitnet).map_err(wrong)?;
        let offset = reader.u64(name)?;
        if element_count(&shape).is_none_or(|n| n == 0) {
            return Err(wrong(format!("shape {shape:?} is empty or does not fit in 64 bits")));
        }
        let mut tensor =
            TensorInfo { name: name.to_owned(), shape, layout: Layout::Rows(ty), offset, bytes: 0 };
        tensor.bytes = ty.tensor_bytes(tensor.rows(), tensor.cols()).ok_or_else(|| {
            let (weights, _) = ty.block();
            wrong(format!("rows of {} are no whole number of {ty:?} blocks of {weights}", tensor.cols()))
        })?;
        tensors.push(tensor);
    }
    Ok(tensors)
}
