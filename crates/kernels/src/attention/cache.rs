//! Keys and values in memory.
//!
//! Positions are kept in pages of [`PAGE`], and a sequence has a list of the pages that hold its positions in
//! order: pages may lie anywhere and may be shared by sequences. In a layer of a page each head's keys stand
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
    /// Elements of the keys of one layer of a page.
    pub fn page_keys(self) -> usize {
        self.n_kv_heads * self.head_dim * PAGE
    }

    /// Elements of the values of one layer of a page.
    pub fn page_values(self) -> usize {
        self.n_kv_heads * self.width() * PAGE
    }

    /// Scales of the keys, or of the values, of one layer of a page of int8.
    pub fn page_scales(self) -> usize {
        self.n_kv_heads * PAGE
    }

    /// Length of a head's values as stored.
    pub(crate) fn width(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheType {
    /// As computed.
    F32,
    /// Rounded to half precision.
    F16,
    /// int8 with one scale per position and head.
    I8,
}

/// Keys and values of [`PAGE`] positions in all layers, layer after layer.
#[derive(Debug, Clone)]
pub struct Page {
    shape: CacheShape,
    n_layers: usize,
    store: Store,
}

#[derive(Debug, Clone)]
enum Store {
    F32 { keys: Vec<f32>, values: Vec<f32> },
    F16 { keys: Vec<u16>, values: Vec<u16> },
    I8 { keys: Vec<i8>, key_scales: Vec<f32>, values: Vec<i8>, value_scales: Vec<f32> },
}

/// One layer of a page, to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cached<'a> {
    F32 {
        keys: &'a [f32],
        values: &'a [f32],
    },
    /// Bits of IEEE binary16.
    F16 {
        keys: &'a [u16],
        values: &'a [u16],
    },
    /// Scales are `[n_kv_heads, PAGE]`.
    I8 {
        keys: &'a [i8],
        key_scales: &'a [f32],
        values: &'a [i8],
        value_scales: &'a [f32],
    },
}

impl Page {
    /// A page without positions: zeros, for which the system gives memory only when it is written.
    pub fn new(cache_type: CacheType, shape: CacheShape, n_layers: usize) -> Self {
        let (keys, values) = (n_layers * shape.page_keys(), n_layers * shape.page_values());
        let store = match cache_type {
            CacheType::F32 => Store::F32 { keys: vec![0.0; keys], values: vec![0.0; values] },
            CacheType::F16 => Store::F16 { keys: vec![0; keys], values: vec![0; values] },
            CacheType::I8 => {
                let scales = n_layers * shape.page_scales();
                Store::I8 {
                    keys: vec![0; keys],
                    key_scales: vec![0.0; scales],
                    values: vec![0; values],
                    value_scales: vec![0.0; scales],
                }
            }
        };
        Self { shape, n_layers, store }
    }

    /// Bytes of a page.
    pub fn bytes(cache_type: CacheType, shape: CacheShape, n_layers: usize) -> usize {
        let elements = shape.page_keys() + shape.page_values();
        n_layers
            * match cache_type {
                CacheType::F32 => elements * 4,
                CacheType::F16 => elements * 2,
                CacheType::I8 => elements + 2 * shape.page_scales() * 4,
            }
    }

    /// The heads of its layers.
    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Its layers.
    pub fn n_layers(&self) -> usize {
        self.n_layers
    }

    /// Writes to all of its memory, so that the system gives it now and not when it is used.
    pub fn touch(&mut self) {
        match &mut self.store {
            Store::F32 { keys, values } => [keys, values].into_iter().for_each(|x| x.fill(0.0)),
            Store::F16 { keys, values } => [keys, values].into_iter().for_each(|x| x.fill(0)),
            Store::I8 { keys, key_scales, values, value_scales } => {
                [keys, values].into_iter().for_each(|x| x.fill(0));
                [key_scales, value_scales].into_iter().for_each(|x| x.fill(0.0));
            }
        }
    }

    /// One layer.
    pub(crate) fn layer(&self, layer: usize) -> Cached<'_> {
        let (k, v, s) = (self.shape.page_keys(), self.shape.page_values(), self.shape.page_scales());
        let (k, v, s) = (layer * k..(layer + 1) * k, layer * v..(layer + 1) * v, layer * s..(layer + 1) * s);
        match &self.store {
            Store::F32 { keys, values } => Cached::F32 { keys: &keys[k], values: &values[v] },
            Store::F16 { keys, values } => Cached::F16 { keys: &keys[k], values: &values[v] },
            Store::I8 { keys, key_scales, values, value_scales } => Cached::I8 {
                keys: &keys[k],
                key_scales: &key_scales[s.clone()],
                values: &values[v],
                value_scales: &value_scales[s],
            },
        }
    }

    /// Stores one position's `key` and `value`, `[n_kv_heads, head_dim]` each, at place `slot` (below
    /// [`PAGE`]) of a layer.
    ///
    /// # Panics
    /// When the layer or the slot does not exist.
    pub fn store(&mut self, layer: usize, slot: usize, key: &[f32], value: &[f32]) {
        assert!(slot < PAGE, "a page has {PAGE} positions");
        let shape = self.shape;
        let (head_dim, width) = (shape.head_dim, shape.width());
        let heads = key.chunks_exact(head_dim).zip(value.chunks_exact(head_dim)).enumerate();
        for (head, (key, value)) in heads {
            let key_at = layer * shape.page_keys() + head * head_dim * PAGE + slot;
            let value_at = layer * shape.page_values() + (head * PAGE + slot) * width;
            let scale_at = layer * shape.page_scales() + head * PAGE + slot;
            match &mut self.store {
                Store::F32 { keys, values } => {
                    scatter(key, &mut keys[key_at..]);
                    values[value_at..][..head_dim].copy_from_slice(value);
                }
                Store::F16 { keys, values } => {
                    for (i, key) in key.chunks(LANES).enumerate() {
                        let mut half = [0; LANES];
                        to_f16(key, &mut half[..key.len()]);
                        scatter(&half[..key.len()], &mut keys[key_at + i * LANES * PAGE..]);
                    }
                    to_f16(value, &mut values[value_at..][..head_dim]);
                }
                Store::I8 { keys, key_scales, values, value_scales } => {
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
