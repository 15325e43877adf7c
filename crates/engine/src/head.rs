//! The output head of a large vocabulary, without reading all of it for every token.
//!
//! Most rows of a classifier cannot win. So a copy of it in 4 bits is multiplied first, and then those rows exactly that could
//! still be the best one: all whose scanned logit is within a margin of the best exact one. The copy's error `e . x` in a row
//! is a sum over all columns; its standard deviation for activations of unknown direction is `|e| |x| / sqrt(dim)`, and
//! `|e|` is known for each row. The margin is six of those, more where the rows that were computed both ways show that the
//! errors are larger; and where too many rows are within it, all are computed. So the greedy choice is that of the exact
//! head. For a random choice the rows less than eight nats below the best one are exact too; what is left is the copy's.

use std::sync::atomic::{AtomicU32, Ordering};

use kernels::int_tiles::{IntTiles, matmul_int_tiles};
use kernels::matmul::{matmul, matmul_rows};
use kernels::ops::argmax;
use kernels::{ActivationForm, Activations, Arena, MatmulError, Matrix, RowType, Team};

/// Smaller vocabularies are not worth a scan.
const MIN_ROWS: usize = 16_384;
/// Standard deviations of the copy's error that a row may be off.
const DEVIATIONS: f32 = 6.0;
/// How much further off than the worst row seen another one may be.
const SAFETY: f32 = 4.0 / 3.0;
/// Rows of which the best scanned one is computed first, to know what has to be beaten.
const FIRST_OF: usize = 1024;
/// How far below the greatest logit those lie that matter to a random choice, in nats.
pub(crate) const LIKELY: f32 = 8.0;
/// One row in so many may be computed a second time; with more, all are.
const MOST: usize = 12;

/// The type of the copy.
const COPY: RowType = RowType::Q4_0;

/// A copy of a classifier `[vocab_size, dim]` in fewer bits, and how far off it is.
#[derive(Debug)]
pub(crate) struct Scan {
    copy: IntTiles,
    /// What a unit of the activations' length adds to the standard deviation of each logit.
    error: Vec<f32>,
}

/// Buffers, reused from step to step.
#[derive(Debug, Default)]
pub(crate) struct ScanBuffers {
    input: Activations,
    rows: Vec<u32>,
    exact: Vec<f32>,
}

impl ScanBuffers {
    /// Room for a vocabulary.
    pub(crate) fn reserve(&mut self, vocab_size: usize, dim: usize) {
        self.input.reserve(1, dim);
        self.rows.reserve(vocab_size / MOST + PIECE);
        self.exact.reserve(vocab_size / MOST + PIECE);
    }
}

impl Scan {
    /// Whether a scan of such a classifier is faster than the classifier: it is large, and stored in more bits.
    pub(crate) fn pays(row_type: RowType, rows: usize) -> bool {
        let bits = |row_type: RowType| row_type.block().1 as f32 * 8.0 / row_type.block().0 as f32;
        rows >= MIN_ROWS && bits(row_type) > 1.2 * bits(COPY)
    }

    /// Copies `classifier`; `None` where this processor has no kernels for it, the rows are no whole blocks, or there is no
    /// memory.
    pub(crate) fn new(classifier: &Matrix<'_>, threads: usize, arena: &mut Arena) -> Option<Self> {
        let per_length = 1.0 / (classifier.cols() as f32).sqrt();
        // Each row is measured by one thread.
        let measured: Vec<AtomicU32> = (0..classifier.rows()).map(|_| AtomicU32::default()).collect();
        let copy = IntTiles::pack_rounded(classifier, COPY, threads, arena, &|r, before, after| {
            let error: f32 = before.iter().zip(after).map(|(a, b)| (a - b) * (a - b)).sum();
            measured[r].store((error.sqrt() * per_length).to_bits(), Ordering::Relaxed);
        })?;
        let error = measured.into_iter().map(|bits| f32::from_bits(bits.into_inner())).collect();
        Some(Self { copy, error })
    }

    /// Bytes in memory of the scan of a classifier; `None` where there are no kernels for it.
    pub(crate) fn bytes_for(rows: usize, cols: usize) -> Option<usize> {
        Some(IntTiles::bytes_for(COPY, rows, cols).filter(|_| COPY.row_bytes(cols).is_some())? + 4 * rows)
    }

    /// Bytes in memory.
    pub(crate) fn byte_len(&self) -> usize {
        self.copy.byte_len() + self.error.len() * 4
    }

    /// The logits `[tokens, vocab_size]` of `input`: exact (as `classifier` gives them in `form`) in every row that could be the
    /// greatest of its token, or less than `window` below that, and the copy's in the others.
    #[allow(clippy::too_many_arguments, reason = "the parts of a model that meet here")]
    pub(crate) fn logits(
        &self,
        classifier: &Matrix<'_>,
        team: &Team,
        input: &mut Activations,
        form: ActivationForm,
        window: f32,
        buffers: &mut ScanBuffers,
        logits: &mut [f32],
    ) -> Result<(), MatmulError> {
        // A classifier of floats takes its input as it is; the copy rounds it, and that error counts too.
        matmul_int_tiles(team, input, Matrix::integer_form(COPY), &mut [(&self.copy, logits)])?;
        for (t, logits) in logits.chunks_exact_mut(classifier.rows()).enumerate() {
            let length =
                input.f32()[t * input.cols()..][..input.cols()].iter().map(|x| x * x).sum::<f32>().sqrt();
            buffers.input.load(&input.f32()[t * input.cols()..][..input.cols()], 1, input.cols());
            self.exact(classifier, team, form, (length, window), buffers, logits)?;
        }
        Ok(())
    }

