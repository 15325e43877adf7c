//! The output head of a large vocabulary, without reading all of it for every token.
//!
//! Most rows of a classifier cannot win. So a copy of it in two ternary planes (3.2 bits a weight, nine levels) is multiplied
//! first, and then those rows exactly that could still be the best one: all whose scanned logit is within a margin of the best exact one. The
//! copy's error `e . x` in a row is a sum over all columns; its standard deviation for activations of unknown direction
//! is `|e| |x| / sqrt(dim)`, and `|e|` is known for each row. The margin is six of those, more where the rows that were
//! computed both ways show that the errors are larger; and where too many rows are within it, all are computed. So the
//! greedy choice is that of the exact head; the logits of rows that cannot win are those of the copy.

use std::sync::atomic::{AtomicU32, Ordering};

use kernels::matmul::{matmul, matmul_rows};
use kernels::ops::add_on;
use kernels::trits::{Family, Trits, matmul_trits};
use kernels::{ActivationForm, Activations, Arena, MatmulError, Matrix, RowType, Team};

/// Smaller vocabularies are not worth a scan.
const MIN_ROWS: usize = 16_384;
/// Standard deviations of the copy's error that a row may be off.
const DEVIATIONS: f32 = 6.0;
/// How much further off than the worst row seen another one may be.
const SAFETY: f32 = 4.0 / 3.0;
/// Rows of which the best scanned one is computed first, to know what has to be beaten.
const FIRST_OF: usize = 1024;
/// One row in so many may be computed a second time; with more, all are.
const MOST: usize = 12;

/// A copy of a classifier `[vocab_size, dim]` in two ternary planes, and how far off it is.
#[derive(Debug)]
pub(crate) struct Scan {
    copy: [Trits; 2],
    /// What a unit of the activations' length adds to the standard deviation of each logit.
    error: Vec<f32>,
    /// What a unit of the activations' rounding error adds.
    rounding: Vec<f32>,
}

/// Buffers, reused from step to step.
#[derive(Debug, Default)]
pub(crate) struct ScanBuffers {
    input: Activations,
    /// The second plane's part of the logits.
    second: Vec<f32>,
    rows: Vec<u32>,
    exact: Vec<f32>,
}

impl ScanBuffers {
    /// Room for a vocabulary.
    pub(crate) fn reserve(&mut self, vocab_size: usize, dim: usize) {
        self.input.reserve(1, dim);
        self.second.reserve(vocab_size);
        self.rows.reserve(vocab_size / MOST + PIECE);
        self.exact.reserve(vocab_size / MOST + PIECE);
    }
}

impl Scan {
    /// Whether a scan of such a classifier is faster than the classifier: it is large, and stored in more bits.
    pub(crate) fn pays(row_type: RowType, rows: usize) -> bool {
        let (weights, bytes) = row_type.block();
        rows >= MIN_ROWS && bytes * 8 > weights * 4
    }

    /// Copies `classifier`. `None` where this processor has no kernels for
    /// it, or there is no memory.
    pub(crate) fn new(
        classifier: &Matrix<'_>,
        family: Family,
        threads: usize,
        arena: &mut Arena,
    ) -> Option<Self> {
        let (rows, cols) = (classifier.rows(), classifier.cols());
        let per_length = 1.0 / (cols as f32).sqrt();
        // Each row is measured by one thread.
        let measured: Vec<[AtomicU32; 2]> = (0..rows).map(|_| Default::default()).collect();
        let mut plane = |plane: usize| {
            Trits::pack_rows(rows, cols, family, threads, arena, &|r, trits| {
                let mut row = vec![0.0; cols];
                // A row that cannot be read stays zero, and its error is infinite: it is always computed.
                let fit = match classifier.dequantize_row(r, &mut row) {
                    Ok(()) => Fit::of(&row, plane, trits),
                    Err(_) => Fit { step: 0.0, error: f32::INFINITY, length: 0.0 },
                };
                let [error, rounding] = &measured[r];
                error.store((fit.error * per_length).to_bits(), Ordering::Relaxed);
                rounding.store((fit.length * per_length).to_bits(), Ordering::Relaxed);
                fit.step * PLACE[plane]
            })
        };
        let copy = [plane(0)?, plane(1)?];
        let of = |i: usize| measured.iter().map(|m| f32::from_bits(m[i].load(Ordering::Relaxed))).collect();
        Some(Self { copy, error: of(0), rounding: of(1) })
    }

