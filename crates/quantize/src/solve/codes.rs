//! Codes and scales of the rows of a matrix, so that the layer's output changes least.
//!
//! What is minimized for each row is `e H e^T`, where e is what the stored row differs by from the wanted one. First
//! the columns are rounded one after another, each with the errors of those before it made good as far as it can
//! (GPTQ, arXiv 2210.17323, as the equal LDL form of QuIP, arXiv 2307.13304): with H = M D M^T, M lower triangular
//! with ones on its diagonal, that is `w_k - sum over j > k of e_j M_jk` from the last column to the first, a scale
//! searched for each group when its turn comes. Then codes and scales take turns, each moved to where the cost is
//! least while the others stay (coordinate descent; PT2-LLM, arXiv 2510.03267, refits its grids so), until a sweep
//! changes little.

use half::f16;
use kernels::MatmulError;
use kernels::codec::{CodecError, encode_row};
use kernels::row::RowType;

use super::grid::Grid;
use super::metric::{Group, Metric};
use super::place::Place;
use super::products::{Products, share_rows};

/// Sweeps over all groups after the first rounding.
pub(crate) const SWEEPS: usize = 6;
/// Turns that codes and scale of a group take in a sweep.
const TURNS: usize = 4;
/// A sweep that gains less than this share of the cost is the last.
const WORTH_A_SWEEP: f64 = 1e-2;

/// A matrix in codes.
#[derive(Debug, Clone)]
pub(crate) struct Codes {
    /// `[rows, cols]`
    pub(crate) codes: Vec<i8>,
    /// `[rows, groups]`
    pub(crate) scales: Vec<f32>,
    /// Likewise; zeros where the grid has none.
    pub(crate) offsets: Vec<f32>,
    /// What is left of `e H e^T` of each row.
    pub(crate) costs: Vec<f64>,
    /// The rows that plain rounding does better.
    pub(crate) beaten: Vec<bool>,
}

impl Codes {
    /// Row `r` as `row_type` stores it, to `out`; groups are `group` columns.
    pub(crate) fn encode(
        &self,
        row_type: RowType,
        (r, n, group): (usize, usize, usize),
        out: &mut [u8],
    ) -> Result<(), CodecError> {
        let groups = n.div_ceil(group);
        let of_row = r * groups..(r + 1) * groups;
        let (q, scales) = (&self.codes[r * n..][..n], &self.scales[of_row.clone()]);
        if row_type != RowType::Q4_1 {
            return encode_row(row_type, q, scales, out);
        }
        let blocks = out.as_chunks_mut::<20>().0.iter_mut().zip(q.as_chunks::<32>().0);
        for ((out, q), (scale, offset)) in blocks.zip(scales.iter().zip(&self.offsets[of_row])) {
            out[..2].copy_from_slice(&f16::from_f32(*scale).to_le_bytes());
            out[2..4].copy_from_slice(&f16::from_f32(*offset).to_le_bytes());
            for (i, out) in out[4..].iter_mut().enumerate() {
                *out = q[i] as u8 | (q[i + 16] as u8) << 4;
            }
        }
        Ok(())
    }
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
    /// Likewise.
    offsets: Vec<f32>,
}

