//! Activations as tiles of codes meet them: of a block, what all tokens of a group have stands together, so that a loop
//! over blocks walks through one place of memory and not through as many as there are tokens.

use std::ops::Range;

use crate::activations::{BLOCK, Int8};
use crate::threads::{Shared, Team};

/// Tokens of a group; the last may have fewer.
pub(crate) const GROUP: usize = 8;

/// What copying an activation costs beside a multiply-add of a matrix product.
const COPY_WORK: usize = 2;

/// int8 activations with a scale per block, `[groups, blocks, tokens of the group]`.
#[derive(Clone, Copy)]
pub(crate) struct IntInput<'a> {
    pub(crate) tokens: usize,
    q: &'a [[i8; BLOCK]],
    scale: &'a [f32],
    /// Sums of q of each half block.
    integers: &'a [[i32; 2]],
    /// Sums of q of each block times the scale.
    scaled_sum: &'a [f32],
}

/// A group of tokens, `[blocks, tokens]`.
#[derive(Clone, Copy)]
pub(crate) struct IntGroup<'a>(IntInput<'a>);

/// What `T` neighbouring tokens of a group have of a block.
pub(crate) struct IntBlock<'a, const T: usize> {
    pub(crate) x: &'a [[i8; BLOCK]; T],
    pub(crate) integers: &'a [[i32; 2]; T],
    pub(crate) scale: &'a [f32; T],
    pub(crate) scaled_sum: &'a [f32; T],
}

impl<'a> IntInput<'a> {
    fn part(&self, tokens: usize, range: Range<usize>) -> Self {
        Self {
            tokens,
            q: &self.q[range.clone()],
            scale: &self.scale[range.clone()],
            integers: &self.integers[range.clone()],
            scaled_sum: &self.scaled_sum[range],
        }
    }

    /// The groups of tokens whose rows have `blocks` blocks.
    #[inline(always)]
    pub(crate) fn groups(self, blocks: usize) -> impl Iterator<Item = IntGroup<'a>> {
        (0..self.tokens).step_by(GROUP).map(move |first| {
            let n = GROUP.min(self.tokens - first);
            IntGroup(self.part(n, first * blocks..(first + n) * blocks))
        })
    }
}

impl<'a> IntGroup<'a> {
    /// Block `b` of the tokens from `first` on; `None` outside the group.
    #[inline(always)]
    pub(crate) fn block<const T: usize>(&self, b: usize, first: usize) -> Option<IntBlock<'a, T>> {
        let IntInput { tokens, q, scale, integers, scaled_sum } = self.0;
        let at = b * tokens + first;
        Some(IntBlock {
            x: q.get(at..at + T)?.first_chunk()?,
            integers: integers.get(at..at + T)?.first_chunk()?,
            scale: scale.get(at..at + T)?.first_chunk()?,
            scaled_sum: scaled_sum.get(at..at + T)?.first_chunk()?,
        })
    }
}

/// Buffers for activations in groups.
#[derive(Default)]
pub(super) struct Grouped {
    q: Vec<[i8; BLOCK]>,
    scale: Vec<f32>,
    integers: Vec<[i32; 2]>,
    scaled_sum: Vec<f32>,
}

impl Grouped {
    /// `int8` in groups. A single token is one as it is.
    pub(super) fn arrange<'a>(&'a mut self, team: &Team, int8: &'a Int8, tokens: usize) -> IntInput<'a> {
        let as_they_are = IntInput {
            tokens,
            q: int8.q.as_chunks().0,
            scale: &int8.scale,
            integers: int8.integers.as_chunks().0,
            scaled_sum: &int8.sum32,
        };
        if tokens <= 1 {
            return as_they_are;
        }
        let from = as_they_are;
        let all = from.q.len();
        let blocks = all / tokens;
        self.q.resize(all, [0; BLOCK]);
        self.scale.resize(all, 0.0);
        self.integers.resize(all, [0; 2]);
        self.scaled_sum.resize(all, 0.0);
        let (q, scale) = (Shared::new(&mut self.q[..all]), Shared::new(&mut self.scale[..all]));
        let integers = Shared::new(&mut self.integers[..all]);
        let scaled_sum = Shared::new(&mut self.scaled_sum[..all]);
        team.for_each(tokens.div_ceil(GROUP), all * BLOCK * COPY_WORK, &|group| {
            let first = group * GROUP;
            let n = GROUP.min(tokens - first);
            let range = first * blocks..(first + n) * blocks;
            // SAFETY: each group is taken once, and groups do not overlap.
            let (q, scale, integers, scaled_sum) = unsafe {
                let integers = integers.slice(range.clone());
                (q.slice(range.clone()), scale.slice(range.clone()), integers, scaled_sum.slice(range))
            };
            for b in 0..blocks {
                for t in 0..n {
                    let (to, at) = (b * n + t, (first + t) * blocks + b);
                    q[to] = from.q[at];
                    scale[to] = from.scale[at];
                    integers[to] = from.integers[at];
                    scaled_sum[to] = from.scaled_sum[at];
                }
            }
        });
        IntInput {
            tokens,
            q: &self.q[..all],
            scale: &self.scale[..all],
            integers: &self.integers[..all],
            scaled_sum: &self.scaled_sum[..all],
        }
    }
}
