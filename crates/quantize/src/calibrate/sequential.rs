//! Block after block: each is fitted to the original model's outputs on what the blocks before it, already rounded,
//! give it.
//!
//! Two residual streams go through the model: that of the original and that of what has been rounded so far. A layer's
//! inputs in the second are what its error is measured on, and its outputs in the first what they are fitted to, so
//! that it also makes good what earlier layers have lost (as GPTAQ, arXiv 2504.02692, and Qronos, arXiv 2505.11695,
//! do). wo and w2 add to the residual stream: what they are fitted to is the whole difference to the original stream.

mod norms;

use std::collections::HashMap;

use engine::Model;
use engine::layerwise::{Input, Layerwise};
use engine::weights::{Layer, WeightMatrix};
use kernels::MatmulError;
use kernels::codec::encode_row;
use kernels::row::RowType;

use super::Statistics;
use super::moments::Moments;
use super::norm::NormFit;
use crate::convert::exact::check_finite;
use crate::quantize::{Journal, Options, Plan, Progress, QuantizeError};
use crate::solve::{Grid, Metric, Products, Rows, solve};
pub(crate) use norms::{FINAL_NORM, norm_name};

/// Rounds the matrices of the plan that are not in the journal yet; how many were.
pub(crate) fn all(
    model: &Model,
    plan: &Plan,
    options: &Options,
    journal: &mut Journal,
    progress: &mut Progress<'_>,
) -> Result<usize, QuantizeError> {
    let samples = match &options.statistics {
        Some(_) => Vec::new(),
        None => options.text.samples(model)?,
    };
    let context = samples.iter().map(Vec::len).max().unwrap_or(1);
    let done: HashMap<String, WeightMatrix> =
        journal.matrices()?.into_iter().map(|matrix| (matrix.name.clone(), matrix)).collect();
    let mut run = Run {
        model,
        plan,
        statistics: options.statistics.as_ref(),
        resumed: done.len(),
        done,
        journal,
        products: Products::new(model.threads()),
        layerwise: Layerwise::new(model, context)?,
        finished: 0,
    };
    let embedding = run.globals(progress)?;
    let (mut original, mut rounded) = (Vec::new(), Vec::new());
    for ids in &samples {
        original.push(embed(model, &model.weights.token_embedding, ids)?);
        rounded.push(embed(model, embedding.as_ref().unwrap_or(&model.weights.token_embedding), ids)?);
    }
    for (l, layer) in model.weights.layers.iter().enumerate() {
        let wrong = QuantizeError::matrix(&layer.wq.weight.name);
        let mut block = Block {
            l,
            original: layer.in_f32().map_err(&wrong)?,
            rounded: layer.in_f32().map_err(&wrong)?,
            from: &mut original,
            to: &mut rounded,
        };
        for input in Input::OF_BLOCK {
            run.stage(&mut block, input, progress)?;
        }
    }
    if options.statistics.is_none() {
        run.final_norm(&original, &rounded)?;
    }
    Ok(run.resumed)
}

/// How little the correction is trusted for each column that there is to a token.
const DOUBT: f32 = 20.0;

/// The embeddings of some tokens, `[tokens, dim]`.
fn embed(model: &Model, table: &WeightMatrix, ids: &[u32]) -> Result<Vec<f32>, QuantizeError> {
    let wrong = QuantizeError::matrix(&table.name);
    let view = table.view().map_err(&wrong)?;
    let mut x = vec![0.0; ids.len() * table.cols];
    for (&id, row) in ids.iter().zip(x.chunks_exact_mut(table.cols)) {
        view.dequantize_row(id as usize, row).map_err(&wrong)?;
        row.iter_mut().for_each(|x| *x *= model.config.embedding_scale);
    }
    Ok(x)
}

struct Run<'a> {
    model: &'a Model,
    plan: &'a Plan,
    /// What takes the place of the streams.
    statistics: Option<&'a Statistics>,
    /// What an earlier run has made.
    done: HashMap<String, WeightMatrix>,
    journal: &'a mut Journal,
    products: Products,
    layerwise: Layerwise<'a>,
    finished: usize,
    resumed: usize,
}

/// A block on its way.
struct Block<'a> {
    l: usize,
    original: Layer,
    /// The same with what has been rounded of it.
    rounded: Layer,
    /// The residual stream of the original before the half of the block that is worked on.
    from: &'a mut [Vec<f32>],
    /// That of the rounded model.
    to: &'a mut [Vec<f32>],
}

/// What the layers of one input are fitted to.
struct Fit {
    n: usize,
    tokens: usize,
    /// Second moments of the rounded model's inputs, `[n, n]`.
    h: Vec<f32>,
    /// Of outputs wanted and those inputs, `[rows, n]`, or of those inputs and the original's, `[n, n]`.
    cross: Vec<f32>,
    /// Whether `cross` has outputs.
    outputs: bool,
}

