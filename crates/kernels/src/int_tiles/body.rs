//! The product of one tile with all tokens, written once over [`Codes`] and compiled for each instruction set.
//!
//! For each row and token the blocks are added in their order, one fused multiply-add for each scale and each thing added,
//! whatever the batch: no bit depends on it.

use super::input::{GROUP, IntBlock, IntGroup, IntInput};
use super::layout::{IntTile, SUPER_BLOCK, Scaling, TILE_ROWS, Width};
use crate::trits::{LINE, Line};
use crate::vector::Vector;

/// A line of codes in registers: four neighbouring columns of each of 16 rows. The methods are always inlined into
/// functions compiled for the instruction set.
pub(crate) trait Codes: Copy {
    /// Floats of 16 rows.
    type Floats: Vector;
    /// 32-bit sums of 16 rows.
    type Sums: Copy;
    /// The code that 8-bit codes, which are unsigned in memory, are multiplied as if it were 0.
    const ZERO_OF_EIGHT: i32;

    fn load(line: &Line) -> Self;
    fn store(self, line: &mut Line);
    /// Those bits of every byte.
    fn and(self, mask: u8) -> Self;
    fn or(self, other: Self) -> Self;
    /// Shifted left; into the lower bits of a byte may come what was its neighbour's.
    fn left<const N: i32>(self) -> Self;
    /// Shifted right; likewise into the upper bits.
    fn right<const N: i32>(self) -> Self;
    fn splat(sum: i32) -> Self::Sums;
    /// Adds to each row's sums, one a token, the products of its codes in four lines with that half of the token's
    /// activations. Codes have `BITS` bits.
    fn add_dots<const BITS: u32, const T: usize>(
        sums: &mut [Self::Sums; T],
        codes: &[Self; 4],
        x: &[[i8; 32]; T],
        half: usize,
    );
    fn to_floats(sums: Self::Sums) -> Self::Floats;
    /// Asks for what lies a little behind the line.
    fn prefetch(line: &Line);
}

/// What a width is made of, as a constant.
pub(crate) trait Bits {
    const WIDTH: Width;
    const BITS: u32;
    /// Whether the lines are those of the tile, which come from far away.
    const STORED: bool = true;
    /// The codes of a block's first and second 16 columns. `lines` are those of the block.
    fn decode<C: Codes>(lines: &[Line]) -> [[C; 4]; 2];
}

pub(crate) struct Four;
pub(crate) struct Five;
pub(crate) struct Six;
pub(crate) struct Eight;

impl Bits for Four {
    const WIDTH: Width = Width::Four;
    const BITS: u32 = 4;

    #[inline(always)]
    fn decode<C: Codes>(lines: &[Line]) -> [[C; 4]; 2] {
        let v = [C::load(&lines[0]), C::load(&lines[1]), C::load(&lines[2]), C::load(&lines[3])];
        [
            [v[0].and(15), v[1].and(15), v[2].and(15), v[3].and(15)],
            [
                v[0].right::<4>().and(15),
                v[1].right::<4>().and(15),
                v[2].right::<4>().and(15),
                v[3].right::<4>().and(15),
            ],
        ]
    }
}

impl Bits for Five {
    const WIDTH: Width = Width::Five;
    const BITS: u32 = 5;

    #[inline(always)]
    fn decode<C: Codes>(lines: &[Line]) -> [[C; 4]; 2] {
        let [low, high] = Four::decode::<C>(lines);
        let fifth = C::load(&lines[4]);
        [
            [
                low[0].or(fifth.left::<4>().and(16)),
                low[1].or(fifth.left::<3>().and(16)),
                low[2].or(fifth.left::<2>().and(16)),
                low[3].or(fifth.left::<1>().and(16)),
            ],
            [
                high[0].or(fifth.and(16)),
                high[1].or(fifth.right::<1>().and(16)),
                high[2].or(fifth.right::<2>().and(16)),
                high[3].or(fifth.right::<3>().and(16)),
            ],
        ]
    }
}

impl Bits for Six {
    const WIDTH: Width = Width::Six;
    const BITS: u32 = 6;

    #[inline(always)]
    fn decode<C: Codes>(lines: &[Line]) -> [[C; 4]; 2] {
        let [low, high] = Four::decode::<C>(lines);
        [with_upper_two(low, C::load(&lines[4])), with_upper_two(high, C::load(&lines[5]))]
    }
}

#[inline(always)]
fn with_upper_two<C: Codes>(codes: [C; 4], upper: C) -> [C; 4] {
    [
        codes[0].or(upper.left::<4>().and(48)),
        codes[1].or(upper.left::<2>().and(48)),
        codes[2].or(upper.and(48)),
        codes[3].or(upper.right::<2>().and(48)),
    ]
}

impl Bits for Eight {
    const WIDTH: Width = Width::Eight;
    const BITS: u32 = 8;

