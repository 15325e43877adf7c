//! Which instruction set the inner loops use: decided once, on this page.

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
use std::sync::OnceLock;

use crate::arch::ops_scalar;
use crate::arch::scalar;
use crate::arch::vector_ops::VectorOps;
#[cfg(target_arch = "x86_64")]
use crate::arch::{avx2, avx512, bf16_avx512, ops_avx2, ops_avx512};
#[cfg(target_arch = "aarch64")]
use crate::arch::{neon, neon_dotprod, neon_i8mm, ops_neon};
use crate::codec::UnpackedRow;
use crate::gemm::GemmOps;
use crate::int_tiles::IntKernel;
use crate::row::RowType;
use crate::trits::TritKernels;

/// An instruction set that this build has kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust for whatever the target's baseline is.
    Scalar,
    /// x86-64 of 2013 and later: AVX2, FMA, F16C.
    Avx2,
    /// x86-64 of 2019 (Ice Lake), 2022 (Zen 4) and later: AVX-512 F, BW, DQ, VL, VBMI, VNNI.
    Avx512,
    /// 64-bit ARM: NEON.
    Neon,
    /// ARMv8.2 with the dot product instructions: NEON, SDOT.
    Dotprod,
    /// ARMv8.6 with the matrix product instructions of bytes: NEON, SDOT, SMMLA.
    I8mm,
}

impl Isa {
    /// The name that `EDGELLM_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
            Self::Dotprod => "dotprod",
            Self::I8mm => "i8mm",
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
    /// One row against all tokens, a scale per block of 32 on both sides.
    pub(crate) gemm_int8_block: unsafe fn(&BlockRow<'_>, &BlockInput<'_>, &mut [f32]),
    /// One row against all tokens, integers only: `out[t] = sum of w[i] * xs[t][i]`, w in {-1, 0, 1}.
    pub(crate) gemm_ternary: unsafe fn(&[i8], &[i8], &mut [i32]),
    /// Ternary tiles, where this instruction set is faster with them than with rows.
    pub(crate) trits: Option<&'static TritKernels>,
    /// Tiles of 4- and 8-bit codes, likewise.
    pub(crate) int_tiles: Option<IntKernel>,
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

/// Whether this processor can run AVX2's table.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Whether this processor can run AVX-512's table.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vnni")
}

/// All tables that this processor can run, the best last.
pub(crate) fn available() -> Vec<&'static Kernels> {
    let mut tables = vec![&scalar::KERNELS];
    #[cfg(target_arch = "x86_64")]
    {
        tables.extend(has_avx2().then_some(&avx2::KERNELS));
        tables.extend(has_avx512().then_some(&avx512::KERNELS));
    }
    #[cfg(target_arch = "aarch64")]
    if is_aarch64_feature_detected!("neon") {
        tables.push(&neon::KERNELS);
        if is_aarch64_feature_detected!("dotprod") {
            tables.push(&neon_dotprod::KERNELS);
            tables.extend(is_aarch64_feature_detected!("i8mm").then_some(&neon_i8mm::KERNELS));
        }
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

/// As [`kernels`], for everything that is no matrix product.
pub(crate) fn vector_ops() -> &'static VectorOps {
    static CHOSEN: OnceLock<&'static VectorOps> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let isa = match kernels().isa {
            // Products of bytes add nothing here.
            Isa::Dotprod | Isa::I8mm => Isa::Neon,
            isa => isa,
        };
        available_vector_ops().into_iter().rfind(|k| k.isa == isa).unwrap_or(&ops_scalar::VECTOR_OPS)
    })
}

/// Products of bfloat16, where the instruction set in use has instructions for them.
pub(crate) fn gemm_pairs() -> Option<&'static GemmOps> {
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 && is_x86_feature_detected!("avx512bf16") {
        return Some(&bf16_avx512::GEMM);
    }
    None
}

/// As [`available`].
pub(crate) fn available_vector_ops() -> Vec<&'static VectorOps> {
    let mut tables = vec![&ops_scalar::VECTOR_OPS];
    #[cfg(target_arch = "x86_64")]
    {
        tables.extend(has_avx2().then_some(&ops_avx2::VECTOR_OPS));
        tables.extend(has_avx512().then_some(&ops_avx512::VECTOR_OPS));
    }
    #[cfg(target_arch = "aarch64")]
    tables.extend(is_aarch64_feature_detected!("neon").then_some(&ops_neon::VECTOR_OPS));
    tables
}
