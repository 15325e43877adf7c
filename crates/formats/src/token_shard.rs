//! Token shards (`.tokens`): a text as token ids, document by document, for training.
//!
//! All integers are little-endian. `"ETOK"`, u32 version = 1, u32 vocabulary size, u32 bytes of an id (2 or 4), u64 number
//! of ids, u64 number of documents, u64 bytes of text that the ids stand for; then for each document u64 the number of
//! ids up to its end; then the ids. Ids that only mark where a document begins or ends are not stored.

use std::io::{self, Write};

use crate::error::FormatError;
use crate::reader::Reader;

const MAGIC: &[u8; 4] = b"ETOK";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 40;

/// A checked shard in place.
#[derive(Debug, Clone, Copy)]
pub struct TokenShard<'a> {
    /// Every id is smaller.
    pub vocab_size: u32,
    /// Bytes of text that the ids stand for.
    pub text_bytes: u64,
    /// Ends of the documents, as u64.
    ends: &'a [u8],
    ids: &'a [u8],
    wide: bool,
}

impl<'a> TokenShard<'a> {
    /// Reads and checks a whole file: its size, that documents follow each other, and every id.
    ///
    /// # Errors
    /// The field that is wrong, with its offset.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.array::<4>("magic")?;
        if &magic != MAGIC {
            return Err(FormatError::Unknown { problem: "a token shard begins with \"ETOK\"".to_owned() });
        }
        let version = reader.u32("version")?;
        if version != VERSION {
            return Err(FormatError::field("version", 4, format!("{version} is not {VERSION}")));
        }
        let vocab_size = reader.u32("vocabulary size")?;
        let width = reader.u32("bytes of an id")?;
        if width != 2 && width != 4 {
            return Err(FormatError::field("bytes of an id", 12, format!("{width} is neither 2 nor 4")));
        }
        let (tokens, documents) = (reader.u64("number of ids")?, reader.u64("number of documents")?);
        let text_bytes = reader.u64("bytes of text")?;
        let ends = reader.bytes(documents.saturating_mul(8), "ends of documents")?;
        let at = reader.offset();
        let ids = reader.bytes(tokens.saturating_mul(u64::from(width)), "ids")?;
        if reader.remaining() > 0 {
            return Err(FormatError::TrailingBytes { offset: reader.offset(), extra: reader.remaining() });
        }
        let shard = Self { vocab_size, text_bytes, ends, ids, wide: width == 4 };
        let mut before = 0;
        for i in 0..shard.documents() {
            let end = shard.end(i);
            if end < before || end > tokens {
                let offset = HEADER_BYTES + 8 * i as u64;
                let problem = format!("document {i} ends at id {end}, after {before} of {tokens}");
                return Err(FormatError::field("ends of documents", offset, problem));
            }
            before = end;
        }
        if before != tokens {
            let problem = format!("documents end at id {before} of {tokens}");
            return Err(FormatError::field("ends of documents", HEADER_BYTES, problem));
        }
        if let Some(i) = (0..shard.len()).find(|&i| shard.id(i) >= vocab_size) {
            let problem = format!("id {} in a vocabulary of {vocab_size}", shard.id(i));
            return Err(FormatError::field("ids", at + i as u64 * u64::from(width), problem));
        }
        Ok(shard)
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.ids.len() / if self.wide { 4 } else { 2 }
    }

    /// Whether there are no ids.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.ends.len() / 8
    }

    /// Index behind the last id of document `i`; that of the number of ids for a document that is not there.
    pub fn document_end(&self, i: usize) -> usize {
        usize::try_from(self.end(i)).unwrap_or(usize::MAX).min(self.len())
    }

    fn end(&self, i: usize) -> u64 {
        self.ends.as_chunks().0.get(i).map_or(u64::MAX, |&b| u64::from_le_bytes(b))
    }

    /// The id at `i`; 0 behind the end.
    pub fn id(&self, i: usize) -> u32 {
        match self.wide {
            true => self.ids.as_chunks().0.get(i).map_or(0, |&b| u32::from_le_bytes(b)),
            false => self.ids.as_chunks().0.get(i).map_or(0, |&b| u32::from(u16::from_le_bytes(b))),
        }
    }
}

/// Writes a shard. `ends`: for each document the number of ids up to its end; `text_bytes`: what the ids stand for.
///
/// # Errors
/// Those of `out`.
pub fn write(
    out: &mut dyn Write,
    vocab_size: u32,
    text_bytes: u64,
    ends: &[u64],
    ids: &[u32],
) -> io::Result<()> {
    let wide = vocab_size > 1 << 16;
    out.write_all(MAGIC)?;
    for field in [VERSION, vocab_size, if wide { 4 } else { 2 }] {
        out.write_all(&field.to_le_bytes())?;
    }
    for field in [ids.len() as u64, ends.len() as u64, text_bytes] {
        out.write_all(&field.to_le_bytes())?;
    }
    ends.iter().try_for_each(|end| out.write_all(&end.to_le_bytes()))?;
    ids.iter().try_for_each(|&id| match wide {
        true => out.write_all(&id.to_le_bytes()),
        // The vocabulary has no larger ids.
        false => out.write_all(&(id as u16).to_le_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(vocab_size: u32, ends: &[u64], ids: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, vocab_size, 77, ends, ids).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        for vocab_size in [300, 1 << 16, 100_000] {
            let ids = [5, 299, 0, 17, 255, 256];
            let bytes = shard(vocab_size, &[2, 2, 6], &ids);
            let read = TokenShard::parse(&bytes).unwrap();
            assert_eq!((read.vocab_size, read.text_bytes, read.documents()), (vocab_size, 77, 3));
            assert_eq!((0..read.len()).map(|i| read.id(i)).collect::<Vec<_>>(), ids);
            assert_eq!((0..3).map(|i| read.document_end(i)).collect::<Vec<_>>(), [2, 2, 6]);
        }
    }

    #[test]
    fn each_malformation_is_named() {
        let good = shard(300, &[2, 6], &[5, 299, 0, 17, 255, 256]);
        let says = |bytes: &[u8]| TokenShard::parse(bytes).unwrap_err().to_string();
        for cut in 0..good.len() {
            assert!(TokenShard::parse(&good[..cut]).is_err(), "cut at {cut}");
        }
        assert!(says(&[&good[..], &[0]].concat()).contains("1 unexpected bytes"));
        assert!(says(b"GGUF0000").contains("ETOK"));
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            says(&bytes)
        };
        assert!(changed(4, 2).contains("version at byte 4"));
        assert!(changed(12, 3).contains("bytes of an id at byte 12"));
        assert!(changed(8, 43).contains("id 299 in a vocabulary"), "{}", changed(8, 43));
        assert!(changed(40, 7).contains("document 0 ends at id 7"));
        assert!(changed(48, 5).contains("documents end at id 5 of 6"));
        for huge in [16, 24] {
            let mut bytes = good.clone();
            bytes[huge..huge + 8].fill(0xff);
            assert!(says(&bytes).contains("truncated"));
        }
    }
}
