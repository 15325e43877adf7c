//! bitllama2.c checkpoints: the header of llama2.c v1, f32 norm and embedding, ternary matrices. Read only.
//!
//! Each layer's matrix is an f32 scale and 2-bit codes, four a byte. Two programs wrote such files, one with
//! the first weight in the low bits of a byte, one in the high bits, and the file does not say which: see
//! [`BitOrder`]. How it is told, and the byte table, are in `docs/src/formats/bitllama.md`.

use crate::bit_order::detect_order;
use crate::checkpoint::Checkpoint;
use crate::detect::FileKind;
use crate::error::FormatError;
use crate::header::Header;
use crate::layout::{Directory, Encoding, Spec};
use crate::llama2c::{mark_versioned_header, read_versioned_header};

/// Where in a byte of four ternary codes the first weight lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitOrder {
    /// In bits 0 and 1.
    LeastSignificantFirst,
    /// In bits 6 and 7.
    MostSignificantFirst,
}

/// Reads a file and checks every ternary code. Without `order` it is told from the weights.
///
/// # Errors
/// A [`FormatError::Field`] called "bit order" when the weights do not tell it (an untrained or tiny model):
/// the caller may then name it.
pub fn parse(bytes: &[u8], order: Option<BitOrder>) -> Result<Checkpoint, FormatError> {
    let (header, directory) = read(bytes, BitOrder::LeastSignificantFirst)?;
    directory.check_codes()?;
    let order = match order {
        Some(order) => order,
        None => detect_order(bytes, &header, &directory.into_tensors())?,
    };
    let (header, directory) = read(bytes, order)?;
    Ok(Checkpoint::new(FileKind::Bitllama, header, directory.into_tensors()))
}

/// Whether a file with the magic and version of llama2.c v1 has the length of a bitllama file of its shape.
pub(crate) fn fits(bytes: &[u8]) -> bool {
    read(bytes, BitOrder::LeastSignificantFirst).is_ok()
}

fn read(bytes: &[u8], order: BitOrder) -> Result<(Header, Directory<'_>), FormatError> {
    let (header, version, _) = read_versioned_header(bytes)?;
    if version != 1 {
        return Err(FormatError::field("version", 4, format!("must be 1, but is {version}")));
    }
    if !header.shared_classifier {
        return Err(FormatError::field("shared_classifier", 36, "must be 1 in a bitllama file"));
    }
    let mut directory = Directory::over(bytes);
    mark_versioned_header(&mut directory, &header, 1, None)?;
    let &Header { dim, hidden_dim, n_layers, vocab_size, .. } = &header;
    directory.push(&Spec::vector("rms_final", dim), Encoding::F32)?;
    directory.push(&Spec::matrix("token_embedding", vocab_size, dim), Encoding::F32)?;
    let most_significant_first = order == BitOrder::MostSignificantFirst;
    let kv_dim = header.kv_dim();
    for matrix in [
        Spec::matrix("wq", dim, dim),
        Spec::matrix("wk", kv_dim, dim),
        Spec::matrix("wv", kv_dim, dim),
        Spec::matrix("wo", dim, dim),
        Spec::matrix("w1", hidden_dim, dim),
        Spec::matrix("w2", dim, hidden_dim),
        Spec::matrix("w3", hidden_dim, dim),
    ] {
        directory.push(&matrix.in_layers(0..n_layers), Encoding::TernaryScaled { most_significant_first })?;
    }
    directory.finish()?;
    Ok((header, directory))
}
