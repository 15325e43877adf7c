//! Metadata values: scalars, strings and arrays that borrow from the file.

use std::fmt;

use crate::error::FormatError;
use crate::limits::MAX_ARRAY_DEPTH;
use crate::reader::Reader;

/// Type of a metadata value (ggml's `enum gguf_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are the types")]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The type with this id in a file.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// Its id in a file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Fewest bytes of one value: the width of a number, the length field of an empty string, the type and
    /// length fields of an empty array.
    fn min_bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        })
    }
}

/// One metadata value.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "the names are the types")]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// The type of this value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// The value of any integer type.
    pub fn as_integer(&self) -> Option<i128> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::I8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::I16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::I32(v) => Some(v.into()),
            Self::U64(v) => Some(v.into()),
            Self::I64(v) => Some(v.into()),
            _ => None,
        }
    }

    /// The value of a f32 or f64 (rounded to f32).
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(v) => Some(v),
            Self::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// The string.
    pub fn as_str(&self) -> Option<&'a str> {
        if let Self::String(v) = *self { Some(v) } else { None }
    }

    /// Reads and checks one value of type `ty`; `depth` counts the arrays around it.
    pub(super) fn read(
        reader: &mut Reader<'a>,
        ty: ValueType,
        what: &str,
        depth: usize,
    ) -> Result<Self, FormatError> {
        let offset = reader.offset();
        Ok(match ty {
            ValueType::U8 => Self::U8(reader.u8(what)?),
            ValueType::I8 => Self::I8(i8::from_le_bytes(reader.array(what)?)),
            ValueType::U16 => Self::U16(u16::from_le_bytes(reader.array(what)?)),
            ValueType::I16 => Self::I16(i16::from_le_bytes(reader.array(what)?)),
            ValueType::U32 => Self::U32(reader.u32(what)?),
            ValueType::I32 => Self::I32(reader.i32(what)?),
            ValueType::F32 => Self::F32(reader.f32(what)?),
            ValueType::U64 => Self::U64(reader.u64(what)?),
            ValueType::I64 => Self::I64(i64::from_le_bytes(reader.array(what)?)),
            ValueType::F64 => Self::F64(f64::from_le_bytes(reader.array(what)?)),
            ValueType::Bool => match reader.u8(what)? {
                0 => Self::Bool(false),
                1 => Self::Bool(true),
                other => {
                    return Err(FormatError::field(what, offset, format!("a bool is 0 or 1, not {other}")));
                }
            },
            ValueType::String => Self::String(read_string(reader, what)?),
            ValueType::Array => Self::Array(Array::read(reader, what, depth)?),
        })
    }
}

/// Reads a u64 length and that many bytes of UTF-8.
pub(super) fn read_string<'a>(reader: &mut Reader<'a>, what: &str) -> Result<&'a str, FormatError> {
    let len = reader.u64(what)?;
    let offset = reader.offset();
    let bytes = reader.bytes(len, what)?;
    std::str::from_utf8(bytes).map_err(|e| {
        FormatError::field(what, offset + e.valid_up_to() as u64, "the string is not UTF-8 from here on")
    })
}

/// An array of values of one type, checked as a whole when the file is parsed and decoded again, without
/// allocation, each time that it is walked.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    element: ValueType,
    len: usize,
    bytes: &'a [u8],
    offset: u64,
}

/// Equal when the elements are: where the array stands in its file does not count.
impl PartialEq for Array<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.element, self.len, self.bytes) == (other.element, other.len, other.bytes)
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}] at byte {}", self.element, self.len, self.offset)
    }
}

impl<'a> Array<'a> {
    fn read(reader: &mut Reader<'a>, what: &str, depth: usize) -> Result<Self, FormatError> {
        let offset = reader.offset();
        if depth >= MAX_ARRAY_DEPTH {
            return Err(FormatError::field(
                what,
                offset,
                format!("arrays are nested deeper than {MAX_ARRAY_DEPTH}"),
            ));
        }
        let id = reader.u32(what)?;
        let element = ValueType::from_id(id).ok_or_else(|| unknown_type(what, offset, id))?;
        let len = reader.u64(what)?;
        let start = reader.offset();
        let needed = len.saturating_mul(element.min_bytes());
        let mut rest = reader.clone();
        // Nothing is read element by element before the least that they take is known to be there.
        let fixed = reader.bytes(needed, what)?;
        let count = fixed.len() / element.min_bytes() as usize;
        let bytes = match element {
            ValueType::String | ValueType::Array | ValueType::Bool => {
                for _ in 0..count {
                    Value::read(&mut rest, element, what, depth + 1)?;
                }
                let end = rest.offset();
                reader.seek(start, what)?;
                reader.bytes(end - start, what)?
            }
            _ => fixed,
        };
        Ok(Self { element, len: count, bytes, offset: start })
    }

    /// Type of the elements.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements' bytes as they stand in the file.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The elements, whatever their type.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Value<'a>> + use<'a> {
        Values { element: self.element, left: self.len, reader: Reader::new(self.bytes) }
    }

    /// The elements of an array of strings.
    pub fn strings(&self) -> Result<impl ExactSizeIterator<Item = &'a str> + use<'a>, FormatError> {
        self.expect_type(self.element == ValueType::String, "strings")?;
        Ok(self.values().map(|v| v.as_str().unwrap_or_default()))
    }

    /// The elements of an array of f32 or f64, as f32.
    pub fn f32s(&self) -> Result<impl ExactSizeIterator<Item = f32> + use<'a>, FormatError> {
        self.expect_type(matches!(self.element, ValueType::F32 | ValueType::F64), "floats")?;
        Ok(self.values().map(|v| v.as_f32().unwrap_or_default()))
    }

    /// The elements of an array of any integer type, all of which must be valid i32.
    pub fn i32s(&self) -> Result<impl ExactSizeIterator<Item = i32> + use<'a>, FormatError> {
        self.integers::<i32>("integers of 32 bits")
    }

    /// The elements of an array of any integer type, all of which must be valid u32.
    pub fn u32s(&self) -> Result<impl ExactSizeIterator<Item = u32> + use<'a>, FormatError> {
        self.integers::<u32>("non-negative integers of 32 bits")
    }

    fn integers<T: TryFrom<i128> + Default>(
        &self,
        wanted: &str,
    ) -> Result<impl ExactSizeIterator<Item = T> + use<'a, T>, FormatError> {
        let convert = |v: Value<'_>| v.as_integer().and_then(|v| T::try_from(v).ok());
        let is_integer = !matches!(
            self.element,
            ValueType::F32 | ValueType::F64 | ValueType::Bool | ValueType::String | ValueType::Array
        );
        self.expect_type(is_integer && self.values().all(|v| convert(v).is_some()), wanted)?;
        Ok(self.values().map(move |v| convert(v).unwrap_or_default()))
    }

    fn expect_type(&self, fits: bool, wanted: &str) -> Result<(), FormatError> {
        if fits {
            return Ok(());
        }
        let problem = format!("wanted {wanted}, found {} of type {}", self.len, self.element);
        Err(FormatError::field("array", self.offset, problem))
    }
}

pub(super) fn unknown_type(what: &str, offset: u64, id: u32) -> FormatError {
    FormatError::field(what, offset, format!("{id} is no value type (0 to 12 are)"))
}

/// Walks the bytes of an [`Array`] that was read without an error.
struct Values<'a> {
    element: ValueType,
    left: usize,
    reader: Reader<'a>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        Value::read(&mut self.reader, self.element, "array element", 1).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Values<'_> {}