    /// Computes what has to be exact of one token's scanned logits.
    fn exact(
        &self,
        classifier: &Matrix<'_>,
        team: &Team,
        form: ActivationForm,
        (length, window): (f32, f32),
        buffers: &mut ScanBuffers,
        logits: &mut [f32],
    ) -> Result<(), MatmulError> {
        let ScanBuffers { input, rows, exact } = buffers;
        let deviation = |r: usize| self.error[r] * length;
        rows.clear();
        for (i, logits) in logits.chunks(FIRST_OF).enumerate() {
            rows.push((i * FIRST_OF + argmax(logits)) as u32);
        }
        let mut deviations = DEVIATIONS;
        let mut to_beat = None;
        loop {
            exact.resize(rows.len(), 0.0);
            matmul_rows(team, classifier, rows, input, form, exact)?;
            let worst = rows.iter().zip(exact.iter()).fold(0.0f32, |worst, (&r, exact)| {
                worst.max((exact - logits[r as usize]).abs() / deviation(r as usize))
            });
            if to_beat.is_some() && worst * SAFETY <= deviations {
                break;
            }
            let to_beat =
                *to_beat.get_or_insert_with(|| exact.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            deviations = deviations.max(worst * SAFETY * SAFETY);
            find_possible(logits, to_beat - window, |r| deviations * deviation(r), rows);
            if rows.len() > logits.len() / MOST {
                return matmul(team, classifier, input, form, logits);
            }
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
        let impossible = |r: usize| logits[r] + margin(r) < to_beat;
        if !piece.clone().fold(true, |none, r| none & impossible(r)) {
            rows.extend(piece.filter(|&r| !impossible(r)).map(|r| r as u32));
        }
        if rows.len() > logits.len() / MOST {
            return;
        }
    }
}

/// Rows that are looked at together.
const PIECE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROWS: usize = MIN_ROWS + 100;
    const COLS: usize = 32;

    /// The logits of a classifier of floats by the scan, and by the classifier itself.
    fn both(weights: &[f32], input: &[f32], window: f32) -> (Vec<f32>, Vec<f32>) {
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let classifier = Matrix::new(RowType::F32, ROWS, COLS, &bytes).unwrap();
        let team = Team::new(2);
        let mut activations = Activations::default();
        activations.load(input, 1, COLS);
        let (mut scanned, mut exact) = (vec![0.0; ROWS], vec![0.0; ROWS]);
        matmul(&team, &classifier, &mut activations, ActivationForm::F32, &mut exact).unwrap();
        match Scan::new(&classifier, 2, &mut Arena::default()) {
            Some(scan) => scan
                .logits(
                    &classifier,
                    &team,
                    &mut activations,
                    ActivationForm::F32,
                    window,
                    &mut ScanBuffers::default(),
                    &mut scanned,
                )
                .unwrap(),
            // This processor has no kernels for the copy: then a model has no scan either.
            None => scanned.copy_from_slice(&exact),
        }
        (scanned, exact)
    }

    fn best(logits: &[f32]) -> usize {
        (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
    }

    /// Values of a fixed sequence in -1..1.
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).max(1);
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / (1u64 << 31) as f32 - 1.0
        })
        .take(count)
        .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
        #[test]
        fn the_best_row_is_exact(seed in 1u32.., window in prop_oneof![Just(0.0), Just(LIKELY)]) {
            let (scanned, exact) = both(&noise(ROWS * COLS, seed), &noise(COLS, !seed), window);
            let first = best(&exact);
            prop_assert_eq!(best(&scanned), first);
            for r in (0..ROWS).filter(|&r| exact[r] >= exact[first] - window) {
                prop_assert_eq!(scanned[r], exact[r], "row {}", r);
            }
        }
    }

    #[test]
    fn rows_that_are_not_finite_show() {
        for row in [0, 5000, ROWS - 1] {
            for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                let mut weights = noise(ROWS * COLS, 7);
                weights[row * COLS] = value;
                let (scanned, exact) = both(&weights, &noise(COLS, 8), 0.0);
                assert!(
                    !exact[row].is_finite() && !scanned[row].is_finite(),
                    "row {row} of {value}: {}",
                    scanned[row]
                );
            }
        }
    }

    #[test]
    fn a_row_of_zeros_is_scanned_without_error() {
        let mut weights = noise(ROWS * COLS, 9);
        weights[..COLS].fill(0.0);
        let (scanned, exact) = both(&weights, &noise(COLS, 10), 0.0);
        assert_eq!((scanned[0], best(&scanned)), (0.0, best(&exact)));
        let (scanned, _) = both(&vec![0.0; ROWS * COLS], &noise(COLS, 10), LIKELY);
        assert!(scanned.iter().all(|&logit| logit == 0.0));
    }
}
