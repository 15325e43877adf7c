//! How much each matrix matters: what rounding it alone does to the model's output, and what of that is left where its
//! columns make good each other's errors.

use engine::layerwise::{Input, Layerwise};
use engine::weights::{Layer, WeightMatrix};
use engine::{EngineError, Model};
use kernels::row::RowType;

use super::moments::{Moments, inputs, weigh};
use crate::quantize::{Progress, QuantizeError, rounded};
use crate::solve::{Metric, Products, Rows};

/// Tokens of each of the samples that this is measured on, and how many samples.
const TOKENS: usize = 64;
const SAMPLES: usize = 4;
/// What a matrix is rounded to: near enough to it that the change of the logits is in proportion.
pub(crate) const PROBE: RowType = RowType::TG2;
/// Samples on which it is measured how far the columns of an input can stand in for one another.
const MOMENTS: usize = 8;
/// Columns that are rounded with a common scale.
const GROUP: usize = 32;

/// For each matrix of the layers, in order, the mean square by which the logits change when it alone is rounded to
/// [`PROBE`], times the share that is left of the error of its outputs when its columns are rounded one after another
/// ([`left_over`]).
pub(crate) fn measure(
    model: &Model,
    samples: &[Vec<u32>],
    progress: &mut Progress<'_>,
) -> Result<Vec<f32>, QuantizeError> {
    let left = left_over(model, samples)?;
    let step = samples.len().div_ceil(SAMPLES);
    let samples: Vec<&[u32]> =
        samples.iter().step_by(step).map(|ids| &ids[..ids.len().min(TOKENS)]).collect();
    let (mut products, mut layerwise) = (Products::new(model.threads()), Layerwise::new(model, TOKENS)?);
    let layers = &model.weights.layers;
    // The streams before each block.
    let mut streams = vec![samples.iter().map(|ids| layerwise.embed(ids)).collect::<Result<Vec<_>, _>>()?];
    for (l, layer) in layers.iter().enumerate() {
        let mut next = streams[l].clone();
        next.iter_mut().try_for_each(|x| block(&mut layerwise, l, layer, x))?;
        streams.push(next);
    }
    let norm = &model.weights.rms_final;
    let last = streams.pop().unwrap_or_default();
    let expected: Vec<Vec<f32>> = last.iter().map(|x| layerwise.normed(x, norm)).collect();
    let metric = of_logits(model, &mut products)?;
    let all: usize = layers.iter().map(|layer| layer.linears().count()).sum();
    let mut damages = Vec::with_capacity(all);
    for (l, layer) in layers.iter().enumerate() {
        let wrong = QuantizeError::matrix(&layer.wq.weight.name);
        let mut changed = layer.in_f32().map_err(&wrong)?;
        for (input, left) in Input::OF_BLOCK.into_iter().zip(left[l]) {
            for i in 0..input.linears(layer).len() {
                let weight = &input.linears(layer)[i].weight;
                progress(&format!("sensitivity of {}", weight.name), damages.len(), all);
                let stored = rounded(weight, PROBE)?;
                let shape = (weight.rows, weight.cols);
                let stored =
                    WeightMatrix::owned(weight.name.clone(), PROBE, shape, stored).map_err(&wrong)?;
                let exact = put(&mut changed, input, i, stored);
                let (mut sum, mut tokens) = (0.0, 0);
                for (x, expected) in streams[l].iter().zip(&expected) {
                    let mut x = x.clone();
                    block(&mut layerwise, l, &changed, &mut x)?;
                    for (behind, layer) in layers.iter().enumerate().skip(l + 1) {
                        block(&mut layerwise, behind, layer, &mut x)?;
                    }
                    let found = layerwise.normed(&x, norm);
                    let change: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
                    let mut weighed = vec![0.0; change.len()];
                    products.load(&change, norm.len());
                    products.times(&metric, (0, norm.len()), &mut weighed).map_err(&wrong)?;
                    sum += change.iter().zip(&weighed).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                    tokens += change.len() / norm.len();
                }
                damages.push((left * sum / tokens.max(1) as f64) as f32);
                if let Some(exact) = exact {
                    put(&mut changed, input, i, exact);
                }
            }
        }
    }
    Ok(damages)
}

