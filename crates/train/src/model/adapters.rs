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
    /// The part of an adapter's inputs that it is not shown while it is trained.
    pub dropout: f32,
    /// For each tensor of the model.
    of_tensor: Vec<Option<Adapter>>,
    len: usize,
}

/// Which inputs of adapters are left out: the same whenever a part of a pass is computed anew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropout {
    /// The part that is left out.
    pub(crate) rate: f32,
    /// Decides which.
    pub(crate) seed: u64,
    /// Number of the first token in its batch: who computes it does not matter.
    pub(crate) first: usize,
}

impl Dropout {
    /// Leaves out elements of `x`, `[tokens, cols]`, the input of adapter `id` or its derivative; the others grow to make up
    /// for them.
    pub(crate) fn apply(&self, id: Id, cols: usize, x: &mut [f32]) {
        let least = (f64::from(self.rate) * 65_536.0) as u64;
        let factor = 1.0 / (1.0 - self.rate);
        for (token, row) in x.chunks_exact_mut(cols).enumerate() {
            let mut state = self.seed ^ (id as u64) << 40 ^ (self.first + token) as u64;
            for four in row.chunks_mut(4) {
                let mut bits = split_mix(&mut state);
                for x in four {
                    *x = if bits & 0xffff < least { 0.0 } else { *x * factor };
                    bits >>= 16;
                }
            }
        }
    }
}

/// The next number of SplitMix64 (Steele, Lea and Flood, 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
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
        Self { rank, scale: alpha / rank.max(1) as f32, dropout: 0.0, of_tensor, len }
    }

    /// The last parts of the names of all layers that can have an adapter, each once.
    pub fn possible(layout: &Layout) -> Vec<String> {
        let linear = layout.tensors.iter().filter(|tensor| tensor.kind == Kind::Linear);
        let modules = linear.filter_map(|tensor| tensor.name.strip_suffix(".weight")?.rsplit('.').next());
        let mut modules: Vec<String> = modules.map(str::to_owned).collect();
        modules.sort_unstable();
        modules.dedup();
        modules
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
