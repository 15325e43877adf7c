//! A cursor over a file's bytes that cannot leave them.

use crate::error::FormatError;

/// Reads little-endian fields one after another and names the field that does not fit.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Starts at byte 0 of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Current position, in bytes from the start of the file.
    pub fn offset(&self) -> u64 {
        self.offset as u64
    }

    /// Bytes from here to the end.
    pub fn remaining(&self) -> u64 {
        (self.bytes.len() - self.offset) as u64
    }

    /// Moves to an absolute offset; the end of the file is allowed, anything behind it is [`FormatError::Truncated`].
    pub fn seek(&mut self, offset: u64, what: &str) -> Result<(), FormatError> {
        if offset > self.bytes.len() as u64 {
            return Err(self.truncated(what, offset, offset));
        }
        self.offset = offset as usize;
        Ok(())
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: u64, what: &str) -> Result<&'a [u8], FormatError> {
        let start = self.offset as u64;
        let end = start.checked_add(len).ok_or_else(|| self.truncated(what, start, u64::MAX))?;
        let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
            return Err(self.truncated(what, start, end));
        };
        let slice = self.bytes.get(from..to).ok_or_else(|| self.truncated(what, start, end))?;
        self.offset = to;
        Ok(slice)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N as u64, what)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self, what: &str) -> Result<u8, FormatError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// A little-endian u32.
    pub fn u32(&mut self, what: &str) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A little-endian i32.
    pub fn i32(&mut self, what: &str) -> Result<i32, FormatError> {
        Ok(i32::from_le_bytes(self.array(what)?))
    }

    /// A little-endian u64.
    pub fn u64(&mut self, what: &str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A little-endian f32.
    pub fn f32(&mut self, what: &str) -> Result<f32, FormatError> {
        Ok(f32::from_le_bytes(self.array(what)?))
    }

    fn truncated(&self, what: &str, offset: u64, end: u64) -> FormatError {
        FormatError::Truncated { what: what.to_owned(), offset, end, len: self.bytes.len() as u64 }
    }
}
