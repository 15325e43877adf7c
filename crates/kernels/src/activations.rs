//! The input of a matrix product in the forms that rows of different types want: f32, int8 in blocks of 32,
//! or int8 with one scale per token.

use crate::dispatch::vector_ops;
use crate::ops::rms_norm_rows;
use crate::threads::{Shared, Team};
use crate::trits::TritInput;

/// Weights or activations that share a scale in the blocked int8 form.
pub const BLOCK: usize = 32;

/// What the activations are turned into before they meet a weight row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActivationForm {
    /// As they are; the row is dequantized. The truth for every type.
    F32,
    /// int8, one f32 scale (absmax / 127) per 32: for rows with their own scales per group.
    Int8Block,
    /// int8, one scale per token as in BitNet b1.58: s = 127 / max(absmax, 1e-5), round half to even. The
    /// product with a ternary row is then a sum of integers.
    Int8Token,
}

/// `tokens` rows of `cols` activations, with the int8 forms computed at most once each.
#[derive(Debug, Default)]
pub struct Activations {
    tokens: usize,
    cols: usize,
    has_block: bool,
    has_token: bool,
    f32: Vec<f32>,
    block: Int8,
    token: Int8,
    trits: TritInput,
}

/// int8 activations: value = q * scale of its block (every block of a token has the same scale in the
/// token-wise form).
#[derive(Debug, Default)]
pub(crate) struct Int8 {
    /// `[tokens, cols]`
    pub(crate) q: Vec<i8>,
    /// `[tokens, ceil(cols / 32)]`
    pub(crate) scale: Vec<f32>,
    /// Sum of q times scale per 16, `[tokens, 2 * ceil(cols / 32)]`: what the offsets of rows with groups of 16
    /// are multiplied with.
    pub(crate) sum16: Vec<f32>,
    /// The same per 32, `[tokens, ceil(cols / 32)]`.
    pub(crate) sum32: Vec<f32>,
    /// Sum of q per 16, `[tokens, 2 * ceil(cols / 32)]`.
    pub(crate) integers: Vec<i32>,
}

/// Where the int8 form of one token goes: see [`Int8`], without the tokens.
pub(crate) struct Rounded<'a> {
    pub(crate) q: &'a mut [i8],
    pub(crate) scale: &'a mut [f32],
    pub(crate) sum16: &'a mut [f32],
    pub(crate) sum32: &'a mut [f32],
    pub(crate) integers: &'a mut [i32],
}

impl Activations {
    /// Makes room for `tokens` rows of up to `cols`, so that no later input allocates.
    pub fn reserve(&mut self, tokens: usize, cols: usize) {
        self.f32.reserve(tokens * cols);
        for form in [&mut self.block, &mut self.token] {
            let blocks = tokens * cols.div_ceil(BLOCK);
            form.q.reserve(tokens * cols);
            form.scale.reserve(blocks);
            form.sum16.reserve(2 * blocks);
            form.sum32.reserve(blocks);
            form.integers.reserve(2 * blocks);
        }
    }

    /// Takes `x`, shape `[tokens, cols]`, as the new input; the int8 forms of the former one are forgotten.
    pub fn load(&mut self, x: &[f32], tokens: usize, cols: usize) {
        debug_assert_eq!(x.len(), tokens * cols);
        self.tokens = tokens;
        self.cols = cols;
        self.has_block = false;
        self.has_token = false;
        self.f32.clear();
        self.f32.extend_from_slice(x);
    }

    /// Takes the norms ([`crate::ops::rms_norm`]) of the rows of `x`, shape `[tokens, cols]`, as the new input.
    ///
    /// # Panics
    /// When lengths do not fit.
    pub fn load_normed(&mut self, team: &Team, x: &[f32], cols: usize, weight: Option<&[f32]>, eps: f32) {
        self.tokens = x.len() / cols;
        self.cols = cols;
        self.has_block = false;
        self.has_token = false;
        // Not cleared first: every element is written.
        self.f32.resize(x.len(), 0.0);
        rms_norm_rows(team, x, cols, weight, eps, &mut self.f32);
    }

    /// Replaces the input by what its token-wise int8 form stands for, so that the f32 path computes BitNet's
    /// quantized activations too.
    pub fn round_to_int8_token(&mut self) {
        self.ensure(ActivationForm::Int8Token);
        let blocks = self.blocks();
        for (t, row) in self.f32.chunks_exact_mut(self.cols.max(1)).enumerate() {
            let scale = self.token.scale[t * blocks];
            for (x, &q) in row.iter_mut().zip(&self.token.q[t * self.cols..]) {
                *x = f32::from(q) * scale;
            }
        }
        self.has_block = false;
    }

    /// Computes a form if it is not there yet.
    pub fn ensure(&mut self, form: ActivationForm) {
        self.ensure_by(None, form);
    }

