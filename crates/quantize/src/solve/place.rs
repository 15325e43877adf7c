//! A group of one row, and the moves that bring its cost down while the other groups stay.

use super::grid::Grid;

/// A group of one row.
pub(super) struct Place<'a> {
    pub(super) grid: Grid,
    /// H among the columns of the group.
    pub(super) local: &'a [f32],
    pub(super) errors: &'a mut [f32],
    pub(super) codes: &'a mut [f32],
    /// e H at the columns of the group: half the slope of the cost.
    pub(super) slopes: &'a mut [f32],
    pub(super) scale: &'a mut f32,
    pub(super) offset: &'a mut f32,
    /// The codes times H among the columns of the group: by what a move of the scale turns the slopes.
    pub(super) push: &'a mut [f32],
    /// By how much the row's cost has sunk.
    pub(super) gain: &'a mut f32,
}

impl Place<'_> {
    /// Works out `push`, which the moves keep up to date.
    pub(super) fn begin(&mut self) {
        self.push.fill(0.0);
        for (row, &code) in self.local.chunks_exact(self.codes.len()).zip(&*self.codes) {
            if code != 0.0 {
                self.push.iter_mut().zip(row).for_each(|(push, h)| *push += code * h);
            }
        }
    }

    /// Moves the scale to the best one that can be stored; whether it moved.
    pub(super) fn move_scale(&mut self) -> bool {
        let sum = |values: &[f32]| -> f32 { self.codes.iter().zip(values).map(|(q, v)| q * v).sum() };
        let (slope, curve) = (sum(self.slopes), sum(self.push));
        if curve <= 0.0 {
            return false;
        }
        let moved = self.grid.round_scale(*self.scale - slope / curve);
        let by = moved - *self.scale;
        // A scale that vanishes or turns round belongs to other codes than these.
        let change = 2.0 * by * slope + by * by * curve;
        if by == 0.0 || moved * *self.scale <= 0.0 || change >= 0.0 {
            return false;
        }
        *self.gain -= change;
        *self.scale = moved;
        self.errors.iter_mut().zip(&*self.codes).for_each(|(e, q)| *e += by * q);
        self.slopes.iter_mut().zip(&*self.push).for_each(|(s, p)| *s += by * p);
        true
    }

    /// Moves the offset to the best one that can be stored; whether it moved. `all` are the sums of the rows of H among
    /// the columns of the group.
    pub(super) fn move_offset(&mut self, all: &[f32]) -> bool {
        let (slope, curve) = (self.slopes.iter().sum::<f32>(), all.iter().sum::<f32>());
        if curve <= 0.0 {
            return false;
        }
        let moved = self.grid.round_offset(*self.offset - slope / curve);
        let by = moved - *self.offset;
        let change = 2.0 * by * slope + by * by * curve;
        if by == 0.0 || change >= 0.0 {
            return false;
        }
        *self.gain -= change;
        *self.offset = moved;
        self.errors.iter_mut().for_each(|e| *e += by);
        self.slopes.iter_mut().zip(all).for_each(|(s, a)| *s += by * a);
        true
    }

    /// Moves each code in turn to the best one; whether any moved.
    pub(super) fn move_codes(&mut self) -> bool {
        let (width, scale) = (self.codes.len(), *self.scale);
        if scale == 0.0 {
            return false;
        }
        let (inverse, mut any) = (1.0 / scale, false);
        for k in 0..width {
            let row = &self.local[k * width..][..width];
            let code = self.grid.code(self.codes[k] * scale - self.slopes[k] / row[k], inverse);
            if code != self.codes[k] {
                let steps = code - self.codes[k];
                let by = steps * scale;
                *self.gain -= by * (2.0 * self.slopes[k] + by * row[k]);
                self.codes[k] = code;
                self.errors[k] += by;
                for ((slope, push), h) in self.slopes.iter_mut().zip(&mut *self.push).zip(row) {
                    *slope += by * h;
                    *push += steps * h;
                }
                any = true;
            }
        }
        any
    }
}
