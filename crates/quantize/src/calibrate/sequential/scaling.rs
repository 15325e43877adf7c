//! Columns that are scaled before they are rounded, and their norm against it.
//!
//! Columns whose inputs are large are made larger and the norm's weights smaller, so that the model stays the same and the
//! scale of a group minds what matters in it (activation-aware scaling, AWQ, arXiv 2306.00978). The power of the inputs'
//! magnitude is the one with which some of the rows, rounded as all rows will be, change the outputs least; 0 is among the
//! powers tried.

use engine::layerwise::Input;
use engine::weights::Layer;
use kernels::row::RowType;

use super::Run;
use super::fit::{Fit, times_columns};
use super::rows::plain;
use crate::quantize::QuantizeError;
use crate::solve::{Grid, Metric, solve};

/// Powers of the inputs' magnitude that are tried.
const POWERS: [f32; 3] = [0.0, 0.25, 0.5];
/// Of so many rows one is rounded to try them.
const EVERY: usize = 8;
/// Factors, with a geometric mean of 1, are kept between this and its inverse.
const LEAST: f32 = 0.02;
/// What magnitudes are at least, as a share of their mean.
const FLOOR: f32 = 1e-3;

/// Some rows of a matrix.
struct Probe<'m> {
    name: &'m str,
    row_type: RowType,
    grid: Grid,
    /// `[_, n]`
    rows: Vec<f32>,
}

impl Run<'_> {
    /// What the columns of the layers of an input are multiplied with, and their norm divided by; none where a layer's
    /// codes are not chosen here.
    pub(super) fn choose_scale(
        &mut self,
        layer: &Layer,
        input: Input,
        fit: &Fit,
    ) -> Result<Option<Vec<f32>>, QuantizeError> {
        let Some(probes) = self.probes(layer, input)? else { return Ok(None) };
        let n = fit.n;
        let magnitude: Vec<f32> =
            (0..n).map(|i| (fit.h[i * n + i] / fit.tokens.max(1) as f32).sqrt()).collect();
        let floor = magnitude.iter().sum::<f32>() / n as f32 * FLOOR + f32::MIN_POSITIVE;
        let logs: Vec<f32> = magnitude.iter().map(|m| m.max(floor).ln()).collect();
        let mean = logs.iter().sum::<f32>() / n as f32;
        let mut best: Option<(f64, Vec<f32>)> = None;
        for power in POWERS {
            let scale: Vec<f32> =
                logs.iter().map(|log| (power * (log - mean)).exp().clamp(LEAST, 1.0 / LEAST)).collect();
            let cost = self.cost_of(&probes, fit, &scale)?;
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, scale));
            }
        }
        Ok(best.map(|(_, scale)| scale))
    }

    /// Some rows of each layer of an input; none where a layer's codes are not chosen here.
    fn probes<'m>(&self, layer: &'m Layer, input: Input) -> Result<Option<Vec<Probe<'m>>>, QuantizeError> {
        let mut probes = Vec::new();
        for linear in input.linears(layer) {
            let weight = &linear.weight;
            let Some(row_type) = self.row_type(&weight.name) else { return Ok(None) };
            let Some(grid) = Grid::of(row_type, weight.cols) else { return Ok(None) };
            let wrong = QuantizeError::matrix(&weight.name);
            let view = weight.view().map_err(&wrong)?;
            let mut rows = vec![0.0; weight.rows.div_ceil(EVERY) * weight.cols];
            for (r, row) in rows.chunks_exact_mut(weight.cols).enumerate() {
                view.dequantize_row(r * EVERY, row).map_err(&wrong)?;
            }
            probes.push(Probe { name: &weight.name, row_type, grid, rows });
        }
        Ok(Some(probes))
    }

    /// What is left of the probes' error when their columns are scaled before they are rounded.
    fn cost_of(&mut self, probes: &[Probe<'_>], fit: &Fit, scale: &[f32]) -> Result<f64, QuantizeError> {
        let n = fit.n;
        let mut scaled = Fit { n, tokens: fit.tokens, h: fit.h.clone(), cross: Vec::new(), outputs: true };
        scaled.rescale(scale);
        let (mut metric, mut cost): (Option<(usize, Metric)>, f64) = (None, 0.0);
        for probe in probes {
            let mut rows = probe.rows.clone();
            times_columns(&mut rows, scale);
            let group = probe.grid.group;
            let (_, metric) = match metric.take().filter(|(of, _)| *of == group) {
                Some(same) => metric.insert(same),
                None => metric.insert((group, Metric::new(&scaled.h, n, group, fit.tokens))),
            };
            let (_, plain) = plain(probe.name, probe.row_type, &rows, n)?;
            let codes = solve(&mut self.products, metric, probe.grid, &rows, None, Some(&plain), 0);
            let codes = codes.map_err(QuantizeError::matrix(probe.name))?;
            cost += codes.costs.iter().sum::<f64>();
        }
        Ok(cost)
    }
}
