//! AVX-512 F, BW, DQ, VL, VBMI and VNNI: x86-64 of 2019 (Ice Lake) and 2022 (Zen 4) and later.
//!
//! What this folder does not replace is AVX2's.

mod int_tiles;
mod many;
mod trits;

use std::arch::x86_64::*;

use crate::arch::avx2;
use crate::dispatch::{Isa, Kernels};
use crate::trits::many::ManyKernels;
use crate::trits::{Line, TritKernels};

pub(crate) static KERNELS: Kernels =
    Kernels { isa: Isa::Avx512, trits: Some(&TRITS), int_tiles: Some(int_tiles::int_tile), ..avx2::TABLE };

static TRITS: TritKernels = TritKernels {
    tables: trits::tables,
    lookup: trits::lookup,
    multiply: trits::multiply,
    lookup_up_to: 1,
    many: Some(&ManyKernels {
        interleave: many::interleave,
        tables: many::tables,
        add: many::add,
        widen: many::widen,
        finish: many::finish,
        tiles_at_once: 216,
        full_enough: 20,
    }),
};

/// Bytes ahead of the one in work that are asked for; measured: 0.5 to 4 kB do equally well.
const PREFETCH: usize = 2048;

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: the reference covers the 64 bytes that the load reads.
    unsafe { _mm512_loadu_si512(line.0.as_ptr().cast()) }
}
