//! The metadata trailer behind the last tensor of T-MAC and Q4V1 files.
//!
//! `"EDGE"`, u32 version 1, u64 length, that many bytes of UTF-8 JSON, the same u64 length, `"EDGE"`. A reader
//! that does not know it still finds all tensors. The JSON is an object; its keys are listed in
//! `docs/src/formats/tmac-v2.md`.

use std::io::{self, Write};

use serde_json::Value;

use crate::error::FormatError;
use crate::limits::MAX_TRAILER;
use crate::reader::Reader;

const MARK: [u8; 4] = *b"EDGE";
const VERSION: u32 = 1;

/// The trailer of a file whose last tensor ends at byte `offset`: `None` when the file ends there. Anything
/// else but a whole trailer is an error.
pub fn parse(bytes: &[u8], offset: u64) -> Result<Option<Value>, FormatError> {
    let mut reader = Reader::new(bytes);
    reader.seek(offset, "trailer")?;
    if reader.remaining() == 0 {
        return Ok(None);
    }
    let extra = reader.remaining();
    if !matches!(reader.array::<4>("trailer"), Ok(MARK)) {
        return Err(FormatError::TrailingBytes { offset, extra });
    }
    let version = reader.u32("trailer version")?;
    if version != VERSION {
        let problem = format!("must be {VERSION}, but is {version}");
        return Err(FormatError::field("trailer version", offset + 4, problem));
    }
    let length = reader.u64("trailer length")?;
    if length > MAX_TRAILER {
        return Err(FormatError::Limit { field: "trailer length".into(), value: length, limit: MAX_TRAILER });
    }
    let json = reader.bytes(length, "trailer")?;
    let at = reader.offset();
    let again = reader.u64("second trailer length")?;
    if again != length {
        let problem = format!("must be {length} as before the JSON, but is {again}");
        return Err(FormatError::field("second trailer length", at, problem));
    }
    let at = reader.offset();
    if reader.array::<4>("end mark of the trailer")? != MARK {
        return Err(FormatError::field("end mark of the trailer", at, "is not EDGE"));
    }
    if reader.remaining() != 0 {
        return Err(FormatError::TrailingBytes { offset: reader.offset(), extra: reader.remaining() });
    }
    let json_error = |problem: String| FormatError::Json { what: "trailer".into(), problem };
    let value: Value = serde_json::from_slice(json).map_err(|error| json_error(error.to_string()))?;
    if !value.is_object() {
        return Err(json_error("is not an object".into()));
    }
    Ok(Some(value))
}

/// Writes a trailer that holds `metadata`, a JSON object.
pub fn write(out: &mut dyn Write, metadata: &Value) -> io::Result<()> {
    let json = serde_json::to_vec(metadata)?;
    if !metadata.is_object() || json.len() as u64 > MAX_TRAILER {
        let problem = format!("metadata must be a JSON object of at most {MAX_TRAILER} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let length = (json.len() as u64).to_le_bytes();
    out.write_all(&MARK)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&length)?;
    out.write_all(&json)?;
    out.write_all(&length)?;
    out.write_all(&MARK)
}
