//! Codes and scales of the rows of a matrix, so that the layer's output changes least.
//!
//! What is minimized for each row is `e H e^T`, where e is what the stored row differs by from the wanted one. First
//! the columns are rounded one after another, each with the errors of those before it made good as far as it can
//! (GPTQ, arXiv 2210.17323, as the equal LDL form of QuIP, arXiv 2307.13304): with H = M D M^T, M lower triangular
//! with ones on its diagonal, that is `w_k - sum over j > k of e_j M_jk` from the last column to the first, a scale
//! searched for each group when its turn comes. Then codes and scales take turns, each moved to where the cost is
//! least while the others stay (coordinate descent; PT2-LLM, arXiv 2510.03267, refits its grids so), until a sweep
//! changes little.

use kernels::MatmulError;

use super::grid::Grid;
use super::metric::{Group, Metric};
use super::products::{Products, share_rows};

/// Sweeps over all groups after the first rounding.
const SWEEPS: usize = 6;
/// Turns that codes and scale of a group take in a sweep.
const TURNS: usize = 4;
/// A sweep that gains less than this share of the cost is the last.
const WORTH_A_SWEEP: f64 = 2e-3;

/// A matrix in codes.
#[derive(Debug, Clone)]
pub(crate) struct Codes {
    /// `[rows, cols]`
    pub(crate) codes: Vec<i8>,
    /// `[rows, groups]`
    pub(crate) scales: Vec<f32>,
}

/// The state of all rows; columns stand at the places of the metric.
struct State<'m> {
    metric: &'m Metric,
    grid: Grid,
    rows: usize,
    /// What is wanted, `[rows, n]`.
    wanted: Vec<f32>,
    /// Stored minus wanted, `[rows, n]`.
    errors: Vec<f32>,
    /// `[rows, n]`
    codes: Vec<f32>,
    /// `[rows, groups]`
    scales: Vec<f32>,
}

/// Finds codes for `weights`, `[rows, n]`. `correction`, `[rows, n]`, is `C - W H` where the wanted outputs are not
/// those of the weights on the inputs that H is of, C being the wanted outputs times those inputs.
pub(crate) fn solve(
    products: &mut Products,
    metric: &Metric,
    grid: Grid,
    weights: &[f32],
    correction: Option<&[f32]>,
) -> Result<Codes, MatmulError> {
    let n = metric.n;
    let rows = weights.len() / n;
    let mut wanted = metric.permuted(weights);
    if let Some(correction) = correction {
        let moved = divide(products, metric, metric.permuted(correction))?;
        wanted.iter_mut().zip(&moved).for_each(|(w, m)| *w += m);
    }
    let mut state = State {
        metric,
        grid,
        rows,
        errors: vec![0.0; wanted.len()],
        codes: vec![0.0; wanted.len()],
        scales: vec![0.0; rows * metric.groups.len()],
        wanted,
    };
    state.round_in_turn(products)?;
    let mut cost = state.cost(products)?;
    for _ in 0..SWEEPS {
        let gain = state.sweep(products)?;
        cost -= gain;
        if gain < WORTH_A_SWEEP * cost {
            break;
        }
    }
    let mut codes = vec![0; state.codes.len()];
    for (to, from) in codes.chunks_exact_mut(n).zip(state.codes.chunks_exact(n)) {
        metric.order.iter().zip(from).for_each(|(&c, &code)| to[c] = code as i8);
    }
    Ok(Codes { codes, scales: state.scales })
}

/// X of X H = B, both `[rows, n]`.
fn divide(products: &mut Products, metric: &Metric, mut b: Vec<f32>) -> Result<Vec<f32>, MatmulError> {
    let n = metric.n;
    let rows = b.len() / n;
    let diagonal: Vec<f32> = metric.conditional.iter().map(|c| c.sqrt()).collect();
    // B = Z L^T from the first column on, then Z = X L from the last one.
    for forward in [true, false] {
        let mut solved = vec![0.0; b.len()];
        let groups: Vec<&Group> =
            if forward { metric.groups.iter().collect() } else { metric.groups.iter().rev().collect() };
        for group in groups {
            let (start, end) = (group.start, group.end);
            let width = end - start;
            let factor = if forward { &metric.lower } else { &metric.upper };
            let mut known = vec![0.0; rows * width];
            products.load(&solved, n);
            products.times(factor, (start, end), &mut known)?;
            let local = factor.part((start, end), (start, end));
            let of_group = &diagonal[start..end];
            share_rows(
                products.threads(),
                rows,
                [&mut b, &mut solved, &mut known],
                |_, [b, solved, known]| {
                    let each =
                        b.chunks_exact_mut(n).zip(solved.chunks_exact_mut(n)).zip(known.chunks_exact(width));
                    for ((b, solved), known) in each {
                        let solved = &mut solved[start..end];
                        for i in 0..width {
                            if forward {
                                let own: f32 = (0..i).map(|j| solved[j] * local[i * width + j]).sum();
                                solved[i] = (b[start + i] - known[i] - own) / of_group[i];
                            } else {
                                let i = width - 1 - i;
                                let own: f32 = (i + 1..width).map(|j| solved[j] * local[i * width + j]).sum();
                                solved[i] = b[start + i] / of_group[i] - known[i] - own;
                            }
                        }
                    }
                },
            );
        }
        b = solved;
    }
    Ok(b)
}

