//! What must hold of any file that a parser accepts.

use formats::TensorInfo;
use formats::checkpoint::Checkpoint;
use formats::detect::FileKind;

#[path = "../../crates/formats/tests/family/rewrite.rs"]
mod rewrite;

/// Every tensor lies inside the file; where the last one ends.
pub fn check_ranges(bytes: &[u8], tensors: &[TensorInfo]) -> usize {
    let ranges = tensors.iter().map(|tensor| tensor.range(bytes.len() as u64).unwrap());
    ranges.map(|range| range.end).max().unwrap_or(0)
}

/// Every tensor of a checkpoint lies inside the file, and the format's own writer gives the same bytes again, up
/// to the trailer, whose JSON may be spelled differently.
pub fn check(bytes: &[u8], checkpoint: &Checkpoint) {
    let end = check_ranges(bytes, &checkpoint.tensors);
    if checkpoint.kind != FileKind::Bitllama {
        assert_eq!(rewrite::rewrite(checkpoint, bytes)[..end], bytes[..end]);
    }
}
