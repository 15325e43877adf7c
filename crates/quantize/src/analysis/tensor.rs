//! A tensor before and after, row by row.

use std::path::Path;

use kernels::Matrix;
use kernels::codec::{UnpackedRow, unpack_row};
use serde::Serialize;

use super::error::AnalysisError;
use crate::convert::parts::{RowOrder, Tensor};

/// Bins of a histogram of weights; the middle one holds zero.
pub const WEIGHT_BINS: usize = 65;
/// Bins of a histogram of scales.
pub const SCALE_BINS: usize = 24;
/// A histogram reaches this many times the original's root mean square at most: a few large weights do not press all
/// others into one bin.
const RANGE_IN_RMS: f64 = 4.0;

/// What became of a tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorReport {
    /// What it is, by llama2.c's names: `layers.3.wq`.
    pub name: String,
    /// Its layer, if it belongs to one.
    pub layer: Option<usize>,
    /// What it is in its layer or in the model: `wq`.
    pub kind: String,
    /// Rows and columns; a vector is one row.
    pub shape: [usize; 2],
    /// Type in the original and in the quantized file.
    pub types: [String; 2],
    /// Bits a weight in the original and in the quantized file.
    pub bits: [f64; 2],
    /// Mean square of the error.
    pub mse: f64,
    /// Root of the sum of the squares of the error over that of the original's weights.
    pub relative_error: f64,
    /// Signal to quantization noise, -20 log10(relative_error), in dB; `None` (null) when nothing has changed.
    pub sqnr_db: Option<f64>,
    /// Largest error of a weight.
    pub max_error: f64,
    /// Share of weights that are zero, before and after.
    pub zeros: [f64; 2],
    /// Weights before and after.
    pub histogram: Histogram,
    /// Scales of the quantized rows; `None` where the type has none.
    pub scales: Option<Scales>,
}

/// How many weights lie where, before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    /// The bins divide -limit to limit evenly; the outermost also hold what lies beyond.
    pub limit: f64,
    /// Weights in each bin, before and after.
    pub counts: [Vec<u64>; 2],
}

/// How the scales of a tensor's groups are distributed, by magnitude; groups without one (all zero) are left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scales {
    /// How many there are, those of zero included.
    pub count: usize,
    /// How many of them are zero.
    pub zero: usize,
    /// Least, 5 %, median, 95 % and largest.
    pub quantiles: [f64; 5],
    /// The bins divide the logarithms of least to largest evenly.
    pub counts: Vec<u64>,
}

/// Sums over a tensor, from which those of several can be made.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    pub(super) weights: u64,
    pub(super) square: f64,
    pub(super) square_error: f64,
    max: f64,
    max_error: f64,
    zeros: [u64; 2],
}

impl Sums {
    fn add(&mut self, before: &[f32], after: &[f32]) {
        for (&a, &b) in before.iter().zip(after) {
            let (x, error) = (f64::from(a), f64::from(a) - f64::from(b));
            self.square += x * x;
            self.square_error += error * error;
            self.max = self.max.max(x.abs()).max(f64::from(b).abs());
            self.max_error = self.max_error.max(error.abs());
            self.zeros[0] += u64::from(a == 0.0);
            self.zeros[1] += u64::from(b == 0.0);
        }
        self.weights += before.len() as u64;
    }

    /// Adds those of another tensor.
    pub(super) fn add_tensor(&mut self, other: &Self) {
        self.weights += other.weights;
        self.square += other.square;
        self.square_error += other.square_error;
        self.max = self.max.max(other.max);
        self.max_error = self.max_error.max(other.max_error);
        (0..2).for_each(|side| self.zeros[side] += other.zeros[side]);
    }

    pub(super) fn relative_error(&self) -> f64 {
        if self.square_error == 0.0 { 0.0 } else { (self.square_error / self.square).sqrt() }
    }

    /// `None` without an error. Of a tensor of zeros that is one no more: minus infinity.
    pub(super) fn sqnr_db(&self) -> Option<f64> {
        (self.square_error > 0.0).then(|| 10.0 * (self.square / self.square_error).log10())
    }
}

/// A tensor of one model as rows of f32.
pub(super) struct Rows<'a> {
    path: &'a Path,
    name: String,
    values: Values<'a>,
    order: RowOrder,
}

