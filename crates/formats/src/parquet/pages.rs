//! The pages of a column's chunk, and the byte strings in them.

use std::ops::Range;

use super::runs::Runs;
use super::thrift::{FALSE, I32, STRUCT, TRUE, Thrift};
use crate::error::FormatError;
use crate::reader::Reader;

/// What a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    /// Values that others refer to.
    Dictionary,
    /// Values of rows, levels and values compressed together.
    Data,
    /// Values of rows, levels not compressed.
    DataV2,
    /// What is not needed to read values.
    Other,
}

/// A page as it lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<'a> {
    /// What it holds.
    pub kind: PageKind,
    /// Bytes in front that are not compressed: the levels of [`PageKind::DataV2`].
    pub levels: usize,
    /// Whether the rest is compressed, if the chunk is.
    pub compressed: bool,
    /// All of its bytes when they are not compressed, as the file says.
    pub uncompressed_len: usize,
    /// The bytes.
    pub body: &'a [u8],
    values: usize,
    encoding: i64,
    level_encoding: i64,
    repetition_levels: usize,
}

/// A page's header as it is read.
#[derive(Default)]
struct Header {
    kind: i64,
    uncompressed: u64,
    compressed: u64,
    values: u64,
    encoding: i64,
    level_encoding: i64,
    levels: [u64; 2],
    plain: bool,
}

