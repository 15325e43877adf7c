//! Block after block: each is fitted to the original model's outputs on what the blocks before it, already rounded,
//! give it.
//!
//! Two residual streams go through the model: that of the original and that of what has been rounded so far. A layer's
//! inputs in the second are what its error is measured on, and its outputs in the first what they are fitted to, so
//! that it also makes good what earlier layers have lost (as GPTAQ, arXiv 2504.02692, and Qronos, arXiv 2505.11695,
//! do). wo and w2 add to the residual stream: what they are fitted to is the whole difference to the original stream.

mod fit;
mod norms;
mod rows;
mod scaling;

use std::collections::HashMap;

use engine::Model;
use engine::layerwise::{Input, Layerwise};
use engine::weights::{Layer, WeightMatrix};
use kernels::row::RowType;

use super::Statistics;
use super::norm::NormFit;
use crate::quantize::{Journal, Options, Plan, Progress, QuantizeError};
use crate::solve::{Metric, Products};
use fit::times_columns;
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
        let mut fit = if open || advances { Some(self.gather(block, input, open)?) } else { None };
        let mut scale = None;
        if let (Some(fit), true) = (&mut fit, open && norm.is_some()) {
            scale = self.choose_scale(&block.original, input, fit)?;
            scale.iter().for_each(|scale| fit.rescale(scale));
        }
        let mut metrics: Vec<(usize, Metric)> = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let Some(row_type) = self.row_type(name) else { continue };
            self.tell(name, progress);
            let weight = &input.linears(&block.original)[i].weight;
            let (shape, wrong) = ((weight.rows, weight.cols), QuantizeError::matrix(name));
            let mut values = weight.to_values().map_err(&wrong)?;
            if let Some(scale) = &scale {
                times_columns(&mut values, scale);
            }
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
            if let Some(scale) = &scale
                && !self.done.contains_key(&name)
            {
                place.iter_mut().zip(scale).for_each(|(w, s)| *w /= s);
            }
            self.norm(&name, norm_fit.zip(fit.as_ref()), place)?;
        }
        if advances {
            for x in block.to.iter_mut() {
                half(&mut self.layerwise, block.l, &block.rounded, input, x, &mut |_, _| {})?;
            }
        }
        Ok(())
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
