//! Low-rank adapters (LoRA: Hu et al., arXiv 2106.09685): `W x + alpha / r B (A x)`.

use std::ops::Range;

use super::layout::{Id, Kind, Layout};

/// The two matrices beside one frozen matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Adapter {
    /// Name of the frozen matrix without `.weight`.
    pub(crate) name: String,
    /// `[rank, cols]`, where it lies among all adapters' values.
    pub(crate) a: Range<usize>,
    /// `[rows, rank]`
    pub(crate) b: Range<usize>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// Adapters of one rank beside some of a model's linear layers; their values lie in one vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapters {
    /// Columns of B, rows of A.
    pub rank: usize,
    /// Factor on what an adapter adds: alpha over the rank.
    pub scale: f32,
    /// For each tensor of the model.
    of_tensor: Vec<Option<Adapter>>,
    len: usize,
}

impl Adapters {
    /// Adapters beside all linear layers whose name ends with one of `targets` (`q_proj`, ...), as PEFT's
    /// `target_modules`.
    pub fn new(layout: &Layout, rank: usize, alpha: f32, targets: &[String]) -> Self {
        let mut len = 0;
        let of_tensor = layout.tensors.iter().map(|tensor| {
            let name = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
            let module = name.rsplit('.').next().unwrap_or(name);
            let wanted = tensor.kind == Kind::Linear && targets.iter().any(|target| target == module);
            wanted.then(|| {
                let (a, b) = (len, len + rank * tensor.cols);
                len = b + tensor.rows * rank;
                Adapter { name: name.to_owned(), a: a..b, b: b..len, rows: tensor.rows, cols: tensor.cols }
            })
        });
        let of_tensor = of_tensor.collect();
        Self { rank, scale: alpha / rank.max(1) as f32, of_tensor, len }
    }

    /// Whether a layer whose name ends with `target` has an adapter.
    pub(crate) fn has(&self, target: &str) -> bool {
        self.targets().iter().any(|known| known == target)
    }

    /// The last parts of the adapted layers' names, each once: `q_proj`, ...
    pub(crate) fn targets(&self) -> Vec<String> {
        let modules = self.of_tensor.iter().flatten().filter_map(|a| a.name.rsplit('.').next());
        let mut targets: Vec<String> = modules.map(str::to_owned).collect();
        targets.sort_unstable();
        targets.dedup();
        targets
    }

    /// Number of values of all adapters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no layer has an adapter.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Name in the model's own terms, rows, columns and place of each matrix:
    /// `model.layers.0.self_attn.q_proj.lora_A.weight`, ...
    pub fn tensors(&self) -> impl Iterator<Item = (String, usize, usize, Range<usize>)> + '_ {
        self.of_tensor.iter().flatten().flat_map(|adapter| {
            let name = |part: &str| format!("{}.{part}.weight", adapter.name);
            [
                (name("lora_A"), self.rank, adapter.cols, adapter.a.clone()),
                (name("lora_B"), adapter.rows, self.rank, adapter.b.clone()),
            ]
        })
    }

    pub(crate) fn of(&self, id: Id) -> Option<&Adapter> {
        self.of_tensor.get(id)?.as_ref()
    }

    /// Adds what each adapter adds to its frozen matrix: the model without adapters then gives the same logits.
    pub fn merge(&self, values: &[f32], layout: &Layout, parameters: &mut [f32]) {
        for (tensor, adapter) in layout.tensors.iter().zip(&self.of_tensor) {
            let Some(adapter) = adapter else { continue };
            let (a, b) = (&values[adapter.a.clone()], &values[adapter.b.clone()]);
            let rows = parameters[tensor.range.clone()].chunks_exact_mut(tensor.cols);
            for (w, b) in rows.zip(b.chunks_exact(self.rank)) {
                for (&b, a) in b.iter().zip(a.chunks_exact(tensor.cols)) {
                    w.iter_mut().zip(a).for_each(|(w, a)| *w += self.scale * b * a);
                }
            }
        }
    }
}