impl Run<'_> {
    fn row_type(&self, name: &str) -> Option<RowType> {
        self.plan.steps.iter().find(|step| step.name == name).map(|step| step.row_type)
    }

    /// Rounds what is outside the blocks; the embedding, if it is among that.
    fn globals(&mut self, progress: &mut Progress<'_>) -> Result<Option<WeightMatrix>, QuantizeError> {
        let weights = &self.model.weights;
        for matrix in std::iter::once(&weights.token_embedding).chain(&weights.wcls) {
            let Some(row_type) = self.row_type(&matrix.name) else { continue };
            self.tell(&matrix.name, progress);
            if !self.done.contains_key(&matrix.name) {
                let bytes = crate::quantize::rounded(matrix, row_type)?;
                self.journal.append(&matrix.name, row_type, (matrix.rows, matrix.cols), &bytes)?;
            }
        }
        let made = self.journal.matrices()?;
        Ok(made.into_iter().find(|matrix| matrix.name == weights.token_embedding.name))
    }

    fn tell(&mut self, name: &str, progress: &mut Progress<'_>) {
        progress(name, self.finished, self.plan.steps.len());
        self.finished += 1;
    }

    /// Rounds the layers of one input, and takes the streams on where a half of the block is complete.
    fn stage(
        &mut self,
        block: &mut Block<'_>,
        input: Input,
        progress: &mut Progress<'_>,
    ) -> Result<(), QuantizeError> {
        let names: Vec<String> =
            input.linears(&block.original).iter().map(|linear| linear.weight.name.clone()).collect();
        let norm = norm_name(block.l, input);
        let missing = |name: &String| self.row_type(name).is_some() && !self.done.contains_key(name);
        let refits = norm.as_ref().is_some_and(|norm| !self.done.contains_key(norm));
        let open =
            names.iter().any(missing) || refits && names.iter().any(|name| self.row_type(name).is_some());
        let mut norm_fit = None;
        let advances = matches!(input, Input::Wo | Input::Down);
        let fit = if open || advances { Some(self.gather(block, input, open)?) } else { None };
        let mut metrics: Vec<(usize, Metric)> = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let Some(row_type) = self.row_type(name) else { continue };
            self.tell(name, progress);
            let weight = &input.linears(&block.original)[i].weight;
            let (shape, wrong) = ((weight.rows, weight.cols), QuantizeError::matrix(name));
            let values = weight.to_values().map_err(&wrong)?;
            let wanted = match &fit {
                Some(fit) if open => Some(self.wanted(&values, fit).map_err(&wrong)?),
                _ => None,
            };
            let made = match (self.done.remove(name), &fit, &wanted) {
                (Some(done), _, _) => done.to_values().map_err(&wrong)?,
                (None, Some(fit), Some(wanted)) => {
                    let bytes = self.fitted(weight, &values, row_type, fit, wanted, &mut metrics)?;
                    self.journal.append(name, row_type, shape, &bytes)?;
                    let stored = WeightMatrix::owned(name.clone(), row_type, shape, bytes).map_err(&wrong)?;
                    stored.to_values().map_err(&wrong)?
                }
                _ => continue,
            };
            if let (Some(_), Some(wanted)) = (&norm, &wanted) {
                let fit = norm_fit.get_or_insert_with(|| NormFit::new(shape.1));
                fit.add(&mut self.products, &made, wanted).map_err(&wrong)?;
            }
            let made = WeightMatrix::of_values(name.clone(), shape, &made).map_err(&wrong)?;
            if let Some(linear) = input.linears_mut(&mut block.rounded).into_iter().nth(i) {
                linear.weight = made;
            }
        }
        if let Some(name) = norm {
            let place = match input {
                Input::Qkv => &mut block.rounded.rms_att,
                _ => &mut block.rounded.rms_ffn,
            };
            self.norm(&name, norm_fit.zip(fit.as_ref()), place)?;
        }
        if advances {
            for x in block.to.iter_mut() {
                half(&mut self.layerwise, block.l, &block.rounded, input, x, &mut |_, _| {})?;
            }
        }
        Ok(())
    }

    /// Sums up what the layers of one input see, and takes the original's stream on where they complete a half.
    fn gather(&mut self, block: &mut Block<'_>, input: Input, open: bool) -> Result<Fit, QuantizeError> {
        let first = &input.linears(&block.original)[0].weight;
        let (rows, n) = (first.rows, first.cols);
        let wrong = QuantizeError::matrix(&first.name);
        if let Some(statistics) = self.statistics {
            let h = statistics.moments(block.l, input, n)?;
            return Ok(Fit { n, tokens: statistics.tokens()?, cross: h.clone(), h, outputs: false });
        }
        let outputs = match input {
            Input::Wo => block.original.post_att_norm.is_none() && block.original.wo.bias.is_none(),
            Input::Down => block.original.post_ffn_norm.is_none() && block.original.w2.bias.is_none(),
            _ => false,
        };
        let mut h = Moments::new(n, n);
        let mut cross = if outputs { Moments::new(rows, n) } else { Moments::new(n, n) };
        for (from, to) in block.from.iter_mut().zip(&*block.to) {
            let (mut theirs, mut ours) = (Vec::new(), Vec::new());
            match input {
                Input::Qkv => {
                    theirs = self.layerwise.normed(from, &block.original.rms_att);
                    ours = self.layerwise.normed(to, &block.rounded.rms_att);
                }
                Input::GateUp => {
                    theirs = self.layerwise.normed(from, &block.original.rms_ffn);
                    ours = self.layerwise.normed(to, &block.rounded.rms_ffn);
                }
                _ => {
                    let l = block.l;
                    half(&mut self.layerwise, l, &block.original, input, from, &mut |at, values| {
                        if at == input && open && !outputs {
                            theirs.extend_from_slice(values);
                        }
                    })?;
                    if open {
                        let mut to = to.clone();
                        half(&mut self.layerwise, l, &block.rounded, input, &mut to, &mut |at, values| {
                            if at == input {
                                ours.extend_from_slice(values);
                            }
                        })?;
                    }
                }
            }
            if !open {
                continue;
            }
            h.add(&mut self.products, &ours, &ours).map_err(&wrong)?;
            if outputs {
                let wanted: Vec<f32> = from.iter().zip(to).map(|(from, to)| from - to).collect();
                cross.add(&mut self.products, &wanted, &ours).map_err(&wrong)?;
            } else {
                cross.add(&mut self.products, &ours, &theirs).map_err(&wrong)?;
            }
        }
        let tokens = block.to.iter().map(|x| x.len() / self.model.config.dim).sum();
        Ok(Fit { n, tokens, h: h.sum, cross: cross.sum, outputs })
    }

    /// The outputs that are wanted of a matrix of these `values` times the inputs that it gets, `[rows, n]`.
    fn wanted(&mut self, values: &[f32], fit: &Fit) -> Result<Vec<f32>, MatmulError> {
        if fit.outputs {
            return Ok(fit.cross.clone());
        }
        let n = fit.n;
        let mut wanted = vec![0.0; values.len()];
        self.products.load(values, n);
        self.products.times(&Rows::new(fit.cross.iter().copied(), n), (0, n), &mut wanted)?;
        Ok(wanted)
    }

    /// The rows of a matrix in `row_type`, fitted.
    fn fitted(
        &mut self,
        weight: &WeightMatrix,
        values: &[f32],
        row_type: RowType,
        fit: &Fit,
        wanted: &[f32],
        metrics: &mut Vec<(usize, Metric)>,
    ) -> Result<Vec<u8>, QuantizeError> {
        let n = weight.cols;
        let wrong = QuantizeError::matrix(&weight.name);
        for (r, row) in values.chunks_exact(n).enumerate() {
            check_finite(&weight.name, r, row)?;
        }
        let Some(grid) = Grid::of(row_type, n) else { return crate::quantize::rounded(weight, row_type) };
        if !metrics.iter().any(|(group, _)| *group == grid.group) {
            metrics.push((grid.group, Metric::new(&fit.h, n, grid.group, fit.tokens)));
        }
        let Some((_, metric)) = metrics.iter().find(|(group, _)| *group == grid.group) else {
            return crate::quantize::rounded(weight, row_type);
        };
        let mut given = vec![0.0; values.len()];
        self.products.load(values, n);
        self.products.times(&Rows::new(fit.h.iter().copied(), n), (0, n), &mut given).map_err(&wrong)?;
        // What few tokens say of the earlier layers' losses is in great part chance.
        let trust = 1.0 / (1.0 + DOUBT * n as f32 / fit.tokens.max(1) as f32);
        let correction: Vec<f32> =
            wanted.iter().zip(&given).map(|(wanted, given)| trust * (wanted - given)).collect();
        let codes = solve(&mut self.products, metric, grid, values, Some(&correction)).map_err(&wrong)?;
        let row_bytes = row_type.row_bytes(n).unwrap_or_default();
        let mut bytes = vec![0; row_bytes * weight.rows];
        let groups = n.div_ceil(grid.group);
        let rows = bytes.chunks_exact_mut(row_bytes);
        let codes_of = codes.codes.chunks_exact(n).zip(codes.scales.chunks_exact(groups));
        for (out, (q, scales)) in rows.zip(codes_of) {
            encode_row(row_type, q, scales, out).map_err(QuantizeError::codec(&weight.name))?;
        }
        Ok(bytes)
    }
}

/// Takes a sequence through the half of a block that ends with the layer of this input.
fn half(
    layerwise: &mut Layerwise<'_>,
    l: usize,
    layer: &Layer,
    input: Input,
    x: &mut [f32],
    tap: &mut dyn FnMut(Input, &[f32]),
) -> Result<(), QuantizeError> {
    match input {
        Input::Qkv | Input::Wo => layerwise.attention(l, layer, x, tap)?,
        _ => layerwise.feed_forward(l, layer, x, tap)?,
    }
    Ok(())
}
