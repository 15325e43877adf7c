//! The model that the program carries (`models/`), for commands that are given none.

use engine::BuiltIn;

/// What the user calls it.
pub(crate) const NAME: &str = "stories";

/// What stands for its path.
pub(crate) const PATH: &str = "built-in:stories";

/// Tensors of a GGUF file lie at multiples of 32 bytes of it.
#[repr(align(64))]
struct Aligned<Bytes: ?Sized>(Bytes);

static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../models/stories.gguf"));

/// Lets it be loaded by its path.
pub(crate) fn provide() {
    BuiltIn { path: PATH, bytes: &FILE.0 }.provide();
}
