//! From metadata and a list of tensors to a file of version 3, tensor by tensor.

use std::collections::HashSet;
use std::io::{self, Write};

use super::{DEFAULT_ALIGNMENT, MAGIC, Value, ValueType, types};
use crate::error::FormatError;
use crate::tensor::{Layout, TensorInfo, TensorType, element_count};
use crate::writer::TensorData;

const VERSION: u32 = 3;
/// Longest tensor name, in bytes, that ggml reads (`GGML_MAX_NAME` with its terminator).
const MAX_NAME: usize = 63;
/// Most dimensions of a tensor that ggml reads (`GGML_MAX_DIMS`).
const MAX_DIMS: usize = 4;

/// Metadata to be written, encoded as it is put.
#[derive(Debug, Clone)]
pub struct Metadata {
    keys: HashSet<String>,
    bytes: Vec<u8>,
    alignment: u64,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { keys: HashSet::new(), bytes: Vec::new(), alignment: DEFAULT_ALIGNMENT }
    }
}

impl Metadata {
    /// Adds a value. `general.alignment` also sets the alignment of the file.
    ///
    /// # Errors
    /// A key that is empty or already there; an alignment that is no power of two below 2^32.
    pub fn put(&mut self, key: &str, value: Value<'_>) -> Result<(), FormatError> {
        if key == "general.alignment" {
            let power = |v: &u64| v.is_power_of_two() && u32::try_from(*v).is_ok();
            let alignment = value.as_integer().and_then(|v| u64::try_from(v).ok()).filter(power);
            self.alignment = alignment.ok_or_else(|| self.wrong(key, "must be a power of two below 2^32"))?;
        }
        self.begin(key, value.value_type())?;
        encode(&value, &mut self.bytes);
        Ok(())
    }

    /// Adds an array of strings.
    pub fn put_strings<I>(&mut self, key: &str, strings: I) -> Result<(), FormatError>
    where
        I: IntoIterator<IntoIter: ExactSizeIterator, Item: AsRef<str>>,
    {
        let strings = strings.into_iter();
        self.begin_array(key, ValueType::String, strings.len())?;
        strings.for_each(|s| encode_string(s.as_ref(), &mut self.bytes));
        Ok(())
    }

    /// Adds an array of f32.
    pub fn put_f32s(&mut self, key: &str, values: &[f32]) -> Result<(), FormatError> {
        self.begin_array(key, ValueType::F32, values.len())?;
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        Ok(())
    }

    /// Adds an array of i32.
    pub fn put_i32s(&mut self, key: &str, values: &[i32]) -> Result<(), FormatError> {
        self.begin_array(key, ValueType::I32, values.len())?;
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        Ok(())
    }

    /// Whether `key` has been put.
    pub fn contains(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    fn begin(&mut self, key: &str, ty: ValueType) -> Result<(), FormatError> {
        if key.is_empty() || !self.keys.insert(key.to_owned()) {
            return Err(self.wrong(key, "the key is empty or occurs twice"));
        }
        encode_string(key, &mut self.bytes);
        self.bytes.extend(ty.id().to_le_bytes());
        Ok(())
    }

    fn begin_array(&mut self, key: &str, element: ValueType, len: usize) -> Result<(), FormatError> {
        self.begin(key, ValueType::Array)?;
        self.bytes.extend(element.id().to_le_bytes());
        self.bytes.extend((len as u64).to_le_bytes());
        Ok(())
    }

    fn wrong(&self, key: &str, problem: &str) -> FormatError {
        FormatError::field(key, self.bytes.len() as u64, problem)
    }
}

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// Name, unique in the file.
    pub name: String,
    /// Row-major shape, outermost dimension first.
    pub shape: Vec<u64>,
    /// Type of its rows.
    pub ty: TensorType,
}

/// Writes a file. `data` appends the encoded bytes of the tensor that it is asked for, one after another in the
/// order of `tensors`; they are padded to the alignment, the last one too, as ggml does.
///
/// # Errors
/// A name that ggml would not read or that occurs twice; more than four dimensions; a type that GGUF does not
/// have or whose blocks do not fit the rows; another number of bytes than the type takes; and what `data` and
/// `out` report.
pub fn write<E: From<io::Error> + From<FormatError>>(
    out: &mut dyn Write,
    metadata: &Metadata,
    tensors: &[TensorSpec],
    data: &mut TensorData<'_, E>,
) -> Result<(), E> {
    let (header, tensors) = plan(metadata, tensors)?;
    out.write_all(&header)?;
    let mut buffer = Vec::new();
    for tensor in &tensors {
        buffer.clear();
        data(tensor, &mut buffer)?;
        if buffer.len() as u64 != tensor.bytes {
            let problem = format!("{} bytes were given for {}", buffer.len(), tensor.bytes);
            return Err(FormatError::tensor(&tensor.name, tensor.offset, problem).into());
        }
        out.write_all(&buffer)?;
        write_padding(out, tensor.bytes, metadata.alignment)?;
    }
    Ok(())
}

