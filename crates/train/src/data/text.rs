//! Documents out of files: plain text, JSON lines and CSV, as they are or compressed, and Parquet.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;

use super::parquet;
use crate::error::TrainError;

/// What separates the documents of a plain text: a line of its own.
pub const DOCUMENT_END: &str = "<|endoftext|>";

/// Opens a file; the end of its name says whether it is compressed (`.xz`, `.zst`, `.gz`). Also the name without that end.
fn open(path: &Path) -> Result<(Box<dyn BufRead>, String), TrainError> {
    let file = BufReader::new(File::open(path).map_err(TrainError::io(path))?);
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let (inner, ending) = name.rsplit_once('.').unwrap_or((&name, ""));
    let plain = inner.to_owned();
    Ok(match ending {
        "xz" => (Box::new(BufReader::new(lzma_rust2::XzReader::new(file, true))), plain),
        "gz" => (Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(file))), plain),
        "zst" => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(file)
                .map_err(|e| TrainError::input(path.display().to_string(), e.to_string()))?;
            (Box::new(BufReader::new(decoder)), plain)
        }
        _ => (Box::new(file), name),
    })
}

/// Calls `each` with every document of a file that is not empty: of `.jsonl`, `.csv` and `.parquet` the field or column
/// `field` of every row, of any other file what lies between lines `<|endoftext|>`, without line breaks before it.
///
/// # Errors
/// A file that cannot be read, is not UTF-8, or a row without the field, with its line or row group; and what `each` returns.
pub fn each_document(
    path: &Path,
    field: &str,
    each: &mut dyn FnMut(&str) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    if path.extension().is_some_and(|ending| ending == "parquet") {
        return parquet::each_text(path, field, each);
    }
    let (mut file, name) = open(path)?;
    if name.ends_with(".parquet") {
        let problem = "a Parquet file is read as it is: unpack it";
        return Err(TrainError::input(path.display().to_string(), problem));
    }
    if name.ends_with(".csv") {
        return each_record(path, file, field, each);
    }
    let rows = name.ends_with(".jsonl");
    let (mut line, mut document, mut at) = (String::new(), String::new(), 0);
    loop {
        line.clear();
        at += 1;
        let row = |problem: String| TrainError::Row { path: path.to_owned(), line: at, problem };
        let read = file.read_line(&mut line).map_err(|e| row(e.to_string()))?;
        if rows && !line.trim().is_empty() {
            let value: Value = serde_json::from_str(&line).map_err(|e| row(e.to_string()))?;
            match value.get(field).and_then(Value::as_str) {
                Some(text) if !text.is_empty() => each(text)?,
                Some(_) => return Err(row(format!("{field} is empty"))),
                None => return Err(row(format!("no text in {field}"))),
            }
        } else if !rows && (read == 0 || line.trim_end() == DOCUMENT_END) {
            let text = document.trim_start_matches('\n');
            if !text.is_empty() {
                each(text)?;
            }
            document.clear();
        } else if !rows {
            document.push_str(&line);
        }
        if read == 0 {
            return Ok(());
        }
    }
}

fn each_record(
    path: &Path,
    file: Box<dyn BufRead>,
    field: &str,
    each: &mut dyn FnMut(&str) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let mut reader = csv::Reader::from_reader(file);
    let row = |error: &csv::Error| TrainError::Row {
        path: path.to_owned(),
        line: error.position().map_or(1, |p| usize::try_from(p.line()).unwrap_or(usize::MAX)),
        problem: error.to_string(),
    };
    let headers = reader.headers().map_err(|e| row(&e))?;
    let Some(column) = headers.iter().position(|name| name == field) else {
        let known: Vec<&str> = headers.iter().collect();
        let problem = format!("no column {field}; there are {}", known.join(", "));
        return Err(TrainError::Row { path: path.to_owned(), line: 1, problem });
    };
    for record in reader.records() {
        let record = record.map_err(|e| row(&e))?;
        let line = record.position().map_or(0, |p| usize::try_from(p.line()).unwrap_or(usize::MAX));
        match record.get(column) {
            Some(text) if !text.is_empty() => each(text)?,
            _ => {
                let problem = format!("{field} is empty");
                return Err(TrainError::Row { path: path.to_owned(), line, problem });
            }
        }
    }
    Ok(())
}

