//! From blocks to rows: the loops that all block types share.

use super::UnpackedRow;
use crate::row::RowType;

/// What the integers of a block are multiplied with and moved by: `value = q * scale + offset` of its group. The
/// offsets of a type without them are zeros that nobody reads.
#[derive(Clone, Copy)]
pub(super) struct Groups<const GROUPS: usize> {
    pub(super) scale: [f32; GROUPS],
    pub(super) offset: [f32; GROUPS],
}

impl<const GROUPS: usize> Groups<GROUPS> {
    #[inline(always)]
    pub(super) fn scaled(scale: [f32; GROUPS]) -> Self {
        Self { scale, offset: [0.0; GROUPS] }
    }

    #[inline(always)]
    pub(super) fn affine(scale: [f32; GROUPS], offset: [f32; GROUPS]) -> Self {
        Self { scale, offset }
    }
}

/// A block type: `BYTES` bytes that hold `WEIGHTS` weights in `GROUPS` groups.
///
/// The constants stand on the trait, and `unpack` is `inline(always)` in every type, so that nothing of a row's
/// loop is left to a call: code inlined into a `#[target_feature]` caller is compiled for its instruction set, a
/// function that stays by itself is not.
pub(super) trait Block<const BYTES: usize, const WEIGHTS: usize, const GROUPS: usize> {
    /// The type of the rows that are made of such blocks.
    const ROW_TYPE: RowType;

    /// The block's integers, and what they are multiplied with.
    fn unpack(block: &[u8; BYTES], q: &mut [i8; WEIGHTS]) -> Groups<GROUPS>;
}

/// Unpacks all blocks of a row into `out`, which has been shaped for it.
#[inline(always)]
pub(super) fn unpack_blocks<B, const BYTES: usize, const WEIGHTS: usize, const GROUPS: usize>(
    bytes: &[u8],
    out: &mut UnpackedRow,
) where
    B: Block<BYTES, WEIGHTS, GROUPS>,
{
    const { assert_sizes::<B, BYTES, WEIGHTS, GROUPS>() };
    let (q, q_tail) = out.q.as_chunks_mut::<WEIGHTS>();
    let (scale, scale_tail) = out.scale.as_chunks_mut::<GROUPS>();
    let blocks = bytes.as_chunks::<BYTES>().0;
    if B::ROW_TYPE.takes_any_width()
        && let (Some(last), false) = (blocks.last(), q_tail.is_empty())
    {
        let mut filled = [0; WEIGHTS];
        let groups = B::unpack(last, &mut filled);
        q_tail.copy_from_slice(&filled[..q_tail.len()]);
        // One scale too many for half a block: with it the tail is a whole block's.
        match scale_tail.len() {
            0 => scale.last_mut().map_or((), |scale| *scale = groups.scale),
            n => scale_tail.copy_from_slice(&groups.scale[..n]),
        }
    }
    if B::ROW_TYPE.has_offset() {
        let offset = out.offset.as_chunks_mut::<GROUPS>().0;
        for (((bytes, q), scale), offset) in blocks.iter().zip(q).zip(scale).zip(offset) {
            let groups = B::unpack(bytes, q);
            *scale = groups.scale;
            *offset = groups.offset;
        }
    } else {
        for ((bytes, q), scale) in blocks.iter().zip(q).zip(scale) {
            *scale = B::unpack(bytes, q).scale;
        }
    }
}

/// Blocks that [`dequantize_blocks`] unpacks before it multiplies them out. Between the two loops the integers
/// lie in memory: the compiler does not take the bytes apart again that were put together in registers.
const RUN: usize = 4;

/// Writes the values of all blocks of a row.
#[inline(always)]
pub(super) fn dequantize_blocks<B, const BYTES: usize, const WEIGHTS: usize, const GROUPS: usize>(
    bytes: &[u8],
    out: &mut [f32],
) where
    B: Block<BYTES, WEIGHTS, GROUPS>,
{
    const { assert_sizes::<B, BYTES, WEIGHTS, GROUPS>() };
    let blocks = bytes.as_chunks::<BYTES>().0;
    let (out, tail) = out.as_chunks_mut::<WEIGHTS>();
    if B::ROW_TYPE.takes_any_width()
        && let (Some(last), false) = (blocks.last(), tail.is_empty())
    {
        let (mut q, mut filled) = ([0; WEIGHTS], [0.0; WEIGHTS]);
        let groups = B::unpack(last, &mut q);
        multiply_out(&q, &groups, false, &mut filled);
        tail.copy_from_slice(&filled[..tail.len()]);
    }
    let mut run = [([0; WEIGHTS], Groups::scaled([0.0; GROUPS])); RUN];
    for (blocks, out) in blocks.chunks(RUN).zip(out.chunks_mut(RUN)) {
        for (bytes, (q, groups)) in blocks.iter().zip(&mut run) {
            *groups = B::unpack(bytes, q);
        }
        for (out, (q, groups)) in out.iter_mut().zip(&run) {
            multiply_out(q, groups, B::ROW_TYPE.has_offset(), out);
        }
    }
}

/// In the reference's order of operations: a product, then, for types with offsets, a sum.
#[inline(always)]
fn multiply_out<const WEIGHTS: usize, const GROUPS: usize>(
    q: &[i8; WEIGHTS],
    groups: &Groups<GROUPS>,
    has_offset: bool,
    out: &mut [f32; WEIGHTS],
) {
    let group = WEIGHTS / GROUPS;
    let of_group = groups.scale.into_iter().zip(groups.offset);
    for ((out, q), (scale, offset)) in out.chunks_exact_mut(group).zip(q.chunks_exact(group)).zip(of_group) {
        for (out, &q) in out.iter_mut().zip(q) {
            let value = scale * f32::from(q);
            *out = if has_offset { value + offset } else { value };
        }
    }
}

/// A block's sizes are those that its row type promises.
const fn assert_sizes<B, const BYTES: usize, const WEIGHTS: usize, const GROUPS: usize>()
where
    B: Block<BYTES, WEIGHTS, GROUPS>,
{
    let (weights, bytes) = B::ROW_TYPE.block();
    assert!(weights == WEIGHTS && bytes == BYTES);
    assert!(B::ROW_TYPE.group(weights) * GROUPS == WEIGHTS);
}

/// Quantizes all blocks of a row.
pub(super) fn quantize_blocks<const BYTES: usize, const WEIGHTS: usize>(
    row: &[f32],
    out: &mut [u8],
    block: impl Fn(&[f32; WEIGHTS], &mut [u8; BYTES]),
) {
    for (row, out) in row.as_chunks::<WEIGHTS>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        block(row, out);
    }
}

/// The `N` bytes of a block from byte `START`; out of the block is a compile error.
#[inline(always)]
pub(super) fn part<const START: usize, const N: usize, const BYTES: usize>(block: &[u8; BYTES]) -> &[u8; N] {
    const { assert!(START + N <= BYTES) };
    let mut part = &[0; N];
    if let Some(bytes) = block[START..].first_chunk() {
        part = bytes;
    }
    part
}

/// Largest absolute value; NaN counts as nothing.
pub(super) fn abs_max(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0, |max, w| w.abs().max(max))
}

/// `1 / scale`, or 0 for a scale of 0, as ggml's quantizers have it.
pub(super) fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}
