//! A model that becomes ternary beside the model that it was: what tells them apart, and its derivatives.

use super::elementwise::dot;
use super::frozen::Parameters;
use super::groups::{Planes, mix};
use super::layout::Kind;
use super::linear::Weights;
use super::pass::{Batch, Network, Wanted};

/// What a student is compared with, and how ternary it is.
#[derive(Debug, Clone, Copy)]
pub struct Lesson<'a> {
    /// The teacher's parameters: a model of the same shape.
    pub teacher: Parameters<'a>,
    /// The planes that a linear layer of the student is rounded to.
    pub planes: Planes,
    /// How much of the rounding the student's linear layers have: 0 none, 1 all.
    pub share: f32,
    /// How much [`Distance::hidden`] counts beside the divergence.
    pub hidden: f32,
    /// Whether embedding and classifier have derivatives, too.
    pub embedding: bool,
}

/// How far a student is from its teacher, means of all positions by their weights.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Distance {
    /// The student's own loss, in nats.
    pub nll: f64,
    /// Divergence of its predictions from the teacher's, KL(teacher, student), in nats.
    pub kl: f64,
    /// Square of the difference of the residual streams over the square of the teacher's, the mean of all layers.
    pub hidden: f64,
}

impl Distance {
    /// What is minimized.
    pub fn loss(&self, lesson: &Lesson<'_>) -> f64 {
        self.kl + f64::from(lesson.hidden) * self.hidden
    }
}

impl std::ops::AddAssign for Distance {
    fn add_assign(&mut self, other: Self) {
        self.nll += other.nll;
        self.kl += other.kl;
        self.hidden += other.hidden;
    }
}

impl std::ops::Mul<f64> for Distance {
    type Output = Self;

    fn mul(self, by: f64) -> Self {
        Self { nll: self.nll * by, kl: self.kl * by, hidden: self.hidden * by }
    }
}

/// What a pass knows of the teacher.
#[derive(Clone, Copy)]
pub(crate) struct Teacher<'a> {
    pub(crate) weights: Weights<'a>,
    /// As in [`Lesson`].
    pub(crate) hidden: f32,
    pub(crate) embedding: bool,
}

/// Room for what a teacher says.
#[derive(Debug, Default)]
pub(crate) struct TeacherRoom {
    /// As a worker's own.
    pub(crate) stream: Vec<Vec<f32>>,
    pub(crate) normed: Vec<f32>,
    pub(crate) logits: Vec<f32>,
    /// `[vocab_size]`
    pub(crate) probabilities: Vec<f32>,
}

impl Network {
    /// How far a student, whose linear layers are rounded to ternary groups as the lesson says, is from its teacher; `d`
    /// becomes the derivatives of [`Distance::loss`]; those of embedding and classifier are 0 unless they are wanted.
    ///
    /// # Panics
    /// When parameters or derivatives have another length than the layout says, or a token is outside the vocabulary.
    pub fn distill(
        &mut self,
        student: &[f32],
        lesson: &Lesson<'_>,
        batch: &Batch,
        d: Option<&mut [f32]>,
    ) -> Distance {
        assert_eq!(student.len(), self.layout().len(), "parameters of another model");
        let mut rounded = std::mem::take(&mut self.rounded);
        rounded.resize(student.len(), 0.0);
        for tensor in &self.layout().tensors {
            let (from, to) = (&student[tensor.range.clone()], &mut rounded[tensor.range.clone()]);
            match tensor.kind {
                Kind::Linear => mix(lesson.planes, from, tensor.cols, lesson.share, to),
                Kind::Embedding | Kind::Norm | Kind::Head => to.copy_from_slice(from),
            }
        }
        let wanted = d.map_or(Wanted::Loss, Wanted::Model);
        let distance = self.pass(Parameters::Floats(&rounded), None, Some(lesson), batch, wanted);
        self.rounded = rounded;
        distance
    }
}

/// Sum of `weight |x - y|^2 / |y|^2` of all tokens; with a factor its derivative for x, times that, is added to `d`.
pub(crate) fn apart(
    x: &[f32],
    y: &[f32],
    dim: usize,
    weights: &[f32],
    mut derivative: Option<(f32, &mut [f32])>,
) -> f64 {
    let mut sum = 0.0;
    for (token, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
        let at = token * dim..(token + 1) * dim;
        let (x, y) = (&x[at.clone()], &y[at.clone()]);
        let inverse = 1.0 / dot(y, y).max(f32::MIN_POSITIVE);
        let square: f32 = x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum();
        sum += f64::from(weight) * f64::from(square * inverse);
        if let Some((factor, d)) = &mut derivative {
            let by = 2.0 * *factor * weight * inverse;
            d[at].iter_mut().zip(x.iter().zip(y)).for_each(|(d, (x, y))| *d += by * (x - y));
        }
    }
    sum
}