    /// Bytes in memory of the scan of a classifier; `None` where there are no kernels for it.
    pub(crate) fn bytes_for(rows: usize, cols: usize) -> Option<usize> {
        Some(2 * Trits::bytes_for(RowType::Ternary32, rows, cols)? + 8 * rows)
    }

    /// Bytes in memory.
    pub(crate) fn byte_len(&self) -> usize {
        self.copy.iter().map(Trits::byte_len).sum::<usize>() + (self.error.len() + self.rounding.len()) * 4
    }

    /// The logits `[tokens, vocab_size]` of `input`: exact (as `classifier` gives them in `form`) in every row that could be the
    /// greatest of its token, the copy's in the others.
    pub(crate) fn logits(
        &self,
        classifier: &Matrix<'_>,
        team: &Team,
        input: &mut Activations,
        form: ActivationForm,
        buffers: &mut ScanBuffers,
        logits: &mut [f32],
    ) -> Result<(), MatmulError> {
        let [first, second] = &self.copy;
        buffers.second.resize(logits.len(), 0.0);
        matmul_trits(team, input, &mut [(first, logits), (second, &mut buffers.second)])?;
        add_on(team, logits, &buffers.second);
        for (t, logits) in logits.chunks_exact_mut(classifier.rows()).enumerate() {
            let deviation = input.length_and_rounding(t);
            buffers.input.load(&input.f32()[t * input.cols()..][..input.cols()], 1, input.cols());
            self.exact(classifier, team, form, deviation, buffers, logits)?;
        }
        Ok(())
    }

    /// Computes what has to be exact of one token's scanned logits.
    fn exact(
        &self,
        classifier: &Matrix<'_>,
        team: &Team,
        form: ActivationForm,
        (length, rounding): (f32, f32),
        buffers: &mut ScanBuffers,
        logits: &mut [f32],
    ) -> Result<(), MatmulError> {
        let ScanBuffers { input, rows, exact, .. } = buffers;
        rows.clear();
        for (i, logits) in logits.chunks(FIRST_OF).enumerate() {
            let best = logits.iter().fold(f32::NEG_INFINITY, |best, &x| best.max(x));
            let at = logits.iter().position(|&x| x == best).unwrap_or(0);
            rows.push((i * FIRST_OF + at) as u32);
        }
        exact.resize(rows.len(), 0.0);
        matmul_rows(team, classifier, rows, input, form, exact)?;
        let to_beat = exact.iter().fold(f32::NEG_INFINITY, |best, &x| best.max(x));
        if std::env::var("DBG").is_ok() {
            let sample: Vec<u32> = (0..logits.len() as u32).step_by(logits.len() / 512).collect();
            let mut ex = vec![0.0; sample.len()];
            matmul_rows(team, classifier, &sample, input, form, &mut ex)?;
            let z: Vec<f32> = sample
                .iter()
                .zip(&ex)
                .map(|(&r, ex)| {
                    (ex - logits[r as usize])
                        / (self.error[r as usize] * length + self.rounding[r as usize] * rounding)
                })
                .collect();
            let mean = z.iter().sum::<f32>() / z.len() as f32;
            let sd = (z.iter().map(|z| (z - mean) * (z - mean)).sum::<f32>() / z.len() as f32).sqrt();
            let max = z.iter().fold(0.0f32, |m, z| m.max((z - mean).abs()));
            let lm = ex.iter().sum::<f32>() / z.len() as f32;
            let lsd = (ex.iter().map(|z| (z - lm) * (z - lm)).sum::<f32>() / z.len() as f32).sqrt();
            let r0 = sample[0] as usize;
            eprintln!(
                "z mean {mean:.2} sd {sd:.2} max {max:.2} dev {:.3} (rounding {:.3}) logits mean {lm:.2} sd {lsd:.2} best {to_beat:.2}",
                self.error[r0] * length + self.rounding[r0] * rounding,
                self.rounding[r0] * rounding
            );
        }
        let mut deviations = DEVIATIONS;
        loop {
            let deviation = |r: usize| self.error[r] * length + self.rounding[r] * rounding;
            find_possible(logits, to_beat, |r| deviations * deviation(r), rows);
            if std::env::var("DBG").is_ok() {
                eprintln!("rows {} dev {deviations} to_beat {to_beat}", rows.len());
            }
            if rows.len() > logits.len() / MOST {
                return matmul(team, classifier, input, form, logits);
            }
            exact.resize(rows.len(), 0.0);
            matmul_rows(team, classifier, rows, input, form, exact)?;
            let worst = rows.iter().zip(exact.iter()).fold(0.0f32, |worst, (&r, exact)| {
                worst.max((exact - logits[r as usize]).abs() / deviation(r as usize))
            });
            if worst * SAFETY <= deviations {
                break;
            }
            deviations = worst * SAFETY * SAFETY;
        }
        for (&r, &exact) in rows.iter().zip(exact.iter()) {
            logits[r as usize] = exact;
        }
        Ok(())
    }
}

