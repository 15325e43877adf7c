//! Where the time of the forward pass goes. Off unless asked for: then nothing looks at a clock.

use std::time::{Duration, Instant};

/// A part of the forward pass. The norm before a matrix, and the rounding of its input, count with the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Rows of the embedding, and the tables of RoPE.
    Embedding,
    /// Queries, keys and values.
    Qkv,
    /// Norms of heads, RoPE, storing keys and values.
    Rope,
    /// Scores, softmax and the sum of values.
    Attention,
    /// The output of the attention.
    Wo,
    /// Gate and up.
    GateUp,
    /// The non-linearity of the gate.
    Activation,
    /// Down.
    Down,
    /// The logits.
    Classifier,
}

impl Operation {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 9] = [
        Self::Embedding,
        Self::Qkv,
        Self::Rope,
        Self::Attention,
        Self::Wo,
        Self::GateUp,
        Self::Activation,
        Self::Down,
        Self::Classifier,
    ];

    /// A name for the user.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Qkv => "wq, wk, wv",
            Self::Rope => "rope, store",
            Self::Attention => "attention",
            Self::Wo => "wo",
            Self::GateUp => "w1, w3",
            Self::Activation => "activation",
            Self::Down => "w2",
            Self::Classifier => "classifier",
        }
    }
}

/// Time of each operation in each layer, added up over forward passes.
#[derive(Debug, Clone)]
pub struct Profile {
    passes: u32,
    last: Instant,
    /// `[n_layers + 1]`, the last for what stands outside the layers.
    times: Vec<[Duration; Operation::ALL.len()]>,
}

impl Profile {
    /// Nothing yet.
    pub(crate) fn new(n_layers: usize) -> Self {
        let none = [Duration::ZERO; Operation::ALL.len()];
        Self { passes: 0, last: Instant::now(), times: vec![none; n_layers + 1] }
    }

    /// A forward pass begins.
    pub(crate) fn start(&mut self) {
        self.passes += 1;
        self.last = Instant::now();
    }

    /// The time since the last call was that of `operation` in layer `layer`, or outside of them.
    pub(crate) fn lap(&mut self, layer: Option<usize>, operation: Operation) {
        let now = Instant::now();
        let outside = self.times.len() - 1;
        self.times[layer.unwrap_or(outside)][operation as usize] += now - self.last;
        self.last = now;
    }

    /// Forward passes.
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// Time of an operation over all layers, of one pass in the mean.
    pub fn operation(&self, operation: Operation) -> Duration {
        self.mean(self.times.iter().map(|times| times[operation as usize]).sum())
    }

    /// Time of each layer, of one pass in the mean.
    pub fn layers(&self) -> impl Iterator<Item = Duration> {
        let layers = self.times.len() - 1;
        self.times[..layers].iter().map(|times| self.mean(times.iter().sum()))
    }

    fn mean(&self, sum: Duration) -> Duration {
        sum.checked_div(self.passes).unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LoadOptions, Model};
    use crate::sequence::Sequence;

    #[test]
    fn operations_and_layers_add_up_to_the_same() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models/qwen2-tiny");
        let model = Model::load(&path, &LoadOptions { threads: Some(1), ..LoadOptions::default() }).unwrap();
        let mut sequence = Sequence::new(&model, 8).unwrap();
        sequence.forward(&[1]).unwrap();
        assert!(sequence.take_profile().is_none());
        sequence.start_profile();
        let logits = sequence.forward(&[2]).unwrap().to_vec();
        sequence.forward(&[3]).unwrap();
        let profile = sequence.take_profile().unwrap();
        assert_eq!(profile.passes(), 2);
        assert_eq!(profile.layers().count(), model.config.n_layers);
        assert!(Operation::ALL.map(|o| profile.operation(o)).iter().all(|time| !time.is_zero()));
        let outside = [Operation::Embedding, Operation::Classifier].map(|o| profile.operation(o));
        let layers = profile.layers().sum::<Duration>() + outside.iter().sum();
        let operations: Duration = Operation::ALL.iter().map(|&o| profile.operation(o)).sum();
        // Each mean is rounded down to a nanosecond.
        assert!(layers.abs_diff(operations) < Duration::from_nanos(32));
        sequence.truncate(1);
        assert_eq!(sequence.forward(&[2]).unwrap(), logits, "measuring changes nothing");
    }
}
