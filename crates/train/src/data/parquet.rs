//! Documents out of a column of a Parquet file.

use std::io::Read;
use std::path::Path;

use engine::SourceFile;
use formats::parquet::pages::{Dictionary, Page, PageKind, Values, next_page};
use formats::parquet::{Chunk, Codec, Column, Parquet};

use crate::error::TrainError;

/// A page is no longer, whatever it says.
const MAX_PAGE_BYTES: usize = 256 << 20;

/// Calls `each` with every text of the column `name`.
///
/// # Errors
/// A file, row group or page that is not what it should be, a column that is not there or holds no texts, a value that is
/// missing or empty: with the row group and the column; and what `each` returns.
pub(super) fn each_text(
    path: &Path,
    name: &str,
    each: &mut dyn FnMut(&str) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let file = SourceFile::open(path)?;
    each_of_file(path, file.bytes(), name, each)
}

fn each_of_file(
    path: &Path,
    bytes: &[u8],
    name: &str,
    each: &mut dyn FnMut(&str) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let wrong = |source| TrainError::Format { path: path.to_owned(), source };
    let directory = Parquet::parse(bytes).map_err(wrong)?;
    let column = directory.columns.iter().position(|column| column.name == name);
    let refused = |problem: String| TrainError::input(path.display().to_string(), problem);
    let Some(i) = column else {
        let known: Vec<&str> = directory.columns.iter().map(|column| column.name).collect();
        return Err(refused(format!("no column {name}; there are {}", known.join(", "))));
    };
    let column = directory.columns[i];
    if column.nested {
        return Err(refused(format!("column {name} is a list or a structure, no text")));
    }
    if !column.binary {
        return Err(refused(format!("column {name} holds no texts")));
    }
    for (g, group) in directory.row_groups.iter().enumerate() {
        let place = format!("{}: row group {g}, column {name}", path.display());
        let chunk = &group.chunks[i];
        let wrong = |problem: String| TrainError::input(place.clone(), problem);
        if chunk.values != group.rows {
            return Err(wrong(format!("{} values for {} rows", chunk.values, group.rows)));
        }
        let rows = each_of_chunk(bytes, chunk, column, &wrong, each)?;
        if rows != group.rows {
            return Err(wrong(format!("{rows} values in the pages, not {}", group.rows)));
        }
    }
    Ok(())
}

/// The texts of a chunk; how many there are.
fn each_of_chunk(
    file: &[u8],
    chunk: &Chunk,
    column: Column<'_>,
    wrong: &dyn Fn(String) -> TrainError,
    each: &mut dyn FnMut(&str) -> Result<(), TrainError>,
) -> Result<u64, TrainError> {
    let mut rest = file.get(chunk.range.clone()).unwrap_or_default();
    let mut dictionary = None;
    let mut row = 0u64;
    while let Some(page) = next_page(&mut rest).map_err(|e| wrong(e.to_string()))? {
        if page.kind == PageKind::Other {
            continue;
        }
        let data = decompress(&page, chunk.codec).map_err(wrong)?;
        if page.kind == PageKind::Dictionary {
            dictionary = Some(Dictionary::new(&page, data).map_err(|e| wrong(e.to_string()))?);
            continue;
        }
        let values = Values::new(&page, &data, column.optional, dictionary.as_ref());
        for value in values.map_err(|e| wrong(e.to_string()))? {
            let wrong = |problem: String| wrong(format!("row {row}: {problem}"));
            if row == chunk.values {
                return Err(wrong(format!("the pages have more than {} values", chunk.values)));
            }
            match value.map_err(|e| wrong(e.to_string()))?.map(std::str::from_utf8) {
                Some(Ok(text)) if !text.is_empty() => each(text)?,
                Some(Ok(_)) => return Err(wrong("the text is empty".to_owned())),
                Some(Err(e)) => return Err(wrong(format!("no text: {e}"))),
                None => return Err(wrong("the text is missing".to_owned())),
            }
            row += 1;
        }
    }
    Ok(row)
}

