//! Parquet files (`.parquet`), as far as a column of texts is read from them
//! (<https://parquet.apache.org/docs/file-format/>).
//!
//! At the end stands a directory: the columns, and for each group of rows where each column's chunk lies. A chunk is a row of
//! pages, which [`pages`](mod@pages) takes apart; what decompresses them stands elsewhere. Columns inside of lists and
//! structures are named by the outermost and not read.

pub mod pages;
mod runs;
mod thrift;

use std::ops::Range;

use crate::error::FormatError;
use thrift::{BINARY, I32, I64, LIST, STRUCT, Thrift};

const MAGIC: &[u8; 4] = b"PAR1";
const ENCRYPTED: &[u8; 4] = b"PARE";

/// Groups of columns inside one another at most.
const MAX_DEPTH: usize = 64;

/// The directory of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parquet<'a> {
    /// All columns, in the order of the chunks.
    pub columns: Vec<Column<'a>>,
    /// Groups of rows that follow each other.
    pub row_groups: Vec<RowGroup>,
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    /// Its name, or that of the outermost list or structure that it is in.
    pub name: &'a str,
    /// Whether its values are bytes of any length, as texts are.
    pub binary: bool,
    /// Whether values may be missing.
    pub optional: bool,
    /// Whether it is a list or in one, or in a structure.
    pub nested: bool,
}

/// Rows that are stored together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowGroup {
    /// How many.
    pub rows: u64,
    /// Of each column.
    pub chunks: Vec<Chunk>,
}

/// The values of a column in a group of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// How its pages are compressed.
    pub codec: Codec,
    /// How many values, missing ones too.
    pub values: u64,
    /// Where its pages lie in the file.
    pub range: Range<usize>,
}

/// How pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// Snappy, a raw block.
    Snappy,
    /// Gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// Otherwise; the format's number for it.
    Other(i64),
}

/// A node of the schema, in depth-first order.
struct Element<'a> {
    kind: Option<i64>,
    repetition: i64,
    name: &'a [u8],
    children: Option<u64>,
}

