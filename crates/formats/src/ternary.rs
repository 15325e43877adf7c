//! The 2-bit ternary code of T-MAC and bitllama files: 00 = 0, 01 = +1, 11 = -1, and 10 is invalid.

use crate::error::FormatError;
use crate::reader::Reader;
use crate::tensor::{Layout, TensorInfo};

/// High bit of each of the four codes of a byte, eight bytes at once.
const HIGH_BITS: u64 = 0xAAAA_AAAA_AAAA_AAAA;

/// Bits that are set where a code is 10: its high bit is set and the low bit beside it is not. The shift moves
/// each low bit onto its own high bit; what it carries into the next byte lands on a low bit and is masked.
fn invalid_bits(codes: u64) -> u64 {
    codes & !(codes << 1) & HIGH_BITS
}

/// Index of the first byte that holds the invalid code 10, whichever of its four places it has.
pub fn first_invalid(codes: &[u8]) -> Option<usize> {
    // Whole blocks first, with one branch a block: this runs over every weight of a file.
    const BLOCK: usize = 64;
    let (words, _) = codes.as_chunks::<8>();
    let clean = words
        .chunks(BLOCK / 8)
        .take_while(|block| {
            block.iter().fold(0, |or, word| or | invalid_bits(u64::from_le_bytes(*word))) == 0
        })
        .map(|block| block.len() * 8)
        .sum::<usize>();
    let rest = codes.get(clean..)?;
    rest.iter().position(|&byte| invalid_bits(u64::from(byte)) != 0).map(|i| clean + i)
}

/// Checks `weights` codes in `codes` (4 a byte), which stand at `offset` of the file and belong to `tensor`:
/// no code is 10, and the places of the last byte behind the last weight are zero, so that a kernel may read
/// whole bytes.
pub(crate) fn check_codes(
    tensor: &str,
    offset: u64,
    codes: &[u8],
    weights: u64,
    most_significant_first: bool,
) -> Result<(), FormatError> {
    if let Some(i) = first_invalid(codes) {
        let problem = format!("invalid ternary code 10 in byte {:#04x}", codes[i]);
        return Err(FormatError::tensor(tensor, offset + i as u64, problem));
    }
    let used_bits = 2 * (weights % 4) as u32;
    let (Some(&last), 1..) = (codes.last(), used_bits) else { return Ok(()) };
    let padding = if most_significant_first { last << used_bits } else { last >> used_bits };
    if padding != 0 {
        let at = offset + codes.len() as u64 - 1;
        return Err(FormatError::tensor(
            tensor,
            at,
            format!("padding of the last byte {last:#04x} is not zero"),
        ));
    }
    Ok(())
}

/// Checks the codes of one stored unit: a tensor, or the run of a stacked tensor (`info` is then the whole
/// run). `bytes` are the unit's bytes; layouts without ternary codes pass.
pub(crate) fn check_unit(info: &TensorInfo, bytes: &[u8]) -> Result<(), FormatError> {
    let weights = info.rows() * info.cols();
    match info.layout {
        Layout::TernaryRun { .. } => check_codes(&info.name, info.offset, bytes, weights, false),
        Layout::TernaryRows => {
            let mut reader = Reader::new(bytes);
            for _ in 0..info.rows() {
                reader.bytes(2, &info.name)?;
                let at = info.offset + reader.offset();
                let codes = reader.bytes(info.cols().div_ceil(4), &info.name)?;
                check_codes(&info.name, at, codes, info.cols(), false)?;
            }
            Ok(())
        }
        Layout::TernaryScaled { most_significant_first } => {
            let mut reader = Reader::new(bytes);
            reader.bytes(4, &info.name)?;
            let codes = reader.bytes(reader.remaining(), &info.name)?;
            check_codes(&info.name, info.offset + 4, codes, weights, most_significant_first)
        }
        Layout::Rows(_) | Layout::Int4Run { .. } | Layout::Int8Groups { .. } => Ok(()),
    }
}