/// Everything before the tensor data, and where each tensor comes to lie.
fn plan(metadata: &Metadata, specs: &[TensorSpec]) -> Result<(Vec<u8>, Vec<TensorInfo>), FormatError> {
    let mut header = Vec::new();
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((specs.len() as u64).to_le_bytes());
    header.extend((metadata.keys.len() as u64).to_le_bytes());
    header.extend(&metadata.bytes);
    let mut names = HashSet::new();
    let mut tensors = Vec::with_capacity(specs.len());
    let mut next = 0u64;
    for spec in specs {
        let wrong = |problem: String| FormatError::tensor(&spec.name, header.len() as u64, problem);
        if spec.name.is_empty() || spec.name.len() > MAX_NAME || !names.insert(spec.name.as_str()) {
            return Err(wrong(format!("the name is empty, longer than {MAX_NAME} bytes or occurs twice")));
        }
        let mut tensor = TensorInfo {
            name: spec.name.clone(),
            shape: spec.shape.clone(),
            layout: Layout::Rows(spec.ty),
            offset: next,
            bytes: 0,
        };
        let shape = &spec.shape;
        if shape.len() > MAX_DIMS || element_count(shape).is_none_or(|n| n == 0) {
            return Err(wrong(format!("shape {shape:?} is empty or has more than {MAX_DIMS} dimensions")));
        }
        let bytes = spec.ty.tensor_bytes(tensor.rows(), tensor.cols());
        let (Some(id), Some(bytes)) = (types::id(spec.ty), bytes) else {
            return Err(wrong(format!("GGUF cannot hold shape {shape:?} as {:?}", spec.ty)));
        };
        tensor.bytes = bytes;
        let end = next.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(metadata.alignment));
        next = end.ok_or_else(|| wrong("the file would be too large".into()))?;
        encode_string(&spec.name, &mut header);
        header.extend((shape.len() as u32).to_le_bytes());
        header.extend(shape.iter().rev().flat_map(|d| d.to_le_bytes()));
        header.extend(id.to_le_bytes());
        header.extend(tensor.offset.to_le_bytes());
        tensors.push(tensor);
    }
    if !tensors.is_empty() {
        let aligned = (header.len() as u64).next_multiple_of(metadata.alignment);
        header.resize(usize::try_from(aligned).map_err(|_| too_large(&header))?, 0);
    }
    let data_offset = header.len() as u64;
    for tensor in &mut tensors {
        tensor.offset = tensor.offset.checked_add(data_offset).ok_or_else(|| too_large(&header))?;
    }
    Ok((header, tensors))
}

fn too_large(header: &[u8]) -> FormatError {
    FormatError::field("tensor data", header.len() as u64, "the file would be too large")
}

/// Zeros from `len` bytes to the next multiple of `alignment`.
fn write_padding(out: &mut dyn Write, len: u64, alignment: u64) -> io::Result<()> {
    let padding = len.next_multiple_of(alignment) - len;
    io::copy(&mut io::Read::take(io::repeat(0), padding), out).map(|_| ())
}

fn encode_string(string: &str, bytes: &mut Vec<u8>) {
    bytes.extend((string.len() as u64).to_le_bytes());
    bytes.extend(string.as_bytes());
}

fn encode(value: &Value<'_>, bytes: &mut Vec<u8>) {
    match *value {
        Value::U8(v) => bytes.push(v),
        Value::I8(v) => bytes.extend(v.to_le_bytes()),
        Value::U16(v) => bytes.extend(v.to_le_bytes()),
        Value::I16(v) => bytes.extend(v.to_le_bytes()),
        Value::U32(v) => bytes.extend(v.to_le_bytes()),
        Value::I32(v) => bytes.extend(v.to_le_bytes()),
        Value::F32(v) => bytes.extend(v.to_le_bytes()),
        Value::Bool(v) => bytes.push(v.into()),
        Value::String(v) => encode_string(v, bytes),
        Value::U64(v) => bytes.extend(v.to_le_bytes()),
        Value::I64(v) => bytes.extend(v.to_le_bytes()),
        Value::F64(v) => bytes.extend(v.to_le_bytes()),
        Value::Array(v) => {
            bytes.extend(v.element_type().id().to_le_bytes());
            bytes.extend((v.len() as u64).to_le_bytes());
            bytes.extend(v.bytes());
        }
    }
}
