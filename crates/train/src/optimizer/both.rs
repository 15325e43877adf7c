//! AdamW and Muon over the tensors of a model: the linear layers are Muon's where it is wanted, all else is AdamW's.

use kernels::gemm::Precision;

use super::{AdamW, AdamWOptions, Muon, MuonMatrix};
use crate::error::TrainError;
use crate::model::{Kind, Layout};
use crate::tensors::{Data, File, Tensor};

/// How far a step goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// AdamW's learning rate.
    pub(crate) adam: f32,
    /// Muon's.
    pub(crate) muon: f32,
    /// Muon's momentum.
    pub(crate) momentum: f32,
    /// Weight decay of matrices but the embedding.
    pub(crate) decay: f32,
}

/// What the optimizers remember.
#[derive(Debug)]
pub(crate) struct Optimizer {
    adam: AdamW,
    /// Muon's momentum; as long as the parameters, used where the linear layers are. Empty where Muon is not wanted.
    momentum: Vec<f32>,
    /// One for each thread.
    muon: Vec<Muon>,
}

impl Optimizer {
    /// For `len` parameters, before the first step.
    pub(crate) fn new(len: usize, options: AdamWOptions) -> Self {
        Self { adam: AdamW::new(len, options), momentum: Vec::new(), muon: Vec::new() }
    }

    /// The same with Muon, which multiplies in `precision` on `threads` threads.
    pub(crate) fn with_muon(mut self, threads: usize, precision: Precision) -> Self {
        self.momentum = vec![0.0; self.adam.mean.len()];
        self.muon = (0..threads.max(1)).map(|_| Muon::new(precision)).collect();
        self
    }

    /// AdamW's steps so far.
    pub(crate) fn steps(&self) -> u64 {
        self.adam.steps
    }

    /// A step of parameters that are no model's, by AdamW.
    pub(crate) fn step(&mut self, parameters: &mut [f32], d: &[f32], rates: Rates) {
        self.adam.begin_step();
        self.adam.update(0, parameters, d, rates.adam, rates.decay);
    }

    /// A step of the tensors of these kinds.
    pub(crate) fn step_model(
        &mut self,
        layout: &Layout,
        trained: &[Kind],
        parameters: &mut [f32],
        d: &[f32],
        rates: Rates,
    ) {
        self.adam.begin_step();
        let mut shares: Vec<Vec<MuonMatrix<'_>>> = self.muon.iter().map(|_| Vec::new()).collect();
        let (mut rest, mut momenta) = (parameters, &mut self.momentum[..]);
        let (mut at, mut matrices) = (0, 0);
        for tensor in &layout.tensors {
            let range = tensor.range.clone();
            let parameters;
            (parameters, rest) = rest[range.start - at..].split_at_mut(range.len());
            let momentum;
            (momentum, momenta) = match momenta.len() {
                0 => (&mut [][..], momenta),
                _ => momenta[range.start - at..].split_at_mut(range.len()),
            };
            at = range.end;
            if !trained.contains(&tensor.kind) {
                continue;
            }
            let derivative = &d[range.clone()];
            if tensor.kind == Kind::Linear && !shares.is_empty() {
                let share = matrices % shares.len();
                shares[share].push(MuonMatrix { parameters, momentum, derivative, cols: tensor.cols });
                matrices += 1;
            } else {
                let decay = if matches!(tensor.kind, Kind::Linear | Kind::Head) { rates.decay } else { 0.0 };
                self.adam.update(range.start, parameters, derivative, rates.adam, decay);
            }
        }
        let Rates { muon: rate, momentum, decay, .. } = rates;
        // Each matrix is one thread's: what comes out does not depend on their number.
        std::thread::scope(|scope| {
            for (muon, share) in self.muon.iter_mut().zip(shares) {
                let all = share.into_iter();
                scope.spawn(move || all.for_each(|matrix| muon.update(matrix, momentum, rate, decay)));
            }
        });
    }

    /// All that is remembered, for a checkpoint.
    pub(crate) fn views(&self) -> Vec<Tensor<'_>> {
        let memory = [
            ("adam.mean", &self.adam.mean),
            ("adam.square", &self.adam.square),
            ("momentum", &self.momentum),
        ];
        let some = memory.into_iter().filter(|(_, values)| !values.is_empty());
        some.map(|(name, values)| Tensor {
            name: name.to_owned(),
            shape: vec![values.len()],
            data: Data::F32(values),
        })
        .collect()
    }

    /// Takes up what a checkpoint remembers, after so many of AdamW's steps.
    ///
    /// # Errors
    /// A file without it, or with that of another model.
    pub(crate) fn read(&mut self, file: &File, steps: u64) -> Result<(), TrainError> {
        file.read("adam.mean", &mut self.adam.mean)?;
        file.read("adam.square", &mut self.adam.square)?;
        if !self.momentum.is_empty() {
            file.read("momentum", &mut self.momentum)?;
        }
        self.adam.steps = steps;
        Ok(())
    }
}
