//! The residual stream behind each layer, for those who compare models. Off unless asked for.

/// Hidden states of the last batch that was run.
#[derive(Debug, Clone)]
pub struct HiddenStates {
    dim: usize,
    /// `[tokens, dim]` of each layer.
    layers: Vec<Vec<f32>>,
}

impl HiddenStates {
    pub(crate) fn new(n_layers: usize, dim: usize) -> Self {
        Self { dim, layers: vec![Vec::new(); n_layers] }
    }

    /// Keeps the residual stream `x`, `[tokens, dim]`, behind a layer.
    pub(crate) fn record(&mut self, layer: usize, x: &[f32]) {
        self.layers[layer].clear();
        self.layers[layer].extend_from_slice(x);
    }

    /// The state of each token, `[dim]`, behind layer `layer`; none of a layer that does not exist.
    pub fn layer(&self, layer: usize) -> impl Iterator<Item = &[f32]> {
        self.layers.get(layer).map_or(&[][..], Vec::as_slice).chunks_exact(self.dim)
    }
}
