//! From logits to the next token.
//!
//! Order: penalties and bias on the logits, temperature, softmax, top-k, top-p, min-p, draw.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::batch::LogitsOf;
use crate::error::EngineError;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token always.
    pub temperature: f32,
    /// Only the k most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability (Holtzman et al., arXiv 1904.09751);
    /// 1 for all.
    pub top_p: f32,
    /// Only tokens at least this likely relative to the most likely one; 0 for all.
    pub min_p: f32,
    /// Divides the positive and multiplies the negative logits of tokens seen (Keskar et al., arXiv
    /// 1909.05858); 1 for none.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit as often as it was seen (OpenAI's).
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of each token seen (OpenAI's).
    pub presence_penalty: f32,
    /// How many of the last tokens the penalties look at.
    pub penalty_window: usize,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the draws: the same seed, model and prompt give the same text.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_window: 64,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// The logits that the choice needs: all only where a token may be chosen that the model finds unlikely.
    pub fn logits(&self) -> LogitsOf {
        let penalties = [self.frequency_penalty, self.presence_penalty, self.repetition_penalty - 1.0];
        let of_the_model = self.logit_bias.is_empty() && penalties.iter().all(|&p| p == 0.0);
        match self.temperature {
            _ if !of_the_model => LogitsOf::Last,
            0.0 => LogitsOf::Best,
            ..=1.0 => LogitsOf::Likely,
            _ => LogitsOf::Last,
        }
    }

    /// Refuses values that mean nothing, naming the parameter.
    pub fn check(&self, vocab_size: usize) -> Result<(), EngineError> {
        let ranges = [
            ("temperature", self.temperature, 0.0, 100.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("repetition_penalty", self.repetition_penalty, 0.01, 100.0),
            ("frequency_penalty", self.frequency_penalty, -100.0, 100.0),
            ("presence_penalty", self.presence_penalty, -100.0, 100.0),
        ];
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err(EngineError::Request(format!(
                    "{name} is {value}: it must lie in {low}..={high}"
                )));
            }
        }
        if let Some(&(id, _)) = self.logit_bias.iter().find(|(id, _)| *id as usize >= vocab_size) {
            return Err(EngineError::TokenId { id, vocab_size });
        }
        if let Some((id, bias)) = self.logit_bias.iter().find(|(_, bias)| !bias.is_finite()) {
            return Err(EngineError::Request(format!("logit_bias of token {id} is {bias}")));
        }
        Ok(())
    }
}

/// Chooses tokens; remembers those that it has seen.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
    seen: Vec<u32>,
    /// Logits after penalties and bias, `[vocab_size]`.
    logits: Vec<f32>,
    candidates: Vec<(u32, f32)>,
    /// How often each token of the penalties' window was seen.
    counts: HashMap<u32, u32>,
}

/// Tokens of a penalties' window that room is made for at the start; longer ones grow once they are that long.
const MAX_RESERVED: usize = 4096;

impl Sampler {
    /// A sampler for these parameters, which [`Sampling::check`] has accepted.
    pub fn new(sampling: Sampling) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        Self {
            counts: HashMap::with_capacity(sampling.penalty_window.min(MAX_RESERVED)),
            sampling,
            rng,
            seen: Vec::new(),
            logits: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// Makes room for `tokens` tokens of a vocabulary, so that neither [`Sampler::accept`] nor
    /// [`Sampler::sample`] allocates.
    pub fn reserve(&mut self, tokens: usize, vocab_size: usize) {
        self.seen.reserve(tokens);
        self.logits.reserve(vocab_size);
        self.candidates.reserve(vocab_size);
    }

    /// Tells the sampler of a token of the prompt or of one that it chose.
    pub fn accept(&mut self, id: u32) {
        self.seen.push(id);
    }

    /// Chooses the next token from finite `logits`, `[vocab_size]`.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        if self.is_greedy() && self.sampling.logit_bias.is_empty() && !self.penalizes() {
            return argmax(logits);
        }
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.penalize();
        self.choose()
    }

    /// The same among the tokens whose bit in `allowed` is set, 32 to a word, the lowest bit first; at least one must be.
    pub fn sample_allowed(&mut self, logits: &[f32], allowed: &[u32]) -> u32 {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.penalize();
        for (i, logits) in self.logits.chunks_mut(32).enumerate() {
            let word = allowed.get(i).copied().unwrap_or(0);
            if word != u32::MAX {
                let outside = logits.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                outside.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
            }
        }
        self.choose()
    }

    fn is_greedy(&self) -> bool {
        self.sampling.temperature == 0.0 || self.sampling.top_k == 1
    }

    fn penalizes(&self) -> bool {
        let s = &self.sampling;
        s.repetition_penalty != 1.0 || s.frequency_penalty != 0.0 || s.presence_penalty != 0.0
    }

    fn choose(&mut self) -> u32 {
        if self.is_greedy() {
            return argmax(&self.logits);
        }
        self.collect_candidates();
        self.draw()
    }

    fn penalize(&mut self) {
        let s = &self.sampling;
        for &(id, bias) in &s.logit_bias {
            self.logits[id as usize] += bias;
        }
        if !self.penalizes() {
            return;
        }
        let window = &self.seen[self.seen.len().saturating_sub(s.penalty_window)..];
        self.counts.clear();
        window.iter().for_each(|&id| *self.counts.entry(id).or_default() += 1);
        for (&id, &count) in &self.counts {
            if let Some(logit) = self.logits.get_mut(id as usize) {
                *logit =
                    if *logit > 0.0 { *logit / s.repetition_penalty } else { *logit * s.repetition_penalty };
                *logit -= count as f32 * s.frequency_penalty + s.presence_penalty;
            }
        }
    }

    /// Leaves the tokens that may be drawn with their probabilities (not yet normed) in `candidates`, most
    /// likely first unless all may be drawn.
    fn collect_candidates(&mut self) {
        let s = &self.sampling;
        let max = kernels::ops::max(&self.logits);
        self.candidates.clear();
        let all = self.logits.iter().enumerate();
        self.candidates.extend(all.map(|(id, &x)| (id as u32, ((x - max) / s.temperature).exp())));
        if s.top_p >= 1.0 && (s.top_k == 0 || s.top_k >= self.candidates.len()) {
            // All may be drawn, so their order does not matter, and sorting them would cost more than all else.
            self.candidates.retain(|c| c.1 >= s.min_p && c.1 > 0.0);
            return;
        }
        let total: f64 = self.candidates.iter().map(|c| f64::from(c.1)).sum();
        // Most likely first; equal ones by id, so that the order does not depend on the sorting algorithm.
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let mut total = total;
        if s.top_k > 0 && s.top_k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(s.top_k, order);
            self.candidates.truncate(s.top_k);
            total = self.candidates.iter().map(|c| f64::from(c.1)).sum();
        } else if s.top_p < 1.0 {
            // No token below this can be among those that reach top_p (llama2.c's cut-off).
            let floor = (f64::from(1.0 - s.top_p) / (self.candidates.len().max(2) - 1) as f64 * total) as f32;
            self.candidates.retain(|c| c.1 >= floor);
        }
        self.candidates.sort_unstable_by(order);
        let enough = f64::from(s.top_p) * total;
        let mut sum = 0.0;
        let nucleus = self.candidates.iter().position(|c| {
            sum += f64::from(c.1);
            sum >= enough
        });
        let kept = nucleus.map_or(self.candidates.len(), |i| i + 1);
        self.candidates.truncate(kept);
        let floor = self.candidates.first().map_or(0.0, |c| c.1 * s.min_p);
        self.candidates.retain(|c| c.1 >= floor && c.1 > 0.0);
    }

    fn draw(&mut self) -> u32 {
        let total: f64 = self.candidates.iter().map(|c| f64::from(c.1)).sum();
        // 53 random bits: uniform in [0, 1).
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = uniform * total;
        for &(id, p) in &self.candidates {
            left -= f64::from(p);
            if left < 0.0 {
                return id;
            }
        }
        self.candidates.last().map_or(0, |c| c.0)
    }
}

