//! The numbers that a row type can stand for, seen from its codes and scales.

use half::f16;
use kernels::codec::grouped;
use kernels::row::RowType;

/// How a scale is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScaleType {
    F16,
    F32,
    /// Five bits of exponent, three of fraction.
    Small,
}

/// Codes and scales of a row type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    min: f32,
    max: f32,
    scale: ScaleType,
    /// Whether there is no code 0.
    signs: bool,
    /// Whether a group has an offset beside its scale.
    pub(crate) offset: bool,
    /// Weights that share a scale.
    pub(crate) group: usize,
}

impl Grid {
    /// Of a type whose rows have codes and scales that can be chosen; `cols` is the length of a row.
    pub(crate) fn of(row_type: RowType, cols: usize) -> Option<Self> {
        let (signs, offset) = (row_type == RowType::BG1, row_type == RowType::Q4_1);
        let grid = |min, max, scale, group| Some(Self { min, max, scale, group, signs, offset });
        match row_type {
            RowType::TG1 | RowType::BG1 => grid(-1.0, 1.0, ScaleType::Small, grouped::GROUP),
            RowType::TG2 => grid(-4.0, 4.0, ScaleType::Small, grouped::GROUP),
            RowType::Q4_0 | RowType::Int4 => grid(-8.0, 7.0, ScaleType::F16, 32),
            RowType::Q4_1 => grid(0.0, 15.0, ScaleType::F16, 32),
            RowType::Q8_0 => grid(-127.0, 127.0, ScaleType::F16, 32),
            RowType::TQ1_0 | RowType::TQ2_0 => grid(-1.0, 1.0, ScaleType::F16, 256),
            RowType::Ternary16 => grid(-1.0, 1.0, ScaleType::F16, cols),
            RowType::Ternary32 => grid(-1.0, 1.0, ScaleType::F32, cols),
            _ => None,
        }
    }

    /// The nearest scale that can be stored.
    pub(crate) fn round_scale(&self, scale: f32) -> f32 {
        match self.scale {
            ScaleType::F32 => scale,
            ScaleType::F16 => f16::from_f32(scale).to_f32(),
            ScaleType::Small => grouped::scale_value(grouped::scale_code(scale)),
        }
    }

    /// The code nearest to `w / scale`.
    pub(crate) fn code(&self, w: f32, inverse: f32) -> f32 {
        if self.signs {
            return 1f32.copysign(w * inverse);
        }
        // Adding 1.5 * 2^23 rounds numbers as small as codes to whole ones, ties to even: `round` is a call where the
        // processor is not known to have an instruction for it.
        const WHOLE: f32 = 12_582_912.0;
        ((w * inverse).clamp(self.min, self.max) + WHOLE) - WHOLE
    }

    /// Scale and offset with the least square error of the weights, each counted `importance` times.
    pub(crate) fn search(&self, weights: &[f32], importance: &[f32]) -> (f32, f32) {
        if self.offset {
            self.search_affine(weights, importance)
        } else {
            (self.search_scale(weights, importance), 0.0)
        }
    }

    /// From the scale that the whole range needs downwards, each with the codes that it gives, and the scale and offset
    /// of least squares for those codes.
    fn search_affine(&self, weights: &[f32], importance: &[f32]) -> (f32, f32) {
        let range = weights.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |r, &w| (r.0.min(w), r.1.max(w)));
        let (least, full) = (range.0, (range.1 - range.0) / self.max);
        if !(full > 0.0 && full.is_finite()) {
            return (0.0, self.round_offset(if least.is_finite() { least } else { 0.0 }));
        }
        let error = |(scale, offset): (f32, f32)| -> f32 {
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            let each = weights.iter().zip(importance).map(|(&w, &importance)| {
                let error = w - offset - self.code(w - offset, inverse) * scale;
                error * error * importance
            });
            each.sum()
        };
        let mut best = (f32::INFINITY, (0.0, 0.0));
        for step in 0..=12 {
            let shrunk = full * (1.0 - step as f32 / 40.0);
            let middle = least + full * self.max / 2.0;
            let plain = (shrunk, if step == 0 { least } else { middle - shrunk * self.max / 2.0 });
            for found in [plain, self.least_squares(weights, importance, plain)] {
                let found = (self.round_scale(found.0), self.round_offset(found.1));
                let error = error(found);
                if error < best.0 {
                    best = (error, found);
                }
            }
        }
        best.1
    }

    /// Scale and offset of least squares for the codes that `start` gives.
    fn least_squares(&self, weights: &[f32], importance: &[f32], start: (f32, f32)) -> (f32, f32) {
        let (mut n, mut q1, mut q2, mut w1, mut wq) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (&w, &importance) in weights.iter().zip(importance) {
            let q = self.code(w - start.1, 1.0 / start.0);
            n += importance;
            q1 += importance * q;
            q2 += importance * q * q;
            w1 += importance * w;
            wq += importance * w * q;
        }
        let determinant = n * q2 - q1 * q1;
        if determinant <= 1e-6 * n * q2 {
            return start;
        }
        ((n * wq - q1 * w1) / determinant, (q2 * w1 - q1 * wq) / determinant)
    }

    /// The nearest offset that can be stored.
    pub(crate) fn round_offset(&self, offset: f32) -> f32 {
        if self.offset { f16::from_f32(offset).to_f32() } else { 0.0 }
    }

    /// The scale with the least square error of the weights, each counted `importance` times.
    fn search_scale(&self, weights: &[f32], importance: &[f32]) -> f32 {
        let largest = weights.iter().fold(0.0f32, |m, &w| if w.abs() > m.abs() { w } else { m });
        if largest == 0.0 || !largest.is_finite() {
            return 0.0;
        }
        // Where the codes reach farther on one side, either side may be the one for the largest weight.
        let (full, other) = match self.min < -self.max {
            true => (largest / self.min, Some(largest / self.max)),
            false => (largest.abs() / self.max, None),
        };
        let error = |scale: f32| -> f32 {
            let inverse = 1.0 / scale;
            let each = weights.iter().zip(importance).map(|(&w, &importance)| {
                let error = w - self.code(w, inverse) * scale;
                error * error * importance
            });
            each.sum()
        };
        // Few levels cut off many weights.
        let least = if self.max < 2.0 { 0.2 } else { 0.5 };
        let steps = if self.max < 2.0 { 40 } else { 30 };
        let candidates = std::iter::once(full).chain(other).flat_map(|full| {
            (0..=steps).map(move |i| full * (1.06 - (1.06 - least) * i as f32 / steps as f32))
        });
        let candidates = candidates.map(|scale| {
            let scale = self.round_scale(scale);
            (if scale == 0.0 { f32::INFINITY } else { error(scale) }, scale)
        });
        candidates.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(0.0, |(_, scale)| scale)
    }
}
