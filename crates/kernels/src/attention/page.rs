//! Some query rows against one page of keys and values: the inner loops of attention, written once and compiled
//! for each instruction set (`arch/ops_*.rs`).
//!
//! A row's numbers do not depend on the rows beside it: a score is one sum over the head's elements in order,
//! and a value's element one sum over the visible positions in order, whatever else is kept in registers.

use std::ops::Range;

use super::cache::PAGE;
use crate::vector::{LANES, Vector, exp};

/// Keys and values of one head in one page. `next` are the keys of the page that comes after it, or empty: the
/// processor is asked for them early.
pub(crate) enum PageView<'a> {
    F32 { keys: &'a [f32], values: &'a [f32], next: &'a [f32] },
    F16 { keys: &'a [u16], values: &'a [u16], next: &'a [u16] },
    I8 { keys: &'a [i8], key_scales: &'a [f32], values: &'a [i8], value_scales: &'a [f32], next: &'a [i8] },
}

/// Query rows and what each sees of the page.
pub(crate) struct Rows<'a> {
    /// `[rows, head_dim]`, times the factor on scores.
    pub(crate) queries: &'a [f32],
    pub(crate) head_dim: usize,
    /// Visible positions of the page, `[rows]`.
    pub(crate) visible: &'a [Range<usize>],
}

/// Softmax in progress over the positions seen so far.
#[derive(Default)]
pub(crate) struct Running {
    /// Largest score, `[rows]`.
    pub(crate) max: Vec<f32>,
    /// Sum of e^(score - max), `[rows]`.
    pub(crate) sum: Vec<f32>,
    /// Values weighted with e^(score - max), `[rows, width]`.
    pub(crate) values: Vec<f32>,
    /// Working space, `[rows, PAGE]`: scores, then their exponentials.
    scores: Vec<[f32; PAGE]>,
    width: usize,
}

impl Running {
    /// Nothing seen by `rows` rows of values as long as `width`, a multiple of 16.
    pub(crate) fn reset(&mut self, rows: usize, width: usize) {
        self.width = width;
        self.max.clear();
        self.max.resize(rows, f32::NEG_INFINITY);
        self.sum.clear();
        self.sum.resize(rows, 0.0);
        self.values.clear();
        self.values.resize(rows * width, 0.0);
        self.scores.resize(rows.max(self.scores.len()), [0.0; PAGE]);
    }
}

/// Asks for the cache lines of a range that begins with one.
#[inline(always)]
fn prefetch<V: Vector, E>(x: &[E], range: Range<usize>) {
    for at in range.step_by(64 / size_of::<E>()) {
        V::prefetch(x, at);
    }
}

/// What a cached element is when it is read.
trait Element: Copy {
    fn load<V: Vector>(x: &[Self; LANES]) -> V;
}

impl Element for f32 {
    #[inline(always)]
    fn load<V: Vector>(x: &[Self; LANES]) -> V {
        V::load(x)
    }
}

impl Element for u16 {
    #[inline(always)]
    fn load<V: Vector>(x: &[Self; LANES]) -> V {
        V::load_f16(x)
    }
}

impl Element for i8 {
    #[inline(always)]
    fn load<V: Vector>(x: &[Self; LANES]) -> V {
        V::load_i8(x)
    }
}

/// Extends the softmax of all rows by the page's visible positions. `R` rows and `C` vectors are kept in
/// registers at a time.
#[inline(always)]
pub(crate) fn attend_page<V: Vector, const R: usize, const C: usize>(
    view: &PageView<'_>,
    rows: &Rows<'_>,
    running: &mut Running,
) {
    match *view {
        PageView::F32 { keys, values, next } => {
            groups::<V, f32, R, C>(rows, (keys, None), (values, None), next, running);
        }
        PageView::F16 { keys, values, next } => {
            groups::<V, u16, R, C>(rows, (keys, None), (values, None), next, running);
        }
        PageView::I8 { keys, key_scales, values, value_scales, next } => {
            let (keys, values) = ((keys, Some(key_scales)), (values, Some(value_scales)));
            groups::<V, i8, R, C>(rows, keys, values, next, running);
        }
    }
}

/// Elements and, for int8, a scale for each position.
type Scaled<'a, E> = (&'a [E], Option<&'a [f32]>);

#[inline(always)]
fn groups<V: Vector, E: Element, const R: usize, const C: usize>(
    rows: &Rows<'_>,
    keys: Scaled<'_, E>,
    values: Scaled<'_, E>,
    next: &[E],
    running: &mut Running,
) {
    let n = rows.visible.len();
    for first in (0..n / R * R).step_by(R) {
        group::<V, E, R, C>(first, rows, keys, values, next, running);
    }
    for first in n / R * R..n {
        group::<V, E, 1, 4>(first, rows, keys, values, next, running);
    }
}

#[inline(always)]
fn group<V: Vector, E: Element, const R: usize, const C: usize>(
    first: usize,
    rows: &Rows<'_>,
    keys: Scaled<'_, E>,
    values: Scaled<'_, E>,
    next: &[E],
    running: &mut Running,
) {
    // The first rows bring in what follows: the values beside the scores, the next keys beside the values.
    let (next, soon) = if first == 0 { (next, values.0) } else { (&next[..0], &values.0[..0]) };
    let visible = &rows.visible[first..][..R];
    if visible.iter().all(Range::is_empty) {
        return;
    }
    let mut queries = [&rows.queries[..0]; R];
    for (r, query) in queries.iter_mut().enumerate() {
        *query = &rows.queries[(first + r) * rows.head_dim..][..rows.head_dim];
    }
    scores::<V, E, R, C>(queries, keys, soon, &mut running.scores[first..][..R]);
    for (r, range) in visible.iter().enumerate().filter(|(_, range)| !range.is_empty()) {
        exponentials::<V>(first + r, range, values.1, running);
    }
    let width = running.width;
    let weights = &running.scores[first..][..R];
    let out = &mut running.values[first * width..][..R * width];
    // What all rows see goes through the registers together; what only some see row by row, in order.
    let common = visible.iter().fold(0..PAGE, |a, b| a.start.max(b.start)..a.end.min(b.end));
    for (r, range) in visible.iter().enumerate() {
        let before = if common.is_empty() { range.clone() } else { range.start..common.start };
        weigh::<V, E, 1, 4>([&weights[r]], values.0, before, next, &mut out[r * width..][..width]);
    }
    if common.is_empty() {
        return;
    }
    let mut all = [&[0.0; PAGE]; R];
    for (all, weights) in all.iter_mut().zip(weights) {
        *all = weights;
    }
    weigh::<V, E, R, C>(all, values.0, common.clone(), next, out);
    for (r, range) in visible.iter().enumerate() {
        let after = common.end..range.end;
        weigh::<V, E, 1, 4>([&weights[r]], values.0, after, next, &mut out[r * width..][..width]);
    }
}

/// Scores of `R` rows at all positions of the page.
#[inline(always)]
fn scores<V: Vector, E: Element, const R: usize, const C: usize>(
    queries: [&[f32]; R],
    (keys, scales): Scaled<'_, E>,
    soon: &[E],
    out: &mut [[f32; PAGE]],
) {
    let keys = keys.as_chunks::<PAGE>().0;
    let n = queries[0].len().min(keys.len());
    let queries = queries.map(|q| &q[..n]);
    for at in (0..PAGE / LANES).step_by(C) {
        let mut sums = [[V::splat(0.0); C]; R];
        for (i, keys) in keys[..n].iter().enumerate() {
            if at == 0 {
                prefetch::<V, E>(soon, i * PAGE..(i + 1) * PAGE);
            }
            let keys = keys.as_chunks::<LANES>().0;
            let mut k = [V::splat(0.0); C];
            for c in 0..C {
                k[c] = E::load(&keys[at + c]);
            }
            for r in 0..R {
                let q = V::splat(queries[r][i]);
                for c in 0..C {
                    sums[r][c] = q.mul_add(k[c], sums[r][c]);
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            for (c, sum) in sums.into_iter().enumerate() {
                let scale = scales.map(|s| &s.as_chunks::<LANES>().0[at + c]);
                let score = scale.map_or(sum, |scale| sum.mul(V::load(scale)));
                score.store(&mut out.as_chunks_mut::<LANES>().0[at + c]);
            }
        }
    }
}

/// Turns the scores of a row into e^(score - max) and adds them up; values so far are scaled to the new maximum.
#[inline(always)]
fn exponentials<V: Vector>(
    row: usize,
    visible: &Range<usize>,
    value_scales: Option<&[f32]>,
    running: &mut Running,
) {
    let scores = &mut running.scores[row];
    scores[..visible.start].fill(f32::NEG_INFINITY);
    scores[visible.end..].fill(f32::NEG_INFINITY);
    let largest =
        scores.as_chunks::<LANES>().0.iter().fold(V::splat(running.max[row]), |m, s| V::load(s).max(m));
    let max = largest.max_lane();
    // Of a single number, but by the same function as all others.
    let shrink = max_to_max::<V>(running.max[row], max);
    for s in scores.as_chunks_mut::<LANES>().0 {
        exp(V::load(s).sub(V::splat(max))).store(s);
    }
    scores[..visible.start].fill(0.0);
    scores[visible.end..].fill(0.0);
    let sum = scores.as_chunks::<LANES>().0.iter().fold(V::splat(0.0), |sum, s| sum.add(V::load(s)));
    running.sum[row] = running.sum[row] * shrink + sum.sum();
    running.max[row] = max;
    if shrink != 1.0 {
        let values = &mut running.values[row * running.width..][..running.width];
        scale::<V>(values, shrink);
    }
    if let Some(scales) = value_scales {
        let scales = scales.as_chunks::<LANES>().0;
        for (s, scale) in scores.as_chunks_mut::<LANES>().0.iter_mut().zip(scales) {
            V::load(s).mul(V::load(scale)).store(s);
        }
    }
}

/// e^(from - to): what sums relative to the maximum `from` are multiplied with to be relative to `to`.
#[inline(always)]
fn max_to_max<V: Vector>(from: f32, to: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    exp(V::splat(from - to)).store(&mut lanes);
    lanes[0]
}

#[inline(always)]
fn scale<V: Vector>(x: &mut [f32], factor: f32) {
    for x in x.as_chunks_mut::<LANES>().0 {
        V::load(x).mul(V::splat(factor)).store(x);
    }
}

/// `out[r] += sum of weights[r][j] * values[j]` over the positions of `range`.
#[inline(always)]
fn weigh<V: Vector, E: Element, const R: usize, const C: usize>(
    weights: [&[f32; PAGE]; R],
    values: &[E],
    range: Range<usize>,
    next: &[E],
    out: &mut [f32],
) {
    if range.is_empty() {
        return;
    }
    let width = out.len() / R;
    let vectors = width / LANES;
    let whole = vectors / C * C;
    for at in (0..whole).step_by(C) {
        let next = if at == 0 { next } else { &next[..0] };
        weigh_columns::<V, E, R, C>(weights, values, range.clone(), next, at, out);
    }
    for at in whole..vectors {
        weigh_columns::<V, E, R, 1>(weights, values, range.clone(), &next[..0], at, out);
    }
}

/// [`weigh`] of `C` vectors from vector `at` on.
#[inline(always)]
fn weigh_columns<V: Vector, E: Element, const R: usize, const C: usize>(
    weights: [&[f32; PAGE]; R],
    values: &[E],
    range: Range<usize>,
    next: &[E],
    at: usize,
    out: &mut [f32],
) {
    let width = out.len() / R;
    // Of the next keys, as much for each position as brings in all of them.
    let share = next.len() / PAGE;
    let mut sums = [[V::splat(0.0); C]; R];
    for (sums, out) in sums.iter_mut().zip(out.chunks_exact(width)) {
        let out = &out.as_chunks::<LANES>().0[at..][..C];
        for c in 0..C {
            sums[c] = V::load(&out[c]);
        }
    }
    let range = range.start..range.end.min(PAGE);
    for (j, row) in range.clone().zip(values[range.start * width..].chunks_exact(width)) {
        prefetch::<V, E>(next, j * share..(j + 1) * share);
        let row = &row.as_chunks::<LANES>().0[at..][..C];
        let mut v = [V::splat(0.0); C];
        for c in 0..C {
            v[c] = E::load(&row[c]);
        }
        for r in 0..R {
            let weight = V::splat(weights[r][j]);
            for c in 0..C {
                sums[r][c] = weight.mul_add(v[c], sums[r][c]);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(width)) {
        let out = &mut out.as_chunks_mut::<LANES>().0[at..][..C];
        for c in 0..C {
            sums[c].store(&mut out[c]);
        }
    }
}

/// One row's softmax over some of its positions, `[width + 2]`: values weighted with e^(score - max), then the
/// maximum and the sum of those weights.
pub(crate) fn part_len(width: usize) -> usize {
    width + 2
}

impl Running {
    /// Writes what each row has seen as a part, `[rows, part_len]`.
    pub(crate) fn write_parts(&self, parts: &mut [f32]) {
        let rows = self.values.chunks_exact(self.width).zip(self.max.iter().zip(&self.sum));
        for (part, (values, (&max, &sum))) in parts.chunks_exact_mut(part_len(self.width)).zip(rows) {
            let (part_values, rest) = part.split_at_mut(self.width);
            part_values.copy_from_slice(values);
            rest.copy_from_slice(&[max, sum]);
        }
    }
}

/// Nothing seen.
pub(crate) fn empty_part(part: &mut [f32]) {
    let n = part.len();
    part.fill(0.0);
    part[n - 2] = f32::NEG_INFINITY;
}

/// Joins `part` to `total`, which stands for the positions before it.
#[inline(always)]
pub(crate) fn merge<V: Vector>(part: &[f32], total: &mut [f32]) {
    let (values, state) = part.split_at(part.len() - 2);
    let (sums, total_state) = total.split_at_mut(part.len() - 2);
    let ([part_max, part_sum], [total_max, total_sum]) =
        ([state[0], state[1]], [total_state[0], total_state[1]]);
    if part_sum == 0.0 {
        return;
    }
    let max = if part_max > total_max { part_max } else { total_max };
    let (old, new) = (max_to_max::<V>(total_max, max), max_to_max::<V>(part_max, max));
    total_state.copy_from_slice(&[max, total_sum * old + part_sum * new]);
    let values = values.as_chunks::<LANES>().0;
    for (sum, values) in sums.as_chunks_mut::<LANES>().0.iter_mut().zip(values) {
        V::load(sum).mul(V::splat(old)).add(V::load(values).mul(V::splat(new))).store(sum);
    }
}

/// The attention of a row that has seen all of its positions, `[head_dim]`.
pub(crate) fn finish(total: &[f32], out: &mut [f32]) {
    let inverse = 1.0 / total[total.len() - 1];
    for (out, &value) in out.iter_mut().zip(total) {
        // + 0: minus zero and zero would be told apart by the way that parts were joined.
        *out = value * inverse + 0.0;
    }
}
