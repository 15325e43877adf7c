//! Runs of small numbers: one number many times, or groups of eight in few bits each
//! (<https://parquet.apache.org/docs/file-format/data-pages/encodings/>, "RLE").

use super::thrift::varint;
use crate::error::FormatError;
use crate::reader::Reader;

/// Reads one number after another.
pub(super) struct Runs<'a> {
    reader: Reader<'a>,
    /// Bits of a number, at most 32.
    width: u32,
    run: Run<'a>,
}

enum Run<'a> {
    /// How often it still comes.
    Same(u64, u32),
    /// The numbers' bits, which of them is next, and how many there are.
    Packed(&'a [u8], u64, u64),
}

impl<'a> Runs<'a> {
    pub(super) fn new(bytes: &'a [u8], width: u8) -> Result<Self, FormatError> {
        if width > 32 {
            return Err(FormatError::field("runs", 0, format!("numbers of {width} bits")));
        }
        Ok(Self { reader: Reader::new(bytes), width: u32::from(width), run: Run::Same(0, 0) })
    }

    pub(super) fn next(&mut self) -> Result<u32, FormatError> {
        loop {
            match &mut self.run {
                Run::Same(left, value) if *left > 0 => {
                    *left -= 1;
                    return Ok(*value);
                }
                Run::Packed(bytes, next, len) if *next < *len => {
                    let bit = *next * u64::from(self.width);
                    *next += 1;
                    let (first, shift) = ((bit / 8) as usize, bit % 8);
                    let last = (first + 5).min(bytes.len());
                    let mut word = [0; 8];
                    let part = bytes.get(first..last).unwrap_or_default();
                    if (part.len() * 8) as u64 >= shift + u64::from(self.width) {
                        word[..part.len()].copy_from_slice(part);
                        let mask = (1u64 << self.width) - 1;
                        return Ok(((u64::from_le_bytes(word) >> shift) & mask) as u32);
                    }
                    return Err(FormatError::field("runs", self.reader.offset(), "the numbers end too soon"));
                }
                _ => self.begin()?,
            }
        }
    }

    fn begin(&mut self) -> Result<(), FormatError> {
        let at = self.reader.offset();
        let head = varint(&mut self.reader, "runs")?;
        let n = head >> 1;
        if n == 0 {
            return Err(FormatError::field("runs", at, "a run of nothing"));
        }
        self.run = if head & 1 == 1 {
            // The last groups may be cut off where numbers end.
            let len = n.saturating_mul(u64::from(self.width)).min(self.reader.remaining());
            Run::Packed(self.reader.bytes(len, "runs")?, 0, n.saturating_mul(8))
        } else {
            let bytes = self.reader.bytes(u64::from(self.width.div_ceil(8)), "runs")?;
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            Run::Same(n, u32::from_le_bytes(word))
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(bytes: &[u8], width: u8, n: usize) -> Vec<u32> {
        let mut runs = Runs::new(bytes, width).unwrap();
        (0..n).map(|_| runs.next().unwrap()).collect()
    }

    /// The format's own example: 0 to 7 in three bits each.
    #[test]
    fn groups_are_packed_from_the_lowest_bit_on() {
        let packed = [0x03, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        assert_eq!(numbers(&packed, 3, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
        let both = [0x04, 0x2a, 0x03, 0xff];
        assert_eq!(numbers(&both, 8, 3), [42, 42, 255]);
        assert_eq!(numbers(&[0x03], 0, 8), [0; 8]);
        let wide = [&[0x03][..], &0x8000_0001u32.to_le_bytes(), &7u32.to_le_bytes()].concat();
        assert_eq!(numbers(&wide, 32, 2), [0x8000_0001, 7]);
    }

    #[test]
    fn what_ends_too_soon_is_an_error() {
        for bytes in [&[][..], &[0x03], &[0x00], &[0x01], &[0x02], &[0x80]] {
            assert!(Runs::new(bytes, 3).unwrap().next().is_err(), "{bytes:?}");
        }
        assert!(Runs::new(&[], 33).is_err());
    }
}