    #[inline(always)]
    fn decode<C: Codes>(lines: &[Line]) -> [[C; 4]; 2] {
        let load = [
            C::load(&lines[0]),
            C::load(&lines[1]),
            C::load(&lines[2]),
            C::load(&lines[3]),
            C::load(&lines[4]),
            C::load(&lines[5]),
            C::load(&lines[6]),
            C::load(&lines[7]),
        ];
        [[load[0], load[1], load[2], load[3]], [load[4], load[5], load[6], load[7]]]
    }
}

/// A tile against all tokens, at most `T` at a time. Tokens that are taken all at once meet the codes as they are stored;
/// otherwise the tile is decoded once, into `codes`.
#[inline(always)]
pub(crate) fn int_tile<C: Codes, const T: usize>(
    tile: &IntTile<'_>,
    input: IntInput<'_>,
    codes: &mut Vec<[Line; 8]>,
    out: &mut [[f32; TILE_ROWS]],
) {
    use Scaling::{Affine, Plain, Super, SuperHalves};
    const PLAIN: u8 = Plain as u8;
    const AFFINE: u8 = Affine as u8;
    const SUPER: u8 = Super as u8;
    const SUPER_HALVES: u8 = SuperHalves as u8;
    match (tile.shape.width, tile.shape.scaling) {
        (Width::Four, Plain) => all_tokens::<C, Four, PLAIN, T>(tile, input, codes, out),
        (Width::Four, Affine) => all_tokens::<C, Four, AFFINE, T>(tile, input, codes, out),
        (Width::Four, _) => all_tokens::<C, Four, SUPER, T>(tile, input, codes, out),
        (Width::Five, Plain) => all_tokens::<C, Five, PLAIN, T>(tile, input, codes, out),
        (Width::Five, Affine) => all_tokens::<C, Five, AFFINE, T>(tile, input, codes, out),
        (Width::Five, _) => all_tokens::<C, Five, SUPER, T>(tile, input, codes, out),
        (Width::Six, _) => all_tokens::<C, Six, SUPER_HALVES, T>(tile, input, codes, out),
        (Width::Eight, _) => all_tokens::<C, Eight, PLAIN, T>(tile, input, codes, out),
    }
}

#[inline(always)]
fn all_tokens<C: Codes, B: Bits, const SCALING: u8, const T: usize>(
    tile: &IntTile<'_>,
    input: IntInput<'_>,
    codes: &mut Vec<[Line; 8]>,
    out: &mut [[f32; TILE_ROWS]],
) {
    let blocks = tile.scales.len();
    let at_once = input.tokens == T || input.tokens == 1;
    if at_once && let Some(group) = input.groups(blocks).next() {
        return group_of_tokens::<C, B, SCALING, T>(tile, tile.lines, group, out);
    }
    let codes = if B::BITS == 8 {
        tile.lines
    } else {
        codes.resize(blocks.max(codes.len()), [Line([0; LINE]); 8]);
        let codes = &mut codes[..blocks];
        for (lines, codes) in tile.lines.chunks_exact(B::WIDTH.lines()).zip(codes.iter_mut()) {
            for line in lines {
                C::prefetch(line);
            }
            let [low, high] = B::decode::<C>(lines);
            for i in 0..4 {
                low[i].store(&mut codes[i]);
                high[i].store(&mut codes[4 + i]);
            }
        }
        codes.as_flattened()
    };
    // Decoded codes lie as those of eight bits do, but keep the bits that they have.
    for (group, out) in input.groups(blocks).zip(out.chunks_mut(GROUP)) {
        group_of_tokens::<C, Decoded<B>, SCALING, T>(tile, codes, group, out);
    }
}

/// A group of tokens against the codes in `lines`.
#[inline(always)]
fn group_of_tokens<C: Codes, B: Bits, const SCALING: u8, const T: usize>(
    tile: &IntTile<'_>,
    lines: &[Line],
    group: IntGroup<'_>,
    out: &mut [[f32; TILE_ROWS]],
) {
    let mut t = 0;
    while t + T <= out.len() {
        let sums = tokens::<C, B, SCALING, T>(tile, lines, group, t);
        out[t..t + T].copy_from_slice(&sums);
        t += T;
    }
    while T > 2 && t + 2 <= out.len() {
        let sums = tokens::<C, B, SCALING, 2>(tile, lines, group, t);
        out[t..t + 2].copy_from_slice(&sums);
        t += 2;
    }
    if t < out.len() {
        [out[t]] = tokens::<C, B, SCALING, 1>(tile, lines, group, t);
    }
}

/// Codes of a width that have been decoded.
struct Decoded<B>(std::marker::PhantomData<B>);

impl<B: Bits> Bits for Decoded<B> {
    const WIDTH: Width = Width::Eight;
    const BITS: u32 = B::BITS;
    const STORED: bool = false;