/// Calls `each` with every line of a file, also compressed, and its number, from 1 on.
///
/// # Errors
/// A file that cannot be read or is not UTF-8, with the line; and what `each` returns.
pub(crate) fn each_line(
    path: &Path,
    each: &mut dyn FnMut(usize, &str) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let (mut file, _) = open(path)?;
    let mut line = String::new();
    for at in 1.. {
        line.clear();
        let row = |problem: String| TrainError::Row { path: path.to_owned(), line: at, problem };
        if file.read_line(&mut line).map_err(|e| row(e.to_string()))? == 0 {
            break;
        }
        each(at, &line)?;
    }
    Ok(())
}

/// A whole small file as text.
pub(crate) fn read_text(path: &Path) -> Result<String, TrainError> {
    let mut text = String::new();
    File::open(path).and_then(|mut file| file.read_to_string(&mut text)).map_err(TrainError::io(path))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn documents(name: &str, bytes: &[u8]) -> Result<Vec<String>, TrainError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut all = Vec::new();
        each_document(&path, "text", &mut |document| {
            all.push(document.to_owned());
            Ok(())
        })?;
        Ok(all)
    }

    const PLAIN: &str = "\nOne.\n\nStill one.\n<|endoftext|>\n\n<|endoftext|>\nTwo.\n<|endoftext|>\nThree";

    #[test]
    fn plain_texts_are_split_at_their_separators() {
        let want = ["One.\n\nStill one.\n", "Two.\n", "Three"];
        assert_eq!(documents("a.txt", PLAIN.as_bytes()).unwrap(), want);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(PLAIN.as_bytes()).unwrap();
        assert_eq!(documents("a.txt.gz", &gz.finish().unwrap()).unwrap(), want);
    }

    /// Made with `printf 'One.\n<|endoftext|>\nTwo.\n' | xz -9 | base64` and `zstd -19`.
    #[test]
    fn compressed_texts_are_those_of_xz_and_zstd() {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let xz = "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jMAQAXT25lLgo8fGVuZG9mdGV4dHw+ClR3by4KACfOVS0fgFLrAAEwGI4brOwftvN9AQAAAAAEWVo=";
        let zst = "KLUv/QRowQAAT25lLgo8fGVuZG9mdGV4dHw+ClR3by4KcVvhcw==";
        assert_eq!(documents("a.txt.xz", &STANDARD.decode(xz).unwrap()).unwrap(), ["One.\n", "Two.\n"]);
        assert_eq!(documents("a.txt.zst", &STANDARD.decode(zst).unwrap()).unwrap(), ["One.\n", "Two.\n"]);
        assert!(documents("a.txt.xz", b"no xz").is_err());
        assert!(documents("a.txt.zst", b"no zstd").is_err());
    }

    #[test]
    fn rows_are_read_by_field_and_errors_name_the_line() {
        let rows = b"{\"text\": \"One\\n\"}\n\n{\"id\": 3, \"text\": \"Two\"}\n";
        assert_eq!(documents("a.jsonl", rows).unwrap(), ["One\n", "Two"]);
        let says = |name, bytes: &[u8]| documents(name, bytes).unwrap_err().to_string();
        assert!(says("a.jsonl", b"{\"text\": \"One\"}\n{\"id\": 3}\n").ends_with("line 2: no text in text"));
        assert!(says("a.jsonl", b"{\"text\": \"\"}").ends_with("line 1: text is empty"));
        assert!(says("a.jsonl", b"{\"text\": \"One\"}\n\nnot json\n").contains("line 3: expected"));
        let table = b"id,text\n1,\"One, and\nmore\"\n2,Two\n";
        assert_eq!(documents("a.csv", table).unwrap(), ["One, and\nmore", "Two"]);
        assert!(says("a.csv", b"id,body\n1,One\n").ends_with("line 1: no column text; there are id, body"));
        assert!(says("a.csv", b"id,text\n1,One\n2,\n").contains("line 3: text is empty"));
        assert!(says("a.csv", b"id,text\n1\n").contains("line 2"));
        assert!(says("a.txt", b"\xff\xfe").contains("line 1"));
    }
}
