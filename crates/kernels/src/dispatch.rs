//! Which instruction set the inner loops use: decided once, on this page.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use crate::arch::avx2;
use crate::arch::scalar;
use crate::codec::UnpackedRow;
use crate::row::RowType;

/// An instruction set that this build has kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust for whatever the target's baseline is.
    Scalar,
    /// x86-64 of 2013 and later: AVX2, FMA, F16C.
    Avx2,
}

impl Isa {
    /// The name that `EDGELLM_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
        }
    }
}

/// The inner loops of one instruction set. Every function is safe to call through this table because a table
/// is handed out only on a machine that can run it.
pub(crate) struct Kernels {
    pub(crate) isa: Isa,
    /// [`crate::codec::unpack_row`] of bytes that are one row, compiled for this instruction set.
    pub(crate) unpack_row: unsafe fn(RowType, &[u8], usize, &mut UnpackedRow),
    /// [`crate::codec::dequantize_row`] of bytes that are one row, compiled for this instruction set.
    pub(crate) dequantize_row: unsafe fn(RowType, &[u8], &mut [f32]),
    /// `out[r * tokens + t] = rows[r] . xs[t]`; rows `[n, cols]`, xs `[tokens, cols]`, out `[n, tokens]`.
    pub(crate) gemm_f32: unsafe fn(&[f32], &[f32], usize, &mut [f32]),
    /// One row against all tokens, a scale per block of 32 on both sides.
    pub(crate) gemm_int8_block: unsafe fn(&BlockRow<'_>, &BlockInput<'_>, &mut [f32]),
    /// One row against all tokens, integers only: `out[t] = sum of w[i] * xs[t][i]`, w in {-1, 0, 1}.
    pub(crate) gemm_ternary: unsafe fn(&[i8], &[i8], &mut [i32]),
    /// `a . b` with b in f16.
    pub(crate) dot_f16: unsafe fn(&[f32], &[u16]) -> f32,
    /// `out += a * v` with v in f16.
    pub(crate) axpy_f16: unsafe fn(f32, &[u16], &mut [f32]),
}

/// An unpacked row in the shape that [`Kernels::gemm_int8_block`] takes.
pub(crate) struct BlockRow<'a> {
    /// `[cols]`, a multiple of 32.
    pub(crate) q: &'a [i8],
    /// Scale of each half block: `[cols / 16]`.
    pub(crate) scale16: &'a [f32],
    /// Offset of each group (of 16 or 32), or empty.
    pub(crate) offset: &'a [f32],
}

/// int8 activations: see [`crate::activations::Int8`].
pub(crate) struct BlockInput<'a> {
    pub(crate) q: &'a [i8],
    pub(crate) scale: &'a [f32],
    /// What the offsets are multiplied with: scale times the sum of q over each group.
    pub(crate) sums: &'a [f32],
}

/// The table in use: the best that the processor can run, or the one that `EDGELLM_ISA` names if it can.
pub(crate) fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let wanted = std::env::var("EDGELLM_ISA").unwrap_or_default();
        available()
            .into_iter()
            .rfind(|k| wanted.is_empty() || k.isa.name() == wanted)
            .unwrap_or(&scalar::KERNELS)
    })
}

/// All tables that this processor can run, the best last.
pub(crate) fn available() -> Vec<&'static Kernels> {
    let mut tables = vec![&scalar::KERNELS];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
    {
        tables.push(&avx2::KERNELS);
    }
    tables
}

/// The instruction set in use.
pub fn isa() -> Isa {
    kernels().isa
}

/// All instruction sets that this processor can run, the best last.
pub fn isas() -> Vec<Isa> {
    available().into_iter().map(|kernels| kernels.isa).collect()
}
