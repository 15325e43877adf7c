//! Keys and values of the positions that a sequence has seen.

use kernels::attention::{Cached, CachedMut};

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
    /// Bytes of one position's keys and values over all layers.
    pub fn bytes_per_position(self, config: &ModelConfig) -> usize {
        let per_vector = match self {
            Self::F32 => config.kv_dim() * 4,
            Self::F16 => config.kv_dim() * 2,
            Self::I8 => config.kv_dim() + config.n_kv_heads * 4,
        };
        2 * config.n_layers * per_vector
    }
}

/// One stored vector per position: `[positions, kv_dim]`.
#[derive(Debug)]
enum Store {
    F32(Vec<f32>),
    F16(Vec<u16>),
    I8(Vec<i8>, Vec<f32>),
}

impl Store {
    /// Zeroed; the system gives such memory only when it is written, so an unused context costs nothing.
    fn new(kv_type: KvType, positions: usize, config: &ModelConfig) -> Self {
        let len = positions * config.kv_dim();
        match kv_type {
            KvType::F32 => Self::F32(vec![0.0; len]),
            KvType::F16 => Self::F16(vec![0; len]),
            KvType::I8 => Self::I8(vec![0; len], vec![0.0; positions * config.n_kv_heads]),
        }
    }

    fn view(&self) -> Cached<'_> {
        match self {
            Self::F32(x) => Cached::F32(x),
            Self::F16(x) => Cached::F16(x),
            Self::I8(x, scales) => Cached::I8(x, scales),
        }
    }

    fn view_mut(&mut self) -> CachedMut<'_> {
        match self {
            Self::F32(x) => CachedMut::F32(x),
            Self::F16(x) => CachedMut::F16(x),
            Self::I8(x, scales) => CachedMut::I8(x, scales),
        }
    }
}

/// Keys and values of one sequence, room for `context` positions.
#[derive(Debug)]
pub struct KvCache {
    context: usize,
    head_dim: usize,
    kv_dim: usize,
    keys: Vec<Store>,
    values: Vec<Store>,
}

impl KvCache {
    /// An empty cache.
    pub fn new(kv_type: KvType, context: usize, config: &ModelConfig) -> Self {
        let store = || (0..config.n_layers).map(|_| Store::new(kv_type, context, config)).collect();
        Self { context, head_dim: config.head_dim, kv_dim: config.kv_dim(), keys: store(), values: store() }
    }

    /// Positions that it has room for.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Stores keys and values, `[tokens, kv_dim]` each, of the tokens from `position` on.
    pub(crate) fn store(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        for (cache, vectors) in [(&mut self.keys[layer], keys), (&mut self.values[layer], values)] {
            let mut cache = cache.view_mut();
            for (t, vector) in vectors.chunks_exact(self.kv_dim).enumerate() {
                cache.store(position + t, self.head_dim, vector);
            }
        }
    }

    pub(crate) fn layer(&self, layer: usize) -> (Cached<'_>, Cached<'_>) {
        (self.keys[layer].view(), self.values[layer].view())
    }
}