/// The bytes of a page as they were before they were compressed. What comes out is counted while it does.
fn decompress(page: &Page<'_>, codec: Codec) -> Result<Vec<u8>, String> {
    if page.uncompressed_len > MAX_PAGE_BYTES {
        return Err(format!("a page of {} bytes; {MAX_PAGE_BYTES} are the most", page.uncompressed_len));
    }
    let (levels, rest) = page.body.split_at_checked(page.levels).unwrap_or((page.body, &[]));
    let len = page.uncompressed_len.saturating_sub(levels.len());
    let codec = if page.compressed { codec } else { Codec::None };
    let mut data = levels.to_vec();
    // One byte more than there should be tells that there is too much.
    let limit = len as u64 + 1;
    let read = |mut from: Box<dyn Read + '_>, data: &mut Vec<u8>| {
        from.read_to_end(data).map(drop).map_err(|e| e.to_string())
    };
    match codec {
        Codec::None => data.extend_from_slice(rest),
        // Where no value is there, nothing is compressed.
        _ if len == 0 => {}
        Codec::Snappy => {
            let told = snap::raw::decompress_len(rest).map_err(|e| e.to_string())?;
            if told != len {
                return Err(format!("a page of {told} bytes, not {len}"));
            }
            data.extend(snap::raw::Decoder::new().decompress_vec(rest).map_err(|e| e.to_string())?);
        }
        Codec::Gzip => read(Box::new(flate2::read::MultiGzDecoder::new(rest).take(limit)), &mut data)?,
        Codec::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(rest).map_err(|e| e.to_string())?;
            read(Box::new(decoder.take(limit)), &mut data)?;
        }
        Codec::Other(number) => {
            let name = match number {
                3 => "LZO",
                4 => "Brotli",
                5 | 7 => "LZ4",
                _ => "an unknown codec",
            };
            return Err(format!("compressed with {name} ({number}): snappy, gzip and zstd are read"));
        }
    }
    match data.len() == page.uncompressed_len {
        true => Ok(data),
        false => Err(format!("a page of {} bytes, not {}", data.len(), page.uncompressed_len)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Files that pyarrow and fastparquet wrote: `testdata/parquet/make.py`.
    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/parquet").join(name)
    }

    fn texts(bytes: &[u8], column: &str) -> Result<Vec<String>, String> {
        let mut all = Vec::new();
        let mut each = |text: &str| {
            all.push(text.to_owned());
            Ok(())
        };
        match each_of_file(Path::new("a.parquet"), bytes, column, &mut each) {
            Ok(()) => Ok(all),
            Err(TrainError::Format { source, .. }) => Err(source.to_string()),
            Err(e) => Err(e.to_string()),
        }
    }

    fn of(name: &str, column: &str) -> Result<Vec<String>, String> {
        texts(&std::fs::read(file(name)).unwrap(), column)
    }

    #[test]
    fn texts_are_those_that_other_libraries_wrote() {
        let three = "Three, which is longer. ".repeat(20);
        let second = "Zwei: \u{e4}\u{f6}\u{fc}, \u{6f22}\u{5b57}, \u{1f980}.\n\nA second paragraph.";
        let want = ["One.", second, "One.", &three, "Four"];
        for name in ["snappy", "zstd-v2", "gzip-v2", "plain", "dictionary", "required", "fastparquet"] {
            assert_eq!(of(&format!("{name}.parquet"), "text").unwrap(), want, "{name}");
        }
        assert_eq!(of("nested.parquet", "body").unwrap(), want);
        let mut all = 0;
        each_text(&file("snappy.parquet"), "text", &mut |_| {
            all += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(all, 5);
    }

    #[test]
    fn what_is_not_read_is_refused_by_its_place() {
        let says = |name: &str, column: &str| of(name, column).unwrap_err();
        assert_eq!(says("snappy.parquet", "body"), "a.parquet: no column body; there are id, text, score");
        assert_eq!(says("snappy.parquet", "id"), "a.parquet: column id holds no texts");
        assert_eq!(
            says("nested.parquet", "text"),
            "a.parquet: column text is a list or a structure, no text"
        );
        assert_eq!(
            says("nested.parquet", "pair"),
            "a.parquet: column pair is a list or a structure, no text"
        );
        let place = |group| format!("a.parquet: row group {group}, column text: ");
        assert_eq!(says("missing.parquet", "text"), place(1) + "row 1: the text is missing");
        let brotli = place(0) + "compressed with Brotli (4): snappy, gzip and zstd are read";
        assert_eq!(says("brotli.parquet", "text"), brotli);
        let delta = says("delta.parquet", "text");
        assert!(
            delta.starts_with(&place(0)) && delta.contains("DELTA_BYTE_ARRAY (7) is not read"),
            "{delta}"
        );
    }

    /// No byte makes it panic, or take more than the file says it holds.
    #[test]
    fn damaged_files_are_refused_or_read() {
        let (mut refused, mut read) = (0, 0);
        for name in ["snappy", "zstd-v2", "gzip-v2", "plain", "required", "fastparquet", "nested"] {
            let bytes = std::fs::read(file(&format!("{name}.parquet"))).unwrap();
            let mut count = |bytes: &[u8]| match texts(bytes, if name == "nested" { "body" } else { "text" })
            {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            };
            for at in 0..bytes.len() {
                count(&bytes[..at]);
                for value in [0, 0xff, bytes[at] ^ 0x80, bytes[at].wrapping_add(1)] {
                    let mut bytes = bytes.clone();
                    bytes[at] = value;
                    count(&bytes);
                }
            }
        }
        assert!(refused > 10_000 && read > 1_000, "{refused} refused, {read} read");
    }

    /// A page that says it is small and becomes large is given up as soon as it is larger than it says.
    #[test]
    fn a_page_is_no_larger_than_it_says() {
        use std::io::Write;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(&vec![0; 50 << 20]).unwrap();
        let body = gz.finish().unwrap();
        let mut bytes: Vec<u8> = vec![0x15, 0, 0x15, 40, 0x15];
        let mut size = body.len() << 1;
        while size > 127 {
            bytes.push(size as u8 | 128);
            size >>= 7;
        }
        bytes.extend([size as u8, 0]);
        bytes.extend(&body);
        let page = next_page(&mut &bytes[..]).unwrap().unwrap();
        assert_eq!(decompress(&page, Codec::Gzip), Err("a page of 21 bytes, not 20".to_owned()));
    }
}
