//! The table of everything that is no matrix product, compiled once for each instruction set.

use crate::activations::Rounded;
use crate::attention::page::{PageView, Rows, Running};
use crate::dispatch::Isa;
use crate::float_rows::FloatRows;
use crate::gemm::GemmOps;
use crate::matmul::Columns;
use crate::ops::Activation;
use crate::rope::Pairing;

/// Element-wise operations and attention of one instruction set. Every function may be called through a table
/// that [`crate::dispatch`] handed out, because it does so only on a machine that can run it.
pub(crate) struct VectorOps {
    pub(crate) isa: Isa,
    /// See [`crate::ops::rms_norm`].
    pub(crate) rms_norm: RmsNorm,
    /// See [`crate::ops::rms_norm_in_place`].
    pub(crate) rms_norm_in_place: unsafe fn(&mut [f32], Option<&[f32]>, f32),
    /// `x += y`.
    pub(crate) add: unsafe fn(&mut [f32], &[f32]),
    /// `gate = f(gate) * up`.
    pub(crate) gate: unsafe fn(Activation, &mut [f32], &[f32]),
    /// See [`crate::rope::rotate`].
    pub(crate) rotate: unsafe fn(&mut [f32], usize, Pairing, &[f32]),
    /// See [`crate::ops::body::quantize`].
    pub(crate) quantize: unsafe fn(&[f32], bool, Rounded<'_>),
    /// Rounds to the bits of binary16.
    pub(crate) to_f16: unsafe fn(&[f32], &mut [u16]),
    /// The largest magnitude, NaN left out.
    pub(crate) absmax: unsafe fn(&[f32]) -> f32,
    /// See [`crate::ops::max`].
    pub(crate) max: unsafe fn(&[f32]) -> f32,
    /// Rounds `x / scale` to int8, to 0 where the scale is 0.
    pub(crate) to_i8: unsafe fn(&[f32], f32, &mut [i8]),
    /// See [`crate::attention::page::attend_page`].
    pub(crate) attend_page: unsafe fn(&PageView<'_>, &Rows<'_>, &mut Running),
    /// See [`crate::float_rows::multiply`].
    pub(crate) multiply_floats: MultiplyFloats,
    /// See [`crate::gemm`].
    pub(crate) gemm: GemmOps,
    /// See [`crate::ops::exp_sum`].
    pub(crate) exp_sum: unsafe fn(&mut [f32], f32) -> f32,
    /// See [`crate::attention::page::merge`].
    pub(crate) merge: unsafe fn(&[f32], &mut [f32]),
}

/// Rows, activations, output.
type MultiplyFloats = unsafe fn(&FloatRows<'_>, &[f32], &Columns<'_>);

/// Input, weight, eps, output.
type RmsNorm = unsafe fn(&[f32], Option<&[f32]>, f32, &mut [f32]);

/// Compiles the bodies for one vector type and makes the table `VECTOR_OPS` of them. `tile R x C`: rows of
/// queries and vectors of positions (or of values) that attention keeps in registers; `floats R x T`: rows of weights and
/// tokens whose sums stay in registers; `gemm R x N`: rows and vectors of columns of a product of matrices, likewise.
macro_rules! vector_ops {
    ($isa:expr, $vector:ident, tile $rows:literal x $columns:literal,
     floats $float_rows:literal x $tokens:literal,
     gemm $gemm_rows:literal x $gemm_vectors:literal $(, $features:literal)?) => {
        pub(crate) static VECTOR_OPS: VectorOps = VectorOps {
            isa: $isa,
            rms_norm: compiled::rms_norm,
            rms_norm_in_place: compiled::rms_norm_in_place,
            add: compiled::add,
            gate: compiled::gate,
            rotate: compiled::rotate,
            quantize: compiled::quantize,
            to_f16: compiled::to_f16,
            absmax: compiled::absmax,
            max: compiled::max,
            to_i8: compiled::to_i8,
            attend_page: compiled::attend_page,
            multiply_floats: compiled::multiply_floats,
            gemm: $crate::gemm::GemmOps {
                tile: ($gemm_rows, $gemm_vectors * $crate::vector::LANES),
                group: 1,
                pack: (compiled::pack_rows, compiled::pack_columns),
                strip: compiled::gemm_strip,
            },
            exp_sum: compiled::exp_sum,
            merge: compiled::merge,
        };

        mod compiled {
            use crate::activations::Rounded;
            use crate::attention::page::{self, PageView, Rows, Running};
            use crate::float_rows::{self, FloatRows};
            use crate::gemm::{self, Part, Strip};
            use crate::matmul::Columns;
            use crate::ops::{Activation, body};
            use crate::rope::{self, Pairing};

            type V = super::$vector;

            $(#[target_feature(enable = $features)])?
            pub(super) fn rms_norm(x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
                body::rms_norm::<V>(x, weight, eps, out)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn rms_norm_in_place(x: &mut [f32], weight: Option<&[f32]>, eps: f32) {
                body::rms_norm_in_place::<V>(x, weight, eps)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn add(x: &mut [f32], y: &[f32]) {
                body::add::<V>(x, y)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn gate(activation: Activation, gate: &mut [f32], up: &[f32]) {
                body::gate::<V>(activation, gate, up)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn rotate(x: &mut [f32], head_dim: usize, pairing: Pairing, table: &[f32]) {
                rope::rotate_body::<V>(x, head_dim, pairing, table)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn quantize(x: &[f32], by_token: bool, out: Rounded<'_>) {
                body::quantize::<V>(x, by_token, out)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn to_f16(x: &[f32], out: &mut [u16]) {
                body::to_f16::<V>(x, out)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn absmax(x: &[f32]) -> f32 {
                body::absmax::<V>(x)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn max(x: &[f32]) -> f32 {
                body::max::<V>(x)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn to_i8(x: &[f32], scale: f32, out: &mut [i8]) {
                body::to_i8::<V>(x, scale, out)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn attend_page(view: &PageView<'_>, rows: &Rows<'_>, running: &mut Running) {
                page::attend_page::<V, $rows, $columns>(view, rows, running)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn merge(part: &[f32], total: &mut [f32]) {
                page::merge::<V>(part, total)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn pack_rows(part: Part<'_>, to: &mut [f32]) {
                gemm::pack::<$gemm_rows>(part, to)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn pack_columns(part: Part<'_>, to: &mut [f32]) {
                gemm::pack::<{ $gemm_vectors * $crate::vector::LANES }>(part, to)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn gemm_strip(strip: &Strip<'_>, c: &mut [f32]) {
                gemm::multiply_strip::<V, $gemm_rows, $gemm_vectors>(strip, c)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) fn exp_sum(x: &mut [f32], shift: f32) -> f32 {
                body::exp_sum::<V>(x, shift)
            }

            /// # Safety
            /// As [`float_rows::multiply`].
            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn multiply_floats(w: &FloatRows<'_>, xs: &[f32], out: &Columns<'_>) {
                // SAFETY: as the caller promises.
                unsafe { float_rows::multiply::<V, $float_rows, $tokens>(w, xs, out) }
            }
        }
    };
}

pub(crate) use vector_ops;
