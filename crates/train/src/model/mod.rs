//! Llama-like models and BitNet b1.58, forward and backward.
//!
//! The derivatives are written by hand, layer by layer, beside what they are derivatives of: a tape would keep more and
//! compute the same matrix products. Their sums run over `kernels::gemm`.

mod adapters;
mod attention;
mod distill;
mod elementwise;
mod frozen;
mod groups;
mod layer;
mod layout;
mod linear;
mod loss;
mod nf4;
mod pass;
mod round;
mod shape;

pub use adapters::Adapters;
pub use distill::{Distance, Lesson};
pub use frozen::{Frozen, Parameters};
pub(crate) use frozen::{RowOrder, Stored};
pub use groups::Planes;
pub(crate) use groups::ternary_row;
pub use layout::{Kind, Layout, Tensor};
pub(crate) use nf4::Nf4;
pub use pass::{Batch, Network, Wanted};
pub(crate) use round::round_codes;
pub use shape::{Activation, Shape, ShapeError};