/// The rows that may reach `to_beat`, whose logits may be too low by `margin`; some more than one in [`MOST`] where there are
/// too many.
fn find_possible(logits: &[f32], to_beat: f32, margin: impl Fn(usize) -> f32, rows: &mut Vec<u32>) {
    rows.clear();
    for start in (0..logits.len()).step_by(PIECE) {
        let piece = start..(start + PIECE).min(logits.len());
        // Seldom one of many, so the whole piece is looked at first. What is not a number may be anything.
        let possible = |r: usize| !(logits[r] + margin(r) < to_beat);
        if piece.clone().fold(false, |any, r| any | possible(r)) {
            rows.extend(piece.filter(|&r| possible(r)).map(|r| r as u32));
        }
        if rows.len() > logits.len() / MOST {
            return;
        }
    }
}

/// Rows that are looked at together.
const PIECE: usize = 64;

/// What a trit of each plane counts: a weight is a number of two digits in balanced ternary, -4 to 4.
const PLACE: [f32; 2] = [3.0, 1.0];

/// The step between nine levels for which they are nearest to normally distributed weights, in standard deviations.
const STEP: f32 = 0.53;

/// Adding it to a small float and taking it away again rounds to a whole number.
const TO_WHOLE: f32 = 1.5 * (1 << 23) as f32;

/// A row of weights on nine levels.
struct Fit {
    /// Between two levels.
    step: f32,
    /// Euclidean length of the difference.
    error: f32,
    /// Euclidean length of the row on its levels.
    length: f32,
}

impl Fit {
    /// Rounds a row, and writes its digits in `plane`.
    fn of(row: &[f32], plane: usize, trits: &mut [i8]) -> Self {
        let square: f32 = row.iter().map(|w| w * w).sum();
        let step = STEP * (square / row.len() as f32).sqrt();
        let per_step = if step > 0.0 { 1.0 / step } else { 0.0 };
        let (mut error, mut length) = (0.0, 0.0);
        for (w, trit) in row.iter().zip(trits) {
            let level = ((w * per_step).clamp(-4.0, 4.0) + TO_WHOLE) - TO_WHOLE;
            let threes = (level * (1.0 / 3.0) + TO_WHOLE) - TO_WHOLE;
            *trit = if plane == 0 { threes } else { level - 3.0 * threes } as i8;
            let rest = w - level * step;
            error += rest * rest;
            length += level * level;
        }
        Self { step, error: error.sqrt(), length: step * length.sqrt() }
    }
}