    /// [`Activations::ensure`], tokens shared among the team.
    pub fn ensure_on(&mut self, team: &Team, form: ActivationForm) {
        self.ensure_by(Some(team), form);
    }

    fn ensure_by(&mut self, team: Option<&Team>, form: ActivationForm) {
        match form {
            ActivationForm::F32 => {}
            ActivationForm::Int8Block if !self.has_block => {
                self.block.quantize(team, &self.f32, self.tokens, self.cols, form);
                self.has_block = true;
            }
            ActivationForm::Int8Token if !self.has_token => {
                self.token.quantize(team, &self.f32, self.tokens, self.cols, form);
                self.has_token = true;
            }
            ActivationForm::Int8Block | ActivationForm::Int8Token => {}
        }
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Length of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The f32 form, `[tokens, cols]`.
    pub fn f32(&self) -> &[f32] {
        &self.f32
    }

    pub(crate) fn int8(&self, form: ActivationForm) -> &Int8 {
        if form == ActivationForm::Int8Token { &self.token } else { &self.block }
    }

    /// What ternary tiles have made of the token-wise int8 form.
    pub(crate) fn trits(&self) -> &TritInput {
        &self.trits
    }

    /// The same to be filled, with the int8 form.
    pub(crate) fn trits_mut(&mut self) -> (&mut TritInput, &Int8) {
        (&mut self.trits, &self.token)
    }

    pub(crate) fn blocks(&self) -> usize {
        self.cols.div_ceil(BLOCK)
    }
}

/// What rounding an element costs beside a multiply-add of a matrix product.
const QUANTIZE_WORK: usize = 2;

impl Int8 {
    fn quantize(&mut self, team: Option<&Team>, x: &[f32], tokens: usize, cols: usize, form: ActivationForm) {
        let blocks = cols.div_ceil(BLOCK);
        self.q.resize(tokens * cols, 0);
        self.scale.resize(tokens * blocks, 0.0);
        self.sum16.resize(tokens * blocks * 2, 0.0);
        self.sum32.resize(tokens * blocks, 0.0);
        self.integers.resize(tokens * blocks * 2, 0);
        let by_token = form == ActivationForm::Int8Token;
        let (q, scale) = (Shared::new(&mut self.q), Shared::new(&mut self.scale));
        let (sum16, sum32) = (Shared::new(&mut self.sum16), Shared::new(&mut self.sum32));
        let integers = Shared::new(&mut self.integers);
        let row = |t: usize| {
            let (x, of_blocks) = (&x[t * cols..][..cols], t * blocks..(t + 1) * blocks);
            let halves = 2 * of_blocks.start..2 * of_blocks.end;
            // SAFETY: each token is taken once, and the rows of tokens do not overlap.
            let out = unsafe {
                Rounded {
                    q: q.slice(t * cols..(t + 1) * cols),
                    scale: scale.slice(of_blocks.clone()),
                    sum16: sum16.slice(halves.clone()),
                    sum32: sum32.slice(of_blocks),
                    integers: integers.slice(halves),
                }
            };
            // SAFETY: `vector_ops()` gives only functions that this processor can run.
            unsafe { (vector_ops().quantize)(x, by_token, out) };
        };
        match team {
            Some(team) => team.split(tokens, 1, x.len() * QUANTIZE_WORK, &|tokens| tokens.for_each(row)),
            None => (0..tokens).for_each(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_form_follows_bitnet() {
        let mut a = Activations::default();
        a.load(&[1.0, -2.0, 0.5, 4.0, 0.0, 0.0, 0.0, 0.0], 2, 4);
        a.ensure(ActivationForm::Int8Token);
        // 127 / 4 = 31.75: 31.75, -63.5 (half to even: -64), 15.875, 127
        assert_eq!(a.token.q, [32, -64, 16, 127, 0, 0, 0, 0]);
        assert_eq!(a.token.scale[0], 1.0 / (127.0f32 / 4.0));
    }

    #[test]
    fn block_form_is_within_half_a_step() {
        let x: Vec<f32> = (0..100).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.1).collect();
        let mut a = Activations::default();
        a.load(&x, 1, 100);
        a.ensure(ActivationForm::Int8Block);
        for (i, x) in x.iter().enumerate() {
            let scale = a.block.scale[i / BLOCK];
            assert!((f32::from(a.block.q[i]) * scale - x).abs() <= scale * 0.5001);
        }
    }

    #[test]
    fn hostile_values_do_not_panic() {
        let mut a = Activations::default();
        a.load(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-45, 0.0], 1, 6);
        a.ensure(ActivationForm::Int8Block);
        a.ensure(ActivationForm::Int8Token);
        a.round_to_int8_token();
    }
}
