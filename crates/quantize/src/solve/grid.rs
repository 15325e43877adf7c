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
    /// Weights that share a scale.
    pub(crate) group: usize,
}

impl Grid {
    /// Of a type whose rows have codes and scales that can be chosen; `cols` is the length of a row.
    pub(crate) fn of(row_type: RowType, cols: usize) -> Option<Self> {
        let grid =
            |min, max, scale, group| Some(Self { min, max, scale, group, signs: row_type == RowType::BG1 });
        match row_type {
            RowType::TG1 | RowType::BG1 => grid(-1.0, 1.0, ScaleType::Small, grouped::GROUP),
            RowType::TG2 => grid(-4.0, 4.0, ScaleType::Small, grouped::GROUP),
            RowType::Q4_0 | RowType::Int4 => grid(-8.0, 7.0, ScaleType::F16, 32),
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

    /// The scale with the least square error of the weights, each counted `importance` times.
    pub(crate) fn search_scale(&self, weights: &[f32], importance: &[f32]) -> f32 {
        let largest = weights.iter().fold(0.0f32, |m, &w| if w.abs() > m.abs() { w } else { m });
        if largest == 0.0 || !largest.is_finite() {
            return 0.0;
        }
        // Where the codes reach farther on one side, the largest weight is on that side.
        let full = if self.min < -self.max { largest / self.min } else { largest.abs() / self.max };
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
        let candidates = (0..=steps).map(|i| {
            let scale = self.round_scale(full * (1.06 - (1.06 - least) * i as f32 / steps as f32));
            (if scale == 0.0 { f32::INFINITY } else { error(scale) }, scale)
        });
        candidates.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(0.0, |(_, scale)| scale)
    }
}
