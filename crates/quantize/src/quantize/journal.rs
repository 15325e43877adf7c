//! Work that is done, on disk: what a later run need not do again when this one is killed.
//!
//! Beside the output lies `.NAME.quantize`: a line that says from what and how the matrices are made, then one
//! record for each: u32 length of a JSON header, the header, the rows, u32 CRC-32 of both. A record that was cut off
//! is dropped, and so is the whole file when its first line is not ours.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use engine::SourceFile;
use engine::weights::WeightMatrix;
use kernels::row::RowType;
use serde::{Deserialize, Serialize};

use super::error::QuantizeError;

const MAGIC: &[u8] = b"EDGELLM-QUANTIZE-1\n";
/// A header is a name and four numbers.
const MAX_HEADER: u32 = 1 << 16;

/// What a record says of the rows behind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Header {
    name: String,
    row_type: String,
    rows: usize,
    cols: usize,
    bytes: u64,
}

/// A matrix in the journal.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The matrix's name in the input.
    pub(crate) name: String,
    /// Type of its rows.
    pub(crate) row_type: RowType,
    shape: (usize, usize),
    range: Range<usize>,
}

/// The journal of one output.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
    end: u64,
}

impl Journal {
    /// Opens the journal of `output`, with what an earlier run of the same `fingerprint` has done.
    pub(crate) fn open(output: &Path, fingerprint: &str) -> Result<Self, QuantizeError> {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let path = output.with_file_name(format!(".{name}.quantize"));
        let at = |source| QuantizeError::Io { path: path.clone(), source };
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(at)?;
        let mut journal = Self { path: path.clone(), file, entries: Vec::new(), end: 0 };
        journal.recover(fingerprint).map_err(at)?;
        Ok(journal)
    }

    /// Reads the records that are whole, and cuts off what follows.
    fn recover(&mut self, fingerprint: &str) -> io::Result<()> {
        let mut first = MAGIC.to_vec();
        first.extend(fingerprint.as_bytes());
        first.push(b'\n');
        let mut found = vec![0; first.len()];
        let same = self.file.read_exact(&mut found).is_ok() && found == first;
        if !same {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(&first)?;
        }
        self.end = first.len() as u64;
        // In a new journal the first record is not there.
        loop {
            self.file.seek(SeekFrom::Start(self.end))?;
            match self.read_record() {
                Ok(Some((entry, end))) => {
                    self.entries.push(entry);
                    self.end = end;
                }
                Ok(None) => break,
                Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(err) => return Err(err),
            }
        }
        self.file.set_len(self.end)?;
        self.file.seek(SeekFrom::Start(self.end))?;
        Ok(())
    }

    /// The record at the file's position, and where it ends; `None` when it is not whole.
    fn read_record(&mut self) -> io::Result<Option<(Entry, u64)>> {
        let mut length = [0; 4];
        self.file.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > MAX_HEADER {
            return Ok(None);
        }
        let mut text = vec![0; length as usize];
        self.file.read_exact(&mut text)?;
        let Ok(header) = serde_json::from_slice::<Header>(&text) else { return Ok(None) };
        let row_type = RowType::ALL.into_iter().find(|ty| ty.name() == header.row_type);
        let start = self.end + 4 + u64::from(length);
        let end = start.saturating_add(header.bytes);
        if end > self.file.metadata()?.len() {
            return Ok(None);
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&text);
        let mut rest = header.bytes;
        let mut buffer = vec![0; 1 << 16];
        while rest > 0 {
            let n = rest.min(buffer.len() as u64) as usize;
            self.file.read_exact(&mut buffer[..n])?;
            crc.update(&buffer[..n]);
            rest -= n as u64;
        }
        let mut sum = [0; 4];
        self.file.read_exact(&mut sum)?;
        let (Some(row_type), true) = (row_type, u32::from_le_bytes(sum) == crc.finalize()) else {
            return Ok(None);
        };
        let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else { return Ok(None) };
        let entry = Entry { name: header.name, row_type, shape: (header.rows, header.cols), range: from..to };
        Ok(Some((entry, end + 4)))
    }

    /// The entry of a matrix, if it is done.
    pub(crate) fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Adds a matrix.
    pub(crate) fn append(
        &mut self,
        name: &str,
        row_type: RowType,
        shape: (usize, usize),
        bytes: &[u8],
    ) -> Result<(), QuantizeError> {
        let header = Header {
            name: name.to_owned(),
            row_type: row_type.name().to_owned(),
            rows: shape.0,
            cols: shape.1,
            bytes: bytes.len() as u64,
        };
        let at = |source| QuantizeError::Io { path: self.path.clone(), source };
        let text = serde_json::to_vec(&header).map_err(|err| at(err.into()))?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&text);
        crc.update(bytes);
        for part in [&(text.len() as u32).to_le_bytes()[..], &text, bytes, &crc.finalize().to_le_bytes()] {
            self.file.write_all(part).map_err(at)?;
        }
        let start = self.end as usize + 4 + text.len();
        let range = start..start + bytes.len();
        self.end = range.end as u64 + 4;
        self.entries.push(Entry { name: name.to_owned(), row_type, shape, range });
        Ok(())
    }

    /// The matrices, read in place from the file.
    pub(crate) fn matrices(&self) -> Result<Vec<WeightMatrix>, QuantizeError> {
        let file = SourceFile::open(&self.path)?;
        let matrix = |entry: &Entry| {
            let Entry { name, row_type, shape, range } = entry.clone();
            let wrong = QuantizeError::matrix(&entry.name);
            WeightMatrix::mapped(name, row_type, shape, &file, range).map_err(wrong)
        };
        self.entries.iter().map(matrix).collect()
    }

    /// Takes the file away: the output is whole, or never will be.
    pub(crate) fn remove(self) {
        // Left behind it would only take space: the next run finds it or writes over it.
        let _ = std::fs::remove_file(&self.path);
    }
}