/// Finds codes for `weights`, `[rows, n]`, in the first rounding and at most `sweeps` sweeps. `correction`, `[rows, n]`, is
/// `C - W H` where the wanted outputs are not those of the weights on the inputs that H is of, C being the wanted outputs
/// times those inputs. `plain` are the values of the rows as plain rounding makes them, to be held against.
pub(crate) fn solve(
    products: &mut Products,
    metric: &Metric,
    grid: Grid,
    weights: &[f32],
    correction: Option<&[f32]>,
    plain: Option<&[f32]>,
    sweeps: usize,
) -> Result<Codes, MatmulError> {
    let n = metric.n;
    let rows = weights.len() / n;
    let mut wanted = metric.permuted(weights);
    let plain = plain.map(|plain| metric.permuted(plain));
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
        offsets: vec![0.0; rows * metric.groups.len()],
        wanted,
    };
    state.round_in_turn(products)?;
    let mut cost: f64 = state.costs(products)?.iter().sum();
    for _ in 0..sweeps {
        let gain = state.sweep(products)?;
        cost -= gain;
        if gain < WORTH_A_SWEEP * cost {
            break;
        }
    }
    let mut costs = state.costs(products)?;
    let mut beaten = vec![false; rows];
    if let Some(plain) = plain {
        let errors: Vec<f32> = plain.iter().zip(&state.wanted).map(|(p, w)| p - w).collect();
        for ((plain, cost), beaten) in
            self::costs(products, metric, &errors)?.into_iter().zip(&mut costs).zip(&mut beaten)
        {
            *beaten = plain <= *cost;
            *cost = cost.min(plain);
        }
    }
    let mut codes = vec![0; state.codes.len()];
    for (to, from) in codes.chunks_exact_mut(n).zip(state.codes.chunks_exact(n)) {
        metric.order.iter().zip(from).for_each(|(&c, &code)| to[c] = code as i8);
    }
    Ok(Codes { codes, scales: state.scales, offsets: state.offsets, costs, beaten })
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
            let arrays =
                [&mut self.errors[..], &mut self.codes, &mut self.scales, &mut self.offsets, &mut owed];
            share_rows(
                products.threads(),
                self.rows,
                arrays,
                |first, [errors, codes, scales, offsets, owed]| {
                    for r in 0..errors.len() / n {
                        let wanted = &wanted[(first + r) * n..][start..end];
                        let owed = &mut owed[r * width..][..width];
                        owed.iter_mut().zip(wanted).for_each(|(owed, w)| *owed = w - *owed);
                        let (scale, offset) = grid.search(owed, importance);
                        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
                        let errors = &mut errors[r * n..][start..end];
                        let codes = &mut codes[r * n..][start..end];
                        for k in (0..width).rev() {
                            let row = &local[k * width..][..width];
                            let own: f32 = (k + 1..width).map(|j| errors[j] * row[j]).sum();
                            codes[k] = grid.code(owed[k] - own - offset, inverse);
                            errors[k] = codes[k] * scale + offset - wanted[k];
                        }
                        scales[r * groups + index] = scale;
                        offsets[r * groups + index] = offset;
                    }
                },
            );
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
            // By what a common move of a whole group turns its slopes.
            let all: Vec<f32> = local.chunks_exact(width).map(|row| row.iter().sum()).collect();
            let arrays = [
                &mut self.errors[..],
                &mut self.codes,
                &mut self.scales,
                &mut self.offsets,
                &mut slopes,
                &mut gains,
            ];
            share_rows(products.threads(), self.rows, arrays, |_, arrays| {
                let [errors, codes, scales, offsets, slopes, gains] = arrays;
                let mut push = vec![0.0; width];
                for r in 0..errors.len() / n {
                    let mut place = Place {
                        grid,
                        local: &local,
                        errors: &mut errors[r * n..][start..end],
                        codes: &mut codes[r * n..][start..end],
                        slopes: &mut slopes[r * width..][..width],
                        scale: &mut scales[r * groups + index],
                        offset: &mut offsets[r * groups + index],
                        push: &mut push,
                        gain: &mut gains[r],
                    };
                    place.begin();
                    for _ in 0..TURNS {
                        let mut moved = place.move_scale();
                        moved |= grid.offset && place.move_offset(&all);
                        if !place.move_codes() && !moved {
                            break;
                        }
                    }
                }
            });
        }
        Ok(gains.iter().map(|&gain| f64::from(gain)).sum())
    }

    /// `e H e^T` of each row.
    fn costs(&self, products: &mut Products) -> Result<Vec<f64>, MatmulError> {
        costs(products, self.metric, &self.errors)
    }
}

/// `e H e^T` of each row of `errors`, `[rows, n]`, its columns in the metric's order.
fn costs(products: &mut Products, metric: &Metric, errors: &[f32]) -> Result<Vec<f64>, MatmulError> {
    let n = metric.n;
    let mut slopes = vec![0.0; errors.len()];
    products.load(errors, n);
    products.times(&metric.h, (0, n), &mut slopes)?;
    let each = errors.chunks_exact(n).zip(slopes.chunks_exact(n));
    Ok(each.map(|(e, s)| e.iter().zip(s).map(|(&e, &s)| f64::from(e) * f64::from(s)).sum()).collect())
}