enum Values<'a> {
    Matrix(Matrix<'a>),
    Vector(&'a [f32]),
}

impl<'a> Rows<'a> {
    /// `name` is what errors call a vector; a matrix has its own.
    pub(super) fn new(path: &'a Path, name: &str, tensor: Tensor<'a>) -> Result<Self, AnalysisError> {
        match tensor {
            Tensor::Matrix(matrix, order) => {
                let row_error = |err: kernels::MatmulError| AnalysisError::Row {
                    path: path.to_owned(),
                    tensor: matrix.name.clone(),
                    problem: err.to_string(),
                };
                let values = Values::Matrix(matrix.view().map_err(row_error)?);
                Ok(Self { path, name: matrix.name.clone(), values, order })
            }
            Tensor::Vector(values, order) => {
                Ok(Self { path, name: name.to_owned(), values: Values::Vector(values), order })
            }
        }
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        match &self.values {
            Values::Matrix(matrix) => [matrix.rows(), matrix.cols()],
            Values::Vector(values) => [1, values.len()],
        }
    }

    fn problem(&self, problem: &dyn std::fmt::Display) -> AnalysisError {
        AnalysisError::Row {
            path: self.path.to_owned(),
            tensor: self.name.clone(),
            problem: problem.to_string(),
        }
    }

    /// Writes row `r`, which must be finite, to `out`.
    fn read(&self, r: usize, out: &mut [f32]) -> Result<(), AnalysisError> {
        match &self.values {
            Values::Matrix(matrix) => {
                matrix.dequantize_row(self.order.source(r), out).map_err(|err| self.problem(&err))?
            }
            Values::Vector(values) => {
                out.iter_mut().enumerate().for_each(|(i, out)| *out = values[self.order.source(i)]);
            }
        }
        if out.iter().all(|x| x.is_finite()) {
            return Ok(());
        }
        let row = self.order.source(r);
        Err(AnalysisError::NotFinite { path: self.path.to_owned(), tensor: self.name.clone(), row })
    }

    /// Magnitudes of the scales of row `r`.
    fn add_scales(
        &self,
        r: usize,
        unpacked: &mut UnpackedRow,
        scales: &mut Vec<f32>,
    ) -> Result<(), AnalysisError> {
        if let Values::Matrix(matrix) = &self.values
            && !matrix.row_type().is_float()
        {
            unpack_row(matrix.row_type(), matrix.row(r), matrix.cols(), unpacked)
                .map_err(|err| self.problem(&err))?;
            scales.extend(unpacked.scale.iter().map(|scale| scale.abs()));
        }
        Ok(())
    }
}

/// What is measured of a tensor.
pub(super) struct Measured {
    pub(super) shape: [usize; 2],
    pub(super) sums: Sums,
    pub(super) histogram: Histogram,
    pub(super) scales: Option<Scales>,
}

/// Reads both tensors twice: for the sums, then, their range being known, for the histograms. A row of each is in memory,
/// and the scales.
pub(super) fn measure(before: &Rows<'_>, after: &Rows<'_>) -> Result<Measured, AnalysisError> {
    let shape = before.shape();
    if after.shape() != shape {
        return Err(after.problem(&format!("its shape is {:?}, the original's is {shape:?}", after.shape())));
    }
    let [rows, cols] = shape;
    let (mut a, mut b) = (vec![0.0; cols], vec![0.0; cols]);
    let (mut sums, mut unpacked, mut scales) = (Sums::default(), UnpackedRow::default(), Vec::new());
    for r in 0..rows {
        before.read(r, &mut a)?;
        after.read(r, &mut b)?;
        sums.add(&a, &b);
        after.add_scales(r, &mut unpacked, &mut scales)?;
    }
    let rms = (sums.square / sums.weights.max(1) as f64).sqrt();
    let reach = if rms > 0.0 { RANGE_IN_RMS * rms } else { f64::INFINITY };
    let mut histogram = Histogram::new(sums.max.min(reach));
    for r in 0..rows {
        before.read(r, &mut a)?;
        after.read(r, &mut b)?;
        histogram.add(0, &a);
        histogram.add(1, &b);
    }
    Ok(Measured { shape, sums, histogram, scales: Scales::new(scales) })
}

impl Measured {
    pub(super) fn mse(&self) -> f64 {
        self.sums.square_error / self.sums.weights.max(1) as f64
    }

    pub(super) fn max_error(&self) -> f64 {
        self.sums.max_error
    }

    pub(super) fn zeros(&self) -> [f64; 2] {
        self.sums.zeros.map(|zeros| zeros as f64 / self.sums.weights.max(1) as f64)
    }
}

impl Histogram {
    fn new(limit: f64) -> Self {
        // Of a tensor of zeros any limit will do.
        let limit = if limit > 0.0 { limit } else { 1.0 };
        Self { limit, counts: [vec![0; WEIGHT_BINS], vec![0; WEIGHT_BINS]] }
    }

    fn add(&mut self, side: usize, weights: &[f32]) {
        for &weight in weights {
            let place = (f64::from(weight) / self.limit + 1.0) / 2.0 * WEIGHT_BINS as f64;
            // A cast saturates: what lies beyond comes into the outermost bins.
            self.counts[side][(place as usize).min(WEIGHT_BINS - 1)] += 1;
        }
    }
}

impl Scales {
    fn new(mut scales: Vec<f32>) -> Option<Self> {
        if scales.is_empty() {
            return None;
        }
        let count = scales.len();
        scales.retain(|&scale| scale > 0.0);
        scales.sort_unstable_by(f32::total_cmp);
        let at = |fraction: f64| {
            let rank = (fraction * scales.len() as f64) as usize;
            scales.get(rank.min(scales.len().saturating_sub(1))).map_or(0.0, |&scale| f64::from(scale))
        };
        let quantiles = [0.0, 0.05, 0.5, 0.95, 1.0].map(at);
        let (least, span) = (quantiles[0].ln(), quantiles[4].ln() - quantiles[0].ln());
        let mut counts = vec![0; SCALE_BINS];
        for &scale in &scales {
            let place = if span > 0.0 { (f64::from(scale).ln() - least) / span } else { 0.5 };
            counts[((place * SCALE_BINS as f64) as usize).min(SCALE_BINS - 1)] += 1;
        }
        Some(Self { count, zero: count - scales.len(), quantiles, counts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_by_hand() {
        let (before, after) = ([3.0, -4.0, 0.0, 0.0], [3.0, -2.0, 0.0, 1.0]);
        let rows =
            |values| Rows::new(Path::new("m"), "norm", Tensor::Vector(values, RowOrder::Kept)).unwrap();
        let found = measure(&rows(&before), &rows(&after)).unwrap();
        assert_eq!((found.shape, found.mse(), found.max_error()), ([1, 4], 5.0 / 4.0, 2.0));
        assert_eq!(found.zeros(), [0.5, 0.25]);
        assert!((found.sums.relative_error() - (5.0f64 / 25.0).sqrt()).abs() < 1e-12);
        assert!((found.sums.sqnr_db().unwrap() - 10.0 * 5f64.log10()).abs() < 1e-12);
        assert_eq!((found.histogram.limit, found.scales), (4.0, None));
        let counts = &found.histogram.counts;
        assert_eq!((counts[0][0], counts[0][WEIGHT_BINS / 2], counts[0].iter().sum::<u64>()), (1, 2, 4));
        assert_eq!(measure(&rows(&before), &rows(&before)).unwrap().sums.sqnr_db(), None);
        let refused = measure(&rows(&before), &rows(&after[..3])).err().unwrap().to_string();
        assert!(refused.contains("norm: its shape is [1, 3]"), "{refused}");
        let refused = measure(&rows(&before), &rows(&[0.0, f32::NAN, 0.0, 0.0])).err().unwrap().to_string();
        assert_eq!(refused, "m: tensor norm: row 0 holds NaN or infinity");
    }

    #[test]
    fn scales_by_hand() {
        let found = Scales::new(vec![0.0, 1.0, 2.0, 4.0, 8.0]).unwrap();
        assert_eq!((found.count, found.zero), (5, 1));
        assert_eq!(found.quantiles, [1.0, 1.0, 4.0, 8.0, 8.0]);
        assert_eq!(found.counts.iter().sum::<u64>(), 4);
        assert_eq!((found.counts[0], found.counts[8], found.counts[16], found.counts[23]), (1, 1, 1, 1));
        assert_eq!(Scales::new(vec![0.0; 3]).unwrap().quantiles, [0.0; 5]);
        assert_eq!(Scales::new(vec![0.25; 3]).unwrap().counts[12], 3);
    }
}