/// Index of the largest value, the first of equals.
pub fn argmax(logits: &[f32]) -> u32 {
    kernels::ops::argmax(logits) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(sampling: Sampling, logits: &[f32], n: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        (0..n).map(|_| sampler.sample(logits)).collect()
    }

    fn open() -> Sampling {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 7, ..Sampling::default() }
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let p = [0.5f32, 0.3, 0.15, 0.05];
        let logits = p.map(f32::ln);
        let drawn = draws(open(), &logits, 20_000);
        for (id, p) in p.iter().enumerate() {
            let share = drawn.iter().filter(|&&d| d == id as u32).count() as f32 / 20_000.0;
            assert!((share - p).abs() < 0.015, "{id}: {share} for {p}");
        }
    }

    #[test]
    fn filters_keep_what_they_should() {
        let logits = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln);
        let kept = |s: Sampling| {
            let mut ids = draws(s, &logits, 2000);
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        assert_eq!(kept(Sampling { top_k: 2, ..open() }), [0, 1]);
        assert_eq!(kept(Sampling { top_p: 0.79, ..open() }), [0, 1]);
        assert_eq!(kept(Sampling { top_p: 0.81, ..open() }), [0, 1, 2]);
        assert_eq!(kept(Sampling { min_p: 0.25, ..open() }), [0, 1, 2]);
        assert_eq!(kept(Sampling { top_p: 0.0, ..open() }), [0]);
        assert_eq!(kept(Sampling { temperature: 0.0, ..open() }), [0]);
        // A low temperature leaves the most likely token only.
        assert_eq!(kept(Sampling { temperature: 0.01, ..open() }), [0]);
        assert_eq!(kept(Sampling { logit_bias: vec![(3, 100.0)], ..open() }), [3]);
    }

    #[test]
    fn penalties_count() {
        let logits = [2.0, 1.9, -1.0];
        let next = |s: Sampling, seen: &[u32]| {
            let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..s });
            seen.iter().for_each(|&id| sampler.accept(id));
            sampler.sample(&logits)
        };
        assert_eq!(next(open(), &[0, 0]), 0);
        assert_eq!(next(Sampling { repetition_penalty: 1.1, ..open() }, &[0]), 1);
        assert_eq!(next(Sampling { presence_penalty: 0.2, ..open() }, &[0]), 1);
        assert_eq!(next(Sampling { frequency_penalty: 0.06, ..open() }, &[0]), 0);
        assert_eq!(next(Sampling { frequency_penalty: 0.06, ..open() }, &[0, 0]), 1);
        assert_eq!(next(Sampling { presence_penalty: 0.2, penalty_window: 1, ..open() }, &[0, 1]), 0);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
        assert_eq!(draws(open(), &logits, 50), draws(open(), &logits, 50));
        assert_ne!(draws(open(), &logits, 50), draws(Sampling { seed: 8, ..open() }, &logits, 50));
    }

    #[test]
    fn wrong_parameters_are_named() {
        for (sampling, name) in [
            (Sampling { temperature: -1.0, ..open() }, "temperature"),
            (Sampling { temperature: f32::NAN, ..open() }, "temperature"),
            (Sampling { top_p: 1.5, ..open() }, "top_p"),
            (Sampling { logit_bias: vec![(9, 1.0)], ..open() }, "token id 9"),
        ] {
            let error = sampling.check(4).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