#[cfg(test)]
mod tests {
    use kernels::codec::{dequantize_row, quantize_row};

    use super::*;

    const N: usize = 96;
    const ROWS: usize = 12;

    /// Numbers between -1 and 1.
    fn noise(seed: u32, len: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// Second moments of inputs that hang together: each is a sum of its neighbours' noise.
    fn moments() -> Vec<f32> {
        let tokens = 400;
        let raw = noise(7, tokens * N);
        let mut h = vec![0.0; N * N];
        for x in raw.chunks_exact(N) {
            let x: Vec<f32> = (0..N).map(|i| (0..8).map(|d| x[(i + d) % N]).sum()).collect();
            for (row, a) in h.chunks_exact_mut(N).zip(&x) {
                row.iter_mut().zip(&x).for_each(|(h, b)| *h += a * b);
            }
        }
        h
    }

    fn plain(row_type: RowType, weights: &[f32]) -> Vec<f32> {
        let mut bytes = vec![0; row_type.row_bytes(N).unwrap()];
        let mut values = vec![0.0; weights.len()];
        for (row, back) in weights.chunks_exact(N).zip(values.chunks_exact_mut(N)) {
            quantize_row(row_type, row, &mut bytes).unwrap();
            dequantize_row(row_type, &bytes, back).unwrap();
        }
        values
    }

    fn cost(h: &[f32], weights: &[f32], stored: &[f32]) -> f64 {
        let errors: Vec<f32> = stored.iter().zip(weights).map(|(s, w)| s - w).collect();
        let each = errors.chunks_exact(N).flat_map(|e| {
            h.chunks_exact(N).zip(e).map(|(h, a)| f64::from(*a) * super::super::metric::dot(h, e))
        });
        each.sum()
    }

    fn solved(row_type: RowType, h: &[f32], weights: &[f32], plain: Option<&[f32]>) -> (Codes, Vec<f32>) {
        let grid = Grid::of(row_type, N).unwrap();
        let metric = Metric::new(h, N, grid.group, 400);
        let found = solve(&mut Products::new(1), &metric, grid, weights, None, plain, SWEEPS).unwrap();
        let mut bytes = vec![0; row_type.row_bytes(N).unwrap()];
        let mut values = vec![0.0; weights.len()];
        for (r, back) in values.chunks_exact_mut(N).enumerate() {
            found.encode(row_type, (r, N, grid.group), &mut bytes).unwrap();
            dequantize_row(row_type, &bytes, back).unwrap();
        }
        (found, values)
    }

    #[test]
    fn the_output_changes_less_than_by_rounding() {
        let (h, weights) = (moments(), noise(3, ROWS * N));
        for (row_type, share) in [
            (RowType::TG1, 0.5),
            (RowType::TG2, 0.4),
            (RowType::BG1, 0.5),
            (RowType::Q4_0, 0.4),
            (RowType::Q4_1, 0.4),
        ] {
            let (_, values) = solved(row_type, &h, &weights, None);
            let (ours, theirs) =
                (cost(&h, &weights, &values), cost(&h, &weights, &plain(row_type, &weights)));
            assert!(ours < share * theirs, "{row_type}: {ours}, rounded {theirs}");
        }
    }

    #[test]
    fn what_the_type_holds_exactly_stays() {
        let h = moments();
        for row_type in [RowType::Q4_0, RowType::Q4_1, RowType::TG1, RowType::TG2] {
            let weights = plain(row_type, &noise(5, ROWS * N));
            let (found, _) = solved(row_type, &h, &weights, Some(&weights));
            assert!(found.beaten.iter().all(|&beaten| beaten), "{row_type}: {:?}", found.costs);
            assert!(found.costs.iter().all(|&cost| cost == 0.0), "{row_type}: {:?}", found.costs);
        }
    }
}