impl State<'_> {
    /// Rounds column after column from the last one on.
    fn round_in_turn(&mut self, products: &mut Products) -> Result<(), MatmulError> {
        let n = self.metric.n;
        for group in self.metric.groups.iter().rev() {
            let (start, end) = (group.start, group.end);
            let width = end - start;
            let mut owed = vec![0.0; self.rows * width];
            products.load(&self.errors, n);
            products.times(&self.metric.upper, (start, end), &mut owed)?;
            let local = self.metric.upper.part((start, end), (start, end));
            let (grid, wanted) = (self.grid, &self.wanted);
            let importance = &self.metric.conditional[start..end];
            let (groups, index) = (self.metric.groups.len(), group.index);
            let arrays = [&mut self.errors[..], &mut self.codes, &mut self.scales, &mut owed];
            share_rows(products.threads(), self.rows, arrays, |first, [errors, codes, scales, owed]| {
                for r in 0..errors.len() / n {
                    let wanted = &wanted[(first + r) * n..][start..end];
                    let owed = &mut owed[r * width..][..width];
                    owed.iter_mut().zip(wanted).for_each(|(owed, w)| *owed = w - *owed);
                    let scale = grid.search_scale(owed, importance);
                    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
                    let errors = &mut errors[r * n..][start..end];
                    let codes = &mut codes[r * n..][start..end];
                    for k in (0..width).rev() {
                        let row = &local[k * width..][..width];
                        let own: f32 = (k + 1..width).map(|j| errors[j] * row[j]).sum();
                        codes[k] = grid.code(owed[k] - own, inverse);
                        errors[k] = codes[k] * scale - wanted[k];
                    }
                    scales[r * groups + index] = scale;
                }
            });
        }
        Ok(())
    }

    /// Moves codes and scales of every group to where the cost is least while the other groups stay; by how much the
    /// cost has sunk.
    fn sweep(&mut self, products: &mut Products) -> Result<f64, MatmulError> {
        let n = self.metric.n;
        let mut gains = vec![0.0; self.rows];
        for group in self.metric.groups.iter().rev() {
            let (start, end) = (group.start, group.end);
            let width = end - start;
            let mut slopes = vec![0.0; self.rows * width];
            products.load(&self.errors, n);
            products.times(&self.metric.h, (start, end), &mut slopes)?;
            let local = self.metric.h.part((start, end), (start, end));
            let (grid, groups, index) = (self.grid, self.metric.groups.len(), group.index);
            let arrays = [&mut self.errors[..], &mut self.codes, &mut self.scales, &mut slopes, &mut gains];
            share_rows(products.threads(), self.rows, arrays, |_, [errors, codes, scales, slopes, gains]| {
                let mut push = vec![0.0; width];
                for r in 0..errors.len() / n {
                    let mut place = Place {
                        grid,
                        local: &local,
                        errors: &mut errors[r * n..][start..end],
                        codes: &mut codes[r * n..][start..end],
                        slopes: &mut slopes[r * width..][..width],
                        scale: &mut scales[r * groups + index],
                        gain: &mut gains[r],
                    };
                    for _ in 0..TURNS {
                        let moved = place.move_scale(&mut push);
                        if !place.move_codes() && !moved {
                            break;
                        }
                    }
                }
            });
        }
        Ok(gains.iter().map(|&gain| f64::from(gain)).sum())
    }

    /// The sum of `e H e^T` over the rows.
    fn cost(&self, products: &mut Products) -> Result<f64, MatmulError> {
        let n = self.metric.n;
        let mut slopes = vec![0.0; self.errors.len()];
        products.load(&self.errors, n);
        products.times(&self.metric.h, (0, n), &mut slopes)?;
        Ok(self.errors.iter().zip(&slopes).map(|(&e, &s)| f64::from(e) * f64::from(s)).sum())
    }
}

/// A group of one row.
struct Place<'a> {
    grid: Grid,
    /// H among the columns of the group.
    local: &'a [f32],
    errors: &'a mut [f32],
    codes: &'a mut [f32],
    /// e H at the columns of the group: half the slope of the cost.
    slopes: &'a mut [f32],
    scale: &'a mut f32,
    /// By how much the row's cost has sunk.
    gain: &'a mut f32,
}

impl Place<'_> {
    /// Moves the scale to the best one that can be stored; whether it moved. `push` is room for a row of the group.
    fn move_scale(&mut self, push: &mut [f32]) -> bool {
        let width = self.codes.len();
        push.fill(0.0);
        for (row, &code) in self.local.chunks_exact(width).zip(&*self.codes) {
            if code != 0.0 {
                push.iter_mut().zip(row).for_each(|(push, h)| *push += code * h);
            }
        }
        let sum = |values: &[f32]| -> f32 { self.codes.iter().zip(values).map(|(q, v)| q * v).sum() };
        let (slope, curve) = (sum(self.slopes), sum(push));
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
        self.slopes.iter_mut().zip(&*push).for_each(|(s, p)| *s += by * p);
        true
    }

    /// Moves each code in turn to the best one; whether any moved.
    fn move_codes(&mut self) -> bool {
        let (width, scale) = (self.codes.len(), *self.scale);
        if scale == 0.0 {
            return false;
        }
        let (inverse, mut any) = (1.0 / scale, false);
        for k in 0..width {
            let row = &self.local[k * width..][..width];
            let code = self.grid.code(self.codes[k] * scale - self.slopes[k] / row[k], inverse);
            if code != self.codes[k] {
                let by = (code - self.codes[k]) * scale;
                *self.gain -= by * (2.0 * self.slopes[k] + by * row[k]);
                self.codes[k] = code;
                self.errors[k] += by;
                self.slopes.iter_mut().zip(row).for_each(|(slope, h)| *slope += by * h);
                any = true;
            }
        }
        any
    }
}
