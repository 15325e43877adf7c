//! Keys and values of the positions that a sequence has seen.

use kernels::attention::{CacheShape, Cached, CachedMut, PAGE};

use crate::config::ModelConfig;

/// How cached keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// 4 bytes an element, exact.
    F32,
    /// 2 bytes an element.
    #[default]
    F16,
    /// 1 byte an element and a scale per head and position.
    I8,
}

impl KvType {
    /// Bytes of the keys and values of `context` positions over all layers.
    pub fn bytes(self, config: &ModelConfig, context: usize) -> usize {
        let shape = cache_shape(config);
        let elements = shape.page_keys() + shape.page_values();
        let page = match self {
            Self::F32 => elements * 4,
            Self::F16 => elements * 2,
            Self::I8 => elements + 2 * shape.page_scales() * 4,
        };
        context.div_ceil(PAGE) * config.n_layers * page
    }
}

/// The heads of each layer's cache.
pub(crate) fn cache_shape(config: &ModelConfig) -> CacheShape {
    CacheShape { n_kv_heads: config.n_kv_heads, head_dim: config.head_dim }
}

/// The pages of one layer.
#[derive(Debug)]
enum Store {
    F32 { keys: Vec<f32>, values: Vec<f32> },
    F16 { keys: Vec<u16>, values: Vec<u16> },
    I8 { keys: Vec<i8>, key_scales: Vec<f32>, values: Vec<i8>, value_scales: Vec<f32> },
}

impl Store {
    /// Zeroed; the system gives such memory only when it is written, so an unused context costs nothing.
    fn new(kv_type: KvType, pages: usize, shape: CacheShape) -> Self {
        let (keys, values) = (pages * shape.page_keys(), pages * shape.page_values());
        match kv_type {
            KvType::F32 => Self::F32 { keys: vec![0.0; keys], values: vec![0.0; values] },
            KvType::F16 => Self::F16 { keys: vec![0; keys], values: vec![0; values] },
            KvType::I8 => {
                let scales = pages * shape.page_scales();
                Self::I8 {
                    keys: vec![0; keys],
                    key_scales: vec![0.0; scales],
                    values: vec![0; values],
                    value_scales: vec![0.0; scales],
                }
            }
        }
    }

    fn view(&self) -> Cached<'_> {
        match self {
            Self::F32 { keys, values } => Cached::F32 { keys, values },
            Self::F16 { keys, values } => Cached::F16 { keys, values },
            Self::I8 { keys, key_scales, values, value_scales } => {
                Cached::I8 { keys, key_scales, values, value_scales }
            }
        }
    }

    fn view_mut(&mut self) -> CachedMut<'_> {
        match self {
            Self::F32 { keys, values } => CachedMut::F32 { keys, values },
            Self::F16 { keys, values } => CachedMut::F16 { keys, values },
            Self::I8 { keys, key_scales, values, value_scales } => {
                CachedMut::I8 { keys, key_scales, values, value_scales }
            }
        }
    }
}

/// Keys and values of one sequence, room for `context` positions.
#[derive(Debug)]
pub struct KvCache {
    context: usize,
    position: usize,
    shape: CacheShape,
    /// Which pages of each layer hold the positions, in order: here simply one after another.
    pages: Vec<u32>,
    layers: Vec<Store>,
}

impl KvCache {
    /// An empty cache.
    pub fn new(kv_type: KvType, context: usize, config: &ModelConfig) -> Self {
        let (shape, pages) = (cache_shape(config), context.div_ceil(PAGE));
        Self {
            context,
            position: 0,
            shape,
            pages: (0..pages as u32).collect(),
            layers: (0..config.n_layers).map(|_| Store::new(kv_type, pages, shape)).collect(),
        }
    }

    /// Whether it was made for models of this shape.
    pub(crate) fn fits(&self, config: &ModelConfig) -> bool {
        self.shape == cache_shape(config) && self.layers.len() == config.n_layers
    }

    /// Positions that it has room for.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Positions that it holds: tokens seen so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Forgets everything from `position` on.
    pub fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Writes to all of its memory, so that the system gives it now and not when it is used.
    pub(crate) fn touch(&mut self) {
        for store in &mut self.layers {
            match store.view_mut() {
                CachedMut::F32 { keys, values } => [keys, values].into_iter().for_each(|x| x.fill(0.0)),
                CachedMut::F16 { keys, values } => [keys, values].into_iter().for_each(|x| x.fill(0)),
                CachedMut::I8 { keys, key_scales, values, value_scales } => {
                    [keys, values].into_iter().for_each(|x| x.fill(0));
                    [key_scales, value_scales].into_iter().for_each(|x| x.fill(0.0));
                }
            }
        }
    }

    /// Says that `tokens` more positions, stored in every layer, are held now.
    pub(crate) fn extend(&mut self, tokens: usize) {
        self.position += tokens;
    }

    /// Stores keys and values, `[tokens, kv_dim]` each, of the tokens behind the positions that it holds.
    pub(crate) fn store(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let kv_dim = self.shape.n_kv_heads * self.shape.head_dim;
        let mut cached = self.layers[layer].view_mut();
        let vectors = keys.chunks_exact(kv_dim).zip(values.chunks_exact(kv_dim));
        for (position, (key, value)) in (self.position..).zip(vectors) {
            let page = self.pages[position / PAGE] as usize;
            cached.store(self.shape, page, position % PAGE, key, value);
        }
    }

    /// What is stored of a layer, and in which pages.
    pub(crate) fn layer(&self, layer: usize) -> (Cached<'_>, &[u32]) {
        (self.layers[layer].view(), &self.pages)
    }
}
