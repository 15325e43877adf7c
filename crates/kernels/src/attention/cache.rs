//! Keys and values of one layer in memory.
//!
//! Positions are kept in pages of [`PAGE`], and a sequence has a table of the pages that hold its positions in
//! order: pages may lie anywhere in a pool and may be shared by sequences. In a page each head's keys stand
//! with the positions side by side, `[n_kv_heads, head_dim, PAGE]`, so that a vector of scores grows by one
//! element of the query at a time, and its values with the elements side by side,
//! `[n_kv_heads, PAGE, width]`, the width being head_dim filled up with zeros to whole vectors.

use crate::dispatch::vector_ops;
use crate::vector::LANES;

/// Positions of a page.
pub const PAGE: usize = 64;

/// The heads of a layer's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Key and value heads a position.
    pub n_kv_heads: usize,
    /// Length of a head.
    pub head_dim: usize,
}

impl CacheShape {
    /// Elements of the keys of one page.
    pub fn page_keys(self) -> usize {
        self.n_kv_heads * self.head_dim * PAGE
    }

    /// Elements of the values of one page.
    pub fn page_values(self) -> usize {
        self.n_kv_heads * self.width() * PAGE
    }

    /// Scales of the keys, or of the values, of one page of int8.
    pub fn page_scales(self) -> usize {
        self.n_kv_heads * PAGE
    }

    /// Length of a head's values as stored.
    pub(crate) fn width(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }
}

/// The pages of one layer, to be read.
#[derive(Debug, Clone, Copy)]
pub enum Cached<'a> {
    /// As computed.
    F32 {
        /// Keys of all pages.
        keys: &'a [f32],
        /// Values of all pages.
        values: &'a [f32],
    },
    /// Rounded to half precision (bits of IEEE binary16).
    F16 {
        /// Keys of all pages.
        keys: &'a [u16],
        /// Values of all pages.
        values: &'a [u16],
    },
    /// int8 with one scale per position and head.
    I8 {
        /// Keys of all pages.
        keys: &'a [i8],
        /// Their scales, `[pages, n_kv_heads, PAGE]`.
        key_scales: &'a [f32],
        /// Values of all pages.
        values: &'a [i8],
        /// Their scales, `[pages, n_kv_heads, PAGE]`.
        value_scales: &'a [f32],
    },
}

/// The same, to be written.
#[derive(Debug)]
pub enum CachedMut<'a> {
    /// See [`Cached::F32`].
    F32 {
        /// Keys of all pages.
        keys: &'a mut [f32],
        /// Values of all pages.
        values: &'a mut [f32],
    },
    /// See [`Cached::F16`].
    F16 {
        /// Keys of all pages.
        keys: &'a mut [u16],
        /// Values of all pages.
        values: &'a mut [u16],
    },
    /// See [`Cached::I8`].
    I8 {
        /// Keys of all pages.
        keys: &'a mut [i8],
        /// Their scales.
        key_scales: &'a mut [f32],
        /// Values of all pages.
        values: &'a mut [i8],
        /// Their scales.
        value_scales: &'a mut [f32],
    },
}

impl CachedMut<'_> {
    /// Stores one position's `key` and `value`, `[n_kv_heads, head_dim]` each, at place `slot` (below
    /// [`PAGE`]) of a page.
    ///
    /// # Panics
    /// When the page or the slot does not exist.
    pub fn store(&mut self, shape: CacheShape, page: usize, slot: usize, key: &[f32], value: &[f32]) {
        assert!(slot < PAGE, "a page has {PAGE} positions");
        let (head_dim, width) = (shape.head_dim, shape.width());
        let heads = key.chunks_exact(head_dim).zip(value.chunks_exact(head_dim)).enumerate();
        for (head, (key, value)) in heads {
            let key_at = page * shape.page_keys() + head * head_dim * PAGE + slot;
            let value_at = page * shape.page_values() + (head * PAGE + slot) * width;
            let scale_at = page * shape.page_scales() + head * PAGE + slot;
            match self {
                Self::F32 { keys, values } => {
                    scatter(key, &mut keys[key_at..]);
                    values[value_at..][..head_dim].copy_from_slice(value);
                }
                Self::F16 { keys, values } => {
                    for (i, key) in key.chunks(LANES).enumerate() {
                        let mut half = [0; LANES];
                        to_f16(key, &mut half[..key.len()]);
                        scatter(&half[..key.len()], &mut keys[key_at + i * LANES * PAGE..]);
                    }
                    to_f16(value, &mut values[value_at..][..head_dim]);
                }
                Self::I8 { keys, key_scales, values, value_scales } => {
                    let scale = absmax(key) / 127.0;
                    key_scales[scale_at] = scale;
                    for (i, key) in key.chunks(LANES).enumerate() {
                        let mut rounded = [0; LANES];
                        to_i8(key, scale, &mut rounded[..key.len()]);
                        scatter(&rounded[..key.len()], &mut keys[key_at + i * LANES * PAGE..]);
                    }
                    let scale = absmax(value) / 127.0;
                    value_scales[scale_at] = scale;
                    to_i8(value, scale, &mut values[value_at..][..head_dim]);
                }
            }
        }
    }
}

fn to_f16(x: &[f32], out: &mut [u16]) {
    // SAFETY: `vector_ops()` gives only functions that this processor can run.
    unsafe { (vector_ops().to_f16)(x, out) }
}

fn absmax(x: &[f32]) -> f32 {
    // SAFETY: as above.
    unsafe { (vector_ops().absmax)(x) }
}

fn to_i8(x: &[f32], scale: f32, out: &mut [i8]) {
    // SAFETY: as above.
    unsafe { (vector_ops().to_i8)(x, scale, out) }
}

/// Writes `x` down a column of the keys: one element each [`PAGE`].
fn scatter<T: Copy>(x: &[T], keys: &mut [T]) {
    for (&x, key) in x.iter().zip(keys.iter_mut().step_by(PAGE)) {
        *key = x;
    }
}
