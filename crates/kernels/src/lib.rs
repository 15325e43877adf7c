//! The only unsafe compute: row codecs, matrix products, norms, RoPE, softmax, attention and the thread team.
//!
//! No I/O and no knowledge of files or models: slices in, slices out. Three rooms: [`mod@reference`] is the truth,
//! scalar and plain; the algorithms are written once ([`matmul`], [`attention`]); one file per instruction set
//! holds what they call in their inner loops (`arch/`). [`dispatch`] chooses once and obeys `EDGELLM_ISA`.

#[cfg(target_endian = "big")]
compile_error!(
    "EdgeLLM runs on little-endian processors only: weights are multiplied as they lie in their files, which are \
     little-endian"
);

pub mod activations;
mod arch;
pub mod arena;
pub mod attention;
pub mod bandwidth;
pub mod codec;
pub mod dispatch;
mod float_rows;
pub mod gemm;
pub mod int_tiles;
pub mod matmul;
pub mod ops;
pub mod reference;
pub mod rope;
pub mod row;
pub mod threads;
pub mod trits;
mod vector;

pub use activations::{ActivationForm, Activations};
pub use arena::Arena;
pub use dispatch::{Isa, isa};
pub use int_tiles::IntTiles;
pub use matmul::{MatmulError, Matrix};
pub use row::RowType;
pub use threads::Team;
pub use trits::Trits;
