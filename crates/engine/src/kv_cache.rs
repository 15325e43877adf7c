//! Keys and values of the positions that a sequence has seen.

use std::sync::Arc;

use kernels::attention::{CacheShape, CacheType, PAGE, Page};

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
        context.div_ceil(PAGE) * Page::bytes(self.into(), cache_shape(config), config.n_layers)
    }
}

impl From<KvType> for CacheType {
    fn from(kv_type: KvType) -> Self {
        match kv_type {
            KvType::F32 => Self::F32,
            KvType::F16 => Self::F16,
            KvType::I8 => Self::I8,
        }
    }
}

/// The heads of each layer's cache.
pub(crate) fn cache_shape(config: &ModelConfig) -> CacheShape {
    CacheShape { n_kv_heads: config.n_kv_heads, head_dim: config.head_dim }
}

/// Keys and values of one sequence, room for `context` positions. Pages may be shared with other sequences: one that is
/// written to is copied first.
#[derive(Debug)]
pub struct KvCache {
    kv_type: KvType,
    context: usize,
    position: usize,
    shape: CacheShape,
    n_layers: usize,
    /// The positions' pages in order; as many as are needed, or more.
    pages: Vec<Arc<Page>>,
    /// The model's adapter that the sequence runs with.
    adapter: Option<usize>,
}

impl KvCache {
    /// An empty cache that has all of its pages, so that none need be made while it fills.
    pub fn new(kv_type: KvType, context: usize, config: &ModelConfig) -> Self {
        let mut cache = Self::growing(kv_type, context, config);
        (0..context.div_ceil(PAGE)).for_each(|_| cache.add_page(None));
        cache
    }

    /// An empty cache without pages: they are made, or given, as positions come.
    pub(crate) fn growing(kv_type: KvType, context: usize, config: &ModelConfig) -> Self {
        let (shape, n_layers) = (cache_shape(config), config.n_layers);
        Self { kv_type, context, position: 0, shape, n_layers, pages: Vec::new(), adapter: None }
    }

    /// The same for a sequence that runs with an adapter of the model, by its index.
    pub(crate) fn with_adapter(self, adapter: Option<usize>) -> Self {
        Self { adapter, ..self }
    }

    /// The index of the adapter that its sequence runs with.
    pub(crate) fn adapter(&self) -> Option<usize> {
        self.adapter
    }

    /// Whether it was made for models of this shape.
    pub(crate) fn fits(&self, config: &ModelConfig) -> bool {
        self.shape == cache_shape(config) && self.n_layers == config.n_layers
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

    /// Its pages in the order of their positions.
    pub(crate) fn pages(&self) -> &[Arc<Page>] {
        &self.pages
    }

    /// Pages that it lacks for `tokens` more positions.
    pub(crate) fn lacks(&self, tokens: usize) -> usize {
        (self.position + tokens).div_ceil(PAGE).saturating_sub(self.pages.len())
    }

    /// Adds a page behind the others: this one, which nobody else has, or a new one.
    pub(crate) fn add_page(&mut self, page: Option<Arc<Page>>) {
        let new = || Arc::new(Page::new(self.kv_type.into(), self.shape, self.n_layers));
        self.pages.push(page.unwrap_or_else(new));
    }

    /// Adds a page that holds the next [`PAGE`] positions. The cache must hold whole pages, and no page without positions.
    pub(crate) fn adopt(&mut self, page: Arc<Page>) {
        self.pages.push(page);
        self.position += PAGE;
    }

    /// Takes the same positions from another page instead of its own; gives its own back.
    pub(crate) fn replace(&mut self, index: usize, page: Arc<Page>) -> Arc<Page> {
        std::mem::replace(&mut self.pages[index], page)
    }

    /// All pages, for others to use.
    pub(crate) fn into_pages(self) -> Vec<Arc<Page>> {
        self.pages
    }

    /// Writes to all of its memory, so that the system gives it now and not when it is used.
    pub(crate) fn touch(&mut self) {
        self.pages.iter_mut().filter_map(Arc::get_mut).for_each(Page::touch);
    }

    /// Says that `tokens` more positions, stored in every layer, are held now.
    pub(crate) fn extend(&mut self, tokens: usize) {
        self.position += tokens;
    }

    /// Stores keys and values, `[tokens, kv_dim]` each, of the tokens behind the positions that it holds.
    pub(crate) fn store(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let kv_dim = self.shape.n_kv_heads * self.shape.head_dim;
        let vectors = keys.chunks_exact(kv_dim).zip(values.chunks_exact(kv_dim));
        for (position, (key, value)) in (self.position..).zip(vectors) {
            while self.pages.len() <= position / PAGE {
                self.add_page(None);
            }
            Arc::make_mut(&mut self.pages[position / PAGE]).store(layer, position % PAGE, key, value);
        }
    }
}
