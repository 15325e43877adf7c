//! Thrift's compact protocol, as far as Parquet's headers need it
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>).

use crate::error::FormatError;
use crate::reader::Reader;

/// Types of fields.
pub(super) const I32: u8 = 5;
pub(super) const I64: u8 = 6;
pub(super) const BINARY: u8 = 8;
pub(super) const LIST: u8 = 9;
pub(super) const STRUCT: u8 = 12;
/// The two values of a field of type bool are types.
pub(super) const TRUE: u8 = 1;
pub(super) const FALSE: u8 = 2;

/// Structures inside one another at most, in what is passed over.
const MAX_DEPTH: u32 = 32;

/// Reads a structure field by field.
pub(super) struct Thrift<'a> {
    pub(super) reader: Reader<'a>,
}

impl<'a> Thrift<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes) }
    }

    /// Calls `each` with the number and type of every field of a structure. It reads the field's value, or says that it does
    /// not want it (`false`).
    pub(super) fn fields(
        &mut self,
        what: &str,
        each: &mut dyn FnMut(&mut Self, i64, u8) -> Result<bool, FormatError>,
    ) -> Result<(), FormatError> {
        let mut id = 0i64;
        while let Some(kind) = self.field(what, &mut id)? {
            if !each(self, id, kind)? {
                self.skip(what, kind, MAX_DEPTH)?;
            }
        }
        Ok(())
    }

    /// The type of the next field, whose number follows `id`; none at the end of the structure.
    fn field(&mut self, what: &str, id: &mut i64) -> Result<Option<u8>, FormatError> {
        let head = self.reader.u8(what)?;
        if head == 0 {
            return Ok(None);
        }
        *id = match head >> 4 {
            0 => self.integer(what)?,
            step => id.saturating_add(i64::from(step)),
        };
        Ok(Some(head & 15))
    }

    /// An unsigned number of seven bits a byte.
    pub(super) fn varint(&mut self, what: &str) -> Result<u64, FormatError> {
        varint(&mut self.reader, what)
    }

    /// A signed one.
    pub(super) fn integer(&mut self, what: &str) -> Result<i64, FormatError> {
        let coded = self.varint(what)?;
        Ok((coded >> 1) as i64 ^ -((coded & 1) as i64))
    }

    /// A signed number that must not be negative.
    pub(super) fn count(&mut self, what: &str) -> Result<u64, FormatError> {
        let at = self.reader.offset();
        let count = self.integer(what)?;
        u64::try_from(count).map_err(|_| FormatError::field(what, at, format!("{count} is negative")))
    }

    /// Text or other bytes.
    pub(super) fn binary(&mut self, what: &str) -> Result<&'a [u8], FormatError> {
        let len = self.varint(what)?;
        self.reader.bytes(len, what)
    }

    /// The length of a list of structures. None is longer than the bytes that are left.
    pub(super) fn structures(&mut self, what: &str) -> Result<u64, FormatError> {
        let at = self.reader.offset();
        let (len, kind) = self.list(what)?;
        if kind != STRUCT && len > 0 {
            return Err(FormatError::field(what, at, format!("a list of type {kind}, not of structures")));
        }
        Ok(len)
    }

    fn list(&mut self, what: &str) -> Result<(u64, u8), FormatError> {
        let at = self.reader.offset();
        let head = self.reader.u8(what)?;
        let len = match head >> 4 {
            15 => self.varint(what)?,
            len => u64::from(len),
        };
        // Every element takes a byte at least.
        if len > self.reader.remaining() {
            let problem = format!("{len} elements in {} bytes", self.reader.remaining());
            return Err(FormatError::field(what, at, problem));
        }
        Ok((len, head & 15))
    }

    /// Passes over a value.
    fn skip(&mut self, what: &str, kind: u8, depth: u32) -> Result<(), FormatError> {
        let at = self.reader.offset();
        let Some(deeper) = depth.checked_sub(1) else {
            return Err(FormatError::field(
                what,
                at,
                format!("more than {MAX_DEPTH} structures in one another"),
            ));
        };
        match kind {
            TRUE | FALSE => {}
            3 => drop(self.reader.u8(what)?),
            4..=6 => drop(self.varint(what)?),
            7 => drop(self.reader.bytes(8, what)?),
            BINARY => drop(self.binary(what)?),
            LIST | 10 => {
                let (len, kind) = self.list(what)?;
                for _ in 0..len {
                    self.skip_element(what, kind, deeper)?;
                }
            }
            11 => {
                let len = self.varint(what)?;
                let kinds = if len > 0 { self.reader.u8(what)? } else { 0 };
                for _ in 0..len {
                    self.skip_element(what, kinds >> 4, deeper)?;
                    self.skip_element(what, kinds & 15, deeper)?;
                }
            }
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(what, &mut id)? {
                    self.skip(what, kind, deeper)?;
                }
            }
            _ => return Err(FormatError::field(what, at, format!("no type {kind} is known"))),
        }
        Ok(())
    }

    /// Passes over an element of a list or map, in which a bool takes a byte.
    fn skip_element(&mut self, what: &str, kind: u8, depth: u32) -> Result<(), FormatError> {
        match kind {
            TRUE | FALSE => self.reader.u8(what).map(drop),
            _ => self.skip(what, kind, depth),
        }
    }
}

/// An unsigned number of seven bits a byte, the lowest first.
pub(super) fn varint(reader: &mut Reader<'_>, what: &str) -> Result<u64, FormatError> {
    let at = reader.offset();
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8(what)?;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Ok(value);
        }
    }
    Err(FormatError::field(what, at, "a number of more than 64 bits"))
}