/// For each block and input the share of an error of the outputs that rounding column after column leaves, each with the errors
/// of those before made good: the mean of the inputs' variances given all others that come later, over the mean of their own.
fn left_over(model: &Model, samples: &[Vec<u32>]) -> Result<Vec<[f64; 4]>, QuantizeError> {
    let step = samples.len().div_ceil(MOMENTS).max(1);
    let samples: Vec<&Vec<u32>> = samples.iter().step_by(step).collect();
    let context = samples.iter().map(|ids| ids.len()).max().unwrap_or(1);
    let (mut products, mut layerwise) = (Products::new(model.threads()), Layerwise::new(model, context)?);
    let mut streams: Vec<Vec<f32>> =
        samples.iter().map(|ids| layerwise.embed(ids)).collect::<Result<_, _>>()?;
    let tokens = samples.iter().map(|ids| ids.len()).sum();
    let mut all = Vec::with_capacity(model.weights.layers.len());
    for (l, layer) in model.weights.layers.iter().enumerate() {
        let wrong = QuantizeError::matrix(&layer.wq.weight.name);
        let layer = layer.in_f32().map_err(&wrong)?;
        let mut moments = Input::OF_BLOCK.map(|input| {
            let n = input.linears(&layer)[0].weight.cols;
            Moments::new(n, n)
        });
        for x in &mut streams {
            for (moments, mut seen) in
                moments.iter_mut().zip(inputs(&mut layerwise, l, &layer, x, model.config.dim)?)
            {
                seen.weights.iter().for_each(|weights| weigh(&mut seen.values, weights));
                moments.add(&mut products, &seen.values, &seen.values).map_err(&wrong)?;
            }
        }
        all.push(moments.map(|moments| {
            let n = moments.sum.len().isqrt();
            let metric = Metric::new(&moments.sum, n, GROUP, tokens);
            let own: f64 = (0..n).map(|i| f64::from(metric.h.at(i, i))).sum();
            metric.conditional.iter().map(|c| f64::from(*c)).sum::<f64>() / own.max(f64::MIN_POSITIVE)
        }));
    }
    Ok(all)
}

/// The names of the layers' matrices in the order of [`measure`].
pub(crate) fn names(model: &Model) -> impl Iterator<Item = &WeightMatrix> {
    model.weights.layers.iter().flat_map(|layer| {
        Input::OF_BLOCK.into_iter().flat_map(move |input| input.linears(layer)).map(|linear| &linear.weight)
    })
}

/// Puts a matrix into its place and gives back what was there.
fn put(layer: &mut Layer, input: Input, i: usize, weight: WeightMatrix) -> Option<WeightMatrix> {
    let linear = input.linears_mut(layer).into_iter().nth(i)?;
    Some(std::mem::replace(&mut linear.weight, weight))
}

fn block(layerwise: &mut Layerwise<'_>, l: usize, layer: &Layer, x: &mut [f32]) -> Result<(), EngineError> {
    layerwise.attention(l, layer, x, &mut |_, _| {})?;
    layerwise.feed_forward(l, layer, x, &mut |_, _| {})
}

/// C^T C of the classifier, divided by its rows: the mean square of the logits that a change of the last hidden state
/// makes.
fn of_logits(model: &Model, products: &mut Products) -> Result<Rows, QuantizeError> {
    const ROWS: usize = 1024;
    let classifier = model.weights.classifier();
    let wrong = QuantizeError::matrix(&classifier.name);
    let (view, n) = (classifier.view().map_err(&wrong)?, classifier.cols);
    let mut moments = Moments::new(n, n);
    for first in (0..classifier.rows).step_by(ROWS) {
        let mut values = vec![0.0; n * ROWS.min(classifier.rows - first)];
        for (r, row) in values.chunks_exact_mut(n).enumerate() {
            view.dequantize_row(first + r, row).map_err(&wrong)?;
        }
        moments.add(products, &values, &values).map_err(&wrong)?;
    }
    let rows = classifier.rows as f32;
    Ok(Rows::new(moments.sum.into_iter().map(|sum| sum / rows), n))
}