    #[inline(always)]
    fn decode<C: Codes>(lines: &[Line]) -> [[C; 4]; 2] {
        Eight::decode(lines)
    }
}

/// A block's scale, for both of its halves, and what is added.
#[inline(always)]
fn factors<V: Vector, const SCALING: u8>(tile: &IntTile<'_>, b: usize) -> ([V; 2], V) {
    let scale = &tile.scales[b];
    if SCALING == Scaling::Plain as u8 {
        let scale = V::load_f16(&scale.0);
        ([scale, scale], V::splat(0.0))
    } else if SCALING == Scaling::Affine as u8 {
        let (scale, added) = (V::load_f16(&scale.0), V::load_f16(&tile.extras[b].0));
        ([scale, scale], added)
    } else if SCALING == Scaling::Super as u8 {
        let (bytes, at) = (scale.bytes(), b / SUPER_BLOCK * 2);
        let factor = V::load_f16(&tile.extras[at].0).mul(V::load_i8(&bytes[0]));
        ([factor, factor], V::load_f16(&tile.extras[at + 1].0).mul(V::load_i8(&bytes[1])))
    } else {
        let (bytes, factor) = (scale.bytes(), V::load_f16(&tile.extras[b / SUPER_BLOCK].0));
        ([factor.mul(V::load_i8(&bytes[0])), factor.mul(V::load_i8(&bytes[1]))], V::splat(0.0))
    }
}

/// `T` tokens of a group, from `first` on, against the codes in `lines`.
#[inline(always)]
fn tokens<C: Codes, B: Bits, const SCALING: u8, const T: usize>(
    tile: &IntTile<'_>,
    lines: &[Line],
    group: IntGroup<'_>,
    first: usize,
) -> [[f32; TILE_ROWS]; T] {
    let by_halves = SCALING == Scaling::SuperHalves as u8;
    let adds = SCALING == Scaling::Affine as u8 || SCALING == Scaling::Super as u8;
    // What is left to subtract of a code of 0.
    let zero = if B::BITS == 8 { tile.shape.zero - C::ZERO_OF_EIGHT } else { tile.shape.zero };
    let mut sums = [C::Floats::splat(0.0); T];
    for (b, lines) in lines.chunks_exact(B::WIDTH.lines()).enumerate() {
        if B::STORED {
            for line in lines {
                C::prefetch(line);
            }
        }
        // Tokens stand beside each other: one address, and every other one a constant away from it.
        let Some(IntBlock { x, integers, scale: x_scale, scaled_sum }) = group.block::<T>(b, first) else {
            break;
        };
        let codes = B::decode::<C>(lines);
        let (scales, added) = factors::<C::Floats, SCALING>(tile, b);
        if by_halves {
            for (half, codes) in codes.iter().enumerate() {
                let mut dots = [C::splat(0); T];
                for t in 0..T {
                    dots[t] = C::splat(-zero * integers[t][half]);
                }
                dots_of_half::<C, B, T>(&mut dots, codes, x, half);
                for t in 0..T {
                    sums[t] = add(sums[t], C::to_floats(dots[t]), scales[half], x_scale[t]);
                }
            }
        } else {
            let mut dots = [C::splat(0); T];
            for t in 0..T {
                dots[t] = C::splat(-zero * (integers[t][0] + integers[t][1]));
            }
            for (half, codes) in codes.iter().enumerate() {
                dots_of_half::<C, B, T>(&mut dots, codes, x, half);
            }
            for t in 0..T {
                sums[t] = add(sums[t], C::to_floats(dots[t]), scales[0], x_scale[t]);
                if adds {
                    sums[t] = added.mul_add(C::Floats::splat(scaled_sum[t]), sums[t]);
                }
            }
        }
    }
    let mut out = [[0.0; TILE_ROWS]; T];
    for t in 0..T {
        sums[t].store(&mut out[t]);
    }
    out
}

#[inline(always)]
fn dots_of_half<C: Codes, B: Bits, const T: usize>(
    dots: &mut [C::Sums; T],
    codes: &[C; 4],
    x: &[[i8; 32]; T],
    half: usize,
) {
    match B::BITS {
        4 => C::add_dots::<4, T>(dots, codes, x, half),
        5 => C::add_dots::<5, T>(dots, codes, x, half),
        6 => C::add_dots::<6, T>(dots, codes, x, half),
        _ => C::add_dots::<8, T>(dots, codes, x, half),
    }
}

/// Four neighbouring activations of a half block.
#[inline(always)]
pub(crate) fn four(x: &[i8; 32], half: usize, i: usize) -> i32 {
    i32::from_le_bytes(x.as_chunks::<4>().0[4 * half + i].map(|x| x as u8))
}

/// `sums + dots * (w_scale * x_scale)`
#[inline(always)]
fn add<V: Vector>(sums: V, dots: V, w_scale: V, x_scale: f32) -> V {
    dots.mul_add(w_scale.mul(V::splat(x_scale)), sums)
}