/// Takes the next page off a chunk.
///
/// # Errors
/// A header that is wrong, a page longer than the chunk.
pub fn next_page<'a>(chunk: &mut &'a [u8]) -> Result<Option<Page<'a>>, FormatError> {
    if chunk.is_empty() {
        return Ok(None);
    }
    let mut thrift = Thrift::new(chunk);
    let mut header = Header { kind: -1, ..Header::default() };
    thrift.fields("page header", &mut |thrift, id, kind| {
        match (id, kind) {
            (1, I32) => header.kind = thrift.integer("kind of a page")?,
            (2, I32) => header.uncompressed = thrift.count("size of a page")?,
            (3, I32) => header.compressed = thrift.count("compressed size of a page")?,
            (5 | 7 | 8, STRUCT) => header.of_its_kind(thrift, id)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let at = thrift.reader.offset();
    let body = thrift.reader.bytes(header.compressed, "page")?;
    *chunk = &chunk[thrift.reader.offset() as usize..];
    let kind = match header.kind {
        0 => PageKind::Data,
        2 => PageKind::Dictionary,
        3 => PageKind::DataV2,
        _ => PageKind::Other,
    };
    let wrong = |problem: String| FormatError::field("page header", at, problem);
    let levels = header.levels[0].saturating_add(header.levels[1]);
    if levels > header.compressed.min(header.uncompressed) {
        return Err(wrong(format!("{levels} bytes of levels in a page of {}", header.compressed)));
    }
    let size = |n: u64| usize::try_from(n).ok().filter(|&n| n <= i32::MAX as usize);
    let (Some(uncompressed_len), Some(values)) = (size(header.uncompressed), size(header.values)) else {
        return Err(wrong(format!("{} values, {} bytes", header.values, header.uncompressed)));
    };
    Ok(Some(Page {
        kind,
        levels: levels as usize,
        compressed: !header.plain,
        uncompressed_len,
        body,
        values,
        encoding: header.encoding,
        level_encoding: header.level_encoding,
        repetition_levels: header.levels[0] as usize,
    }))
}

impl Header {
    /// The part for pages of its kind: field 5 for data, 7 for a dictionary, 8 for data with levels apart.
    fn of_its_kind(&mut self, thrift: &mut Thrift<'_>, of: i64) -> Result<(), FormatError> {
        thrift.fields("page header", &mut |thrift, id, kind| {
            match (of, id, kind) {
                (_, 1, I32) => self.values = thrift.count("number of values")?,
                (5 | 7, 2, I32) | (8, 4, I32) => self.encoding = thrift.integer("encoding")?,
                (5, 3, I32) => self.level_encoding = thrift.integer("encoding of the levels")?,
                (8, 5, I32) => self.levels[1] = thrift.count("bytes of definition levels")?,
                (8, 6, I32) => self.levels[0] = thrift.count("bytes of repetition levels")?,
                (8, 7, TRUE | FALSE) => self.plain = kind == FALSE,
                _ => return Ok(false),
            }
            Ok(true)
        })
    }
}

/// The byte strings that a chunk's pages refer to.
#[derive(Debug, Clone, Default)]
pub struct Dictionary {
    bytes: Vec<u8>,
    places: Vec<Range<u32>>,
}

impl Dictionary {
    /// Of a [`PageKind::Dictionary`] whose bytes, decompressed, are `data`.
    ///
    /// # Errors
    /// Values that do not lie in the page.
    pub fn new(page: &Page<'_>, data: Vec<u8>) -> Result<Self, FormatError> {
        if !matches!(page.encoding, 0 | 2) {
            return Err(unknown_encoding(page.encoding));
        }
        let mut reader = Reader::new(&data);
        if page.values as u64 > reader.remaining() / 4 {
            let problem = format!("{} values in {} bytes", page.values, data.len());
            return Err(FormatError::field("dictionary", 0, problem));
        }
        let mut places = Vec::with_capacity(page.values);
        for _ in 0..page.values {
            let len = reader.u32("dictionary")?;
            // Pages are shorter than 2^31 bytes.
            let start = reader.offset() as u32;
            reader.bytes(u64::from(len), "dictionary")?;
            places.push(start..start + len);
        }
        Ok(Self { bytes: data, places })
    }

    fn value(&self, i: u32) -> Option<&[u8]> {
        let place = self.places.get(i as usize)?;
        self.bytes.get(place.start as usize..place.end as usize)
    }
}

/// The byte strings of a page of data, one for each row; `None` where it is missing.
pub struct Values<'a> {
    left: usize,
    /// Of columns whose values may be missing: 1 where there is one.
    levels: Option<Runs<'a>>,
    source: Source<'a>,
}

/// Where the values stand.
enum Source<'a> {
    Here(Reader<'a>),
    Dictionary(Runs<'a>, &'a Dictionary),
}

impl<'a> Values<'a> {
    /// Of a [`PageKind::Data`] or [`PageKind::DataV2`] whose bytes, decompressed, are `data`, of a column that is not nested.
    ///
    /// # Errors
    /// Levels that do not lie in the page; an encoding other than plain values and references to the dictionary.
    pub fn new(
        page: &Page<'_>,
        data: &'a [u8],
        optional: bool,
        dictionary: Option<&'a Dictionary>,
    ) -> Result<Self, FormatError> {
        let mut reader = Reader::new(data);
        let mut levels = None;
        if page.kind == PageKind::DataV2 {
            reader.bytes(page.repetition_levels as u64, "repetition levels")?;
            let bytes = reader.bytes((page.levels - page.repetition_levels) as u64, "definition levels")?;
            levels = optional.then(|| Runs::new(bytes, 1)).transpose()?;
        } else if optional {
            if page.level_encoding != 3 {
                return Err(unknown_encoding(page.level_encoding));
            }
            let len = reader.u32("definition levels")?;
            levels = Some(Runs::new(reader.bytes(u64::from(len), "definition levels")?, 1)?);
        }
        let source = match (page.encoding, dictionary) {
            (0, _) => Source::Here(reader),
            // Where all values are missing there is nothing else.
            (2 | 8, _) if reader.remaining() == 0 => Source::Here(reader),
            (2 | 8, Some(dictionary)) => {
                let width = reader.u8("width of references")?;
                let rest = reader.bytes(reader.remaining(), "references")?;
                Source::Dictionary(Runs::new(rest, width)?, dictionary)
            }
            (2 | 8, None) => {
                return Err(FormatError::field("page", 0, "it refers to a dictionary that is not there"));
            }
            (other, _) => return Err(unknown_encoding(other)),
        };
        Ok(Self { left: page.values, levels, source })
    }

    fn read(&mut self) -> Result<Option<&'a [u8]>, FormatError> {
        if let Some(levels) = &mut self.levels
            && levels.next()? == 0
        {
            return Ok(None);
        }
        match &mut self.source {
            Source::Here(reader) => {
                let len = reader.u32("length of a value")?;
                reader.bytes(u64::from(len), "value").map(Some)
            }
            Source::Dictionary(references, dictionary) => {
                let i = references.next()?;
                let missing = || {
                    let problem = format!("value {i} of a dictionary of {}", dictionary.places.len());
                    FormatError::field("references", 0, problem)
                };
                dictionary.value(i).map(Some).ok_or_else(missing)
            }
        }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Result<Option<&'a [u8]>, FormatError>;

    /// The next row's; an error is the last.
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let value = self.read();
        if value.is_err() {
            self.left = 0;
        }
        Some(value)
    }
}

fn unknown_encoding(encoding: i64) -> FormatError {
    let name = match encoding {
        4 => "BIT_PACKED",
        5 => "DELTA_BINARY_PACKED",
        6 => "DELTA_LENGTH_BYTE_ARRAY",
        7 => "DELTA_BYTE_ARRAY",
        9 => "BYTE_STREAM_SPLIT",
        _ => "unknown",
    };
    let problem = format!("{name} ({encoding}) is not read: PLAIN and dictionaries are");
    FormatError::field("encoding", 0, problem)
}