impl<'a> Parquet<'a> {
    /// Reads and checks the directory: that every chunk lies in the file, and every group has one of each column.
    ///
    /// # Errors
    /// The field that is wrong, with its offset in the directory; a file that is encrypted or whose chunks lie in others.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let len = bytes.len();
        let unknown = |problem: &str| FormatError::Unknown { problem: problem.to_owned() };
        let Some((rest, [a, b, c, d, magic @ ..])) = bytes.split_last_chunk::<8>() else {
            return Err(unknown("a Parquet file has twelve bytes at least"));
        };
        if magic == ENCRYPTED {
            return Err(unknown("the Parquet file is encrypted"));
        }
        if magic != MAGIC || !rest.starts_with(MAGIC) {
            return Err(unknown("a Parquet file begins and ends with \"PAR1\""));
        }
        let footer_len = u32::from_le_bytes([*a, *b, *c, *d]);
        let start = rest.len().checked_sub(footer_len as usize).filter(|&start| start >= MAGIC.len());
        let Some(start) = start else {
            let problem = format!("{footer_len} bytes in a file of {len}");
            return Err(FormatError::field("length of the directory", len as u64 - 8, problem));
        };
        let mut thrift = Thrift::new(&rest[start..]);
        let (mut columns, mut row_groups) = (Vec::new(), Vec::new());
        thrift.fields("directory", &mut |thrift, id, kind| {
            match (id, kind) {
                (2, LIST) => columns = schema(thrift)?,
                (4, LIST) => {
                    for _ in 0..thrift.structures("row groups")? {
                        row_groups.push(row_group(thrift, start)?);
                    }
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let wrong = row_groups.iter().position(|group| group.chunks.len() != columns.len());
        if let Some(i) = wrong {
            let problem = format!("{} columns, the file has {}", row_groups[i].chunks.len(), columns.len());
            return Err(FormatError::field(format!("row group {i}"), start as u64, problem));
        }
        Ok(Self { columns, row_groups })
    }
}

fn schema<'a>(thrift: &mut Thrift<'a>) -> Result<Vec<Column<'a>>, FormatError> {
    let mut columns = Vec::new();
    // Children that each open group still lacks, the root's first.
    let mut open: Vec<u64> = Vec::new();
    let mut name = "";
    for i in 0..thrift.structures("schema")? {
        let at = thrift.reader.offset();
        let wrong = |problem: String| FormatError::field("schema", at, problem);
        let element = element(thrift)?;
        if i == 0 {
            open.push(element.children.unwrap_or(0));
            continue;
        }
        while open.last() == Some(&0) {
            open.pop();
        }
        let outermost = open.len() == 1;
        let Some(left) = open.last_mut() else { return Err(wrong("a column that no group has".to_owned())) };
        *left -= 1;
        if outermost {
            name = std::str::from_utf8(element.name).map_err(|e| wrong(format!("a column's name: {e}")))?;
        }
        match (element.kind, element.children) {
            (Some(kind), None | Some(0)) => columns.push(Column {
                name,
                binary: kind == 6,
                optional: element.repetition == 1,
                nested: !outermost || element.repetition == 2,
            }),
            (_, children) => open.push(children.unwrap_or(0)),
        }
        if open.len() > MAX_DEPTH {
            return Err(wrong(format!("more than {MAX_DEPTH} groups in one another")));
        }
    }
    match open.iter().all(|&left| left == 0) {
        true => Ok(columns),
        false => Err(FormatError::field("schema", thrift.reader.offset(), "a group lacks columns")),
    }
}

fn element<'a>(thrift: &mut Thrift<'a>) -> Result<Element<'a>, FormatError> {
    let mut element = Element { kind: None, repetition: 0, name: &[], children: None };
    thrift.fields("schema", &mut |thrift, id, kind| {
        match (id, kind) {
            (1, I32) => element.kind = Some(thrift.integer("type")?),
            (3, I32) => element.repetition = thrift.integer("repetition")?,
            (4, BINARY) => element.name = thrift.binary("name of a column")?,
            (5, I32) => element.children = Some(thrift.count("number of children")?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(element)
}

/// `end`: where chunks must end.
fn row_group(thrift: &mut Thrift<'_>, end: usize) -> Result<RowGroup, FormatError> {
    let mut group = RowGroup { rows: 0, chunks: Vec::new() };
    thrift.fields("row group", &mut |thrift, id, kind| {
        match (id, kind) {
            (1, LIST) => {
                for _ in 0..thrift.structures("column chunks")? {
                    group.chunks.push(chunk(thrift, end)?);
                }
            }
            (3, I64) => group.rows = thrift.count("number of rows")?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(group)
}

fn chunk(thrift: &mut Thrift<'_>, end: usize) -> Result<Chunk, FormatError> {
    let at = thrift.reader.offset();
    let wrong = |problem: &str| FormatError::field("column chunk", at, problem);
    let mut chunk = None;
    thrift.fields("column chunk", &mut |thrift, id, kind| {
        match (id, kind) {
            (1, BINARY) => return Err(wrong("it lies in another file")),
            (3, STRUCT) => chunk = Some(chunk_metadata(thrift, end)?),
            (8, STRUCT) => return Err(wrong("it is encrypted")),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    chunk.ok_or_else(|| wrong("it has no metadata"))
}

fn chunk_metadata(thrift: &mut Thrift<'_>, end: usize) -> Result<Chunk, FormatError> {
    let at = thrift.reader.offset();
    let (mut codec, mut values, mut len, mut data, mut dictionary) = (0, 0, 0, 0, 0);
    thrift.fields("column chunk", &mut |thrift, id, kind| {
        match (id, kind) {
            (4, I32) => codec = thrift.integer("codec")?,
            (5, I64) => values = thrift.count("number of values")?,
            (7, I64) => len = thrift.count("bytes of a column chunk")?,
            (9, I64) => data = thrift.count("offset of the data")?,
            (11, I64) => dictionary = thrift.count("offset of the dictionary")?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    // Some writers say 0 where there is no dictionary.
    let start = if dictionary > 0 { dictionary.min(data) } else { data };
    let place = |at: u64| usize::try_from(at).ok();
    let range = place(start).zip(start.checked_add(len).and_then(place));
    let Some((first, last)) = range.filter(|&(first, last)| first >= MAGIC.len() && last <= end) else {
        let problem = format!("bytes {start} to {start} + {len}, the data ends at {end}");
        return Err(FormatError::field("column chunk", at, problem));
    };
    let codec = match codec {
        0 => Codec::None,
        1 => Codec::Snappy,
        2 => Codec::Gzip,
        6 => Codec::Zstd,
        other => Codec::Other(other),
    };
    Ok(Chunk { codec, values, range: first..last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(footer: &[u8]) -> Vec<u8> {
        let len = u32::try_from(footer.len()).unwrap().to_le_bytes();
        [MAGIC, footer, &len, MAGIC].concat()
    }

    /// A directory whose schema is a root and `n` elements `element`.
    fn with_schema(n: u32, root: &[u8], element: &[u8]) -> Vec<u8> {
        let mut count = Vec::new();
        let mut left = n + 1;
        while left > 127 {
            count.push(left as u8 | 128);
            left >>= 7;
        }
        count.push(left as u8);
        let elements = element.repeat(n as usize);
        file(&[&[0x15, 2, 0x19, 0xfc], &count[..], root, &elements, &[0x16, 0, 0x19, 0x0c, 0]].concat())
    }

    /// Groups in groups, as many as fit in a megabyte, and groups that say they have two thousand million columns.
    #[test]
    fn deep_and_wide_schemas_are_refused() {
        let says = |bytes: &[u8]| Parquet::parse(bytes).unwrap_err().to_string();
        let (root, inner) = ([0x48, 1, b'r', 0x15, 2, 0], [0x35, 0, 0x18, 1, b'a', 0x15, 2, 0]);
        assert!(says(&with_schema(130_000, &root, &inner)).contains("more than 64 groups in one another"));
        let many = [0xfe, 0xff, 0xff, 0xff, 0x0f];
        let root = [&[0x48, 1, b'r', 0x15], &many[..], &[0]].concat();
        let inner = [&[0x35, 0, 0x18, 1, b'a', 0x15], &many[..], &[0]].concat();
        assert!(says(&with_schema(4, &root, &inner)).contains("a group lacks columns"));
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let says = |bytes: &[u8]| Parquet::parse(bytes).unwrap_err().to_string();
        assert!(says(b"PAR1").contains("twelve bytes"));
        assert!(says(b"PAR1....PARE").contains("encrypted"));
        assert!(says(b"PAR1\x01\0\0\0PAR1").contains("1 bytes in a file of 12"));
        assert!(says(&file(&[0x19, 0xfc, 0xff, 0xff, 3])).contains("elements in 0 bytes"));
        assert!(says(&file(&[0x15])).contains("directory needs bytes"));
        // Structures in structures in what is passed over.
        assert!(says(&file(&[0x1c; 100])).contains("more than 32 structures"));
        assert_eq!(Parquet::parse(&file(&[0])).unwrap(), Parquet { columns: vec![], row_groups: vec![] });
    }
}
