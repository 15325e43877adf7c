//! Which matrix becomes what.

use engine::Model;
use engine::layerwise::Input;
use engine::weights::WeightMatrix;
use kernels::row::RowType;

use super::error::QuantizeError;
use super::{Format, Options, bits_of};
use crate::calibrate::{FINAL_NORM, norm_name};
use crate::convert::Target;

/// A matrix to be made.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// Its name in the input.
    pub(crate) name: String,
    /// The type of its rows in the output.
    pub(crate) row_type: RowType,
}

/// All matrices to be made, in order; the others stay as they are.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Stems that Q4V1 holds in f32.
    pub(crate) floats: Vec<&'static str>,
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// What the options make of the model's matrices in `target`.
    ///
    /// # Errors
    /// Options that the target has no place for, and rows that the format cannot hold, unless forced.
    ///
    /// `types` has those of the layers' matrices, by name, where a budget decides.
    pub(crate) fn new(
        model: &Model,
        target: Target,
        options: &Options,
        types: Option<&[(String, RowType)]>,
    ) -> Result<Self, QuantizeError> {
        let mut plan = Self::default();
        let weights = &model.weights;
        if options.format == Format::Bitnet && model.config.int8_linear {
            plan.notes.push("a BitNet model: its linear layers are repacked without loss".to_owned());
            if options.embedding.is_some() || options.head.is_some() {
                let (embedding, head) = vocabulary_types(model, target, options)?;
                let asked = |was: Option<RowType>, becomes| was.and(becomes);
                let embedding =
                    if weights.wcls.is_none() { embedding } else { asked(options.embedding, embedding) };
                plan.vocabulary(&weights.token_embedding, embedding, "token_embedding", target, options)?;
                if let Some(wcls) = &weights.wcls {
                    plan.vocabulary(wcls, asked(options.head, head), "wcls", target, options)?;
                }
            }
            return Ok(plan);
        }
        let (embedding, head) = vocabulary_types(model, target, options)?;
        let Some(row_type) = options.format.row_type(target, options.planes) else { return Ok(plan) };
        plan.vocabulary(&weights.token_embedding, embedding, "token_embedding", target, options)?;
        for matrix in weights.layers.iter().flat_map(|layer| layer.matrices()) {
            let chosen = types.and_then(|types| types.iter().find(|(name, _)| *name == matrix.name));
            plan.add(matrix, chosen.map_or(row_type, |&(_, chosen)| chosen), target, options)?;
        }
        if let Some(wcls) = &weights.wcls {
            plan.vocabulary(wcls, head, "wcls", target, options)?;
        }
        Ok(plan)
    }

    fn vocabulary(
        &mut self,
        matrix: &WeightMatrix,
        asked: Option<RowType>,
        stem: &'static str,
        target: Target,
        options: &Options,
    ) -> Result<(), QuantizeError> {
        if target == Target::Q4V1 && asked == Some(RowType::F32) {
            self.floats.push(stem);
        }
        match asked {
            Some(row_type) => self.add(matrix, row_type, target, options),
            None => Ok(()),
        }
    }

    fn add(
        &mut self,
        matrix: &WeightMatrix,
        row_type: RowType,
        target: Target,
        options: &Options,
    ) -> Result<(), QuantizeError> {
        let name = matrix.name.clone();
        if row_type.row_bytes(matrix.cols).is_some() {
            self.steps.push(Step { name, row_type });
            return Ok(());
        }
        // Q4V1's blocks run over the ends of rows: the writer makes them.
        if target == Target::Q4V1 {
            return Ok(());
        }
        let problem = format!(
            "rows of {} weights are not whole blocks of {} ({} weights)",
            matrix.cols,
            row_type.name(),
            row_type.block().0
        );
        if !options.force {
            let problem = format!(
                "{problem}: take --format ternary, which has any width, or --force to keep it in F16"
            );
            return Err(QuantizeError::tensor(&name, problem));
        }
        self.notes.push(format!("{name}: {problem}: kept in F16"));
        self.steps.push(Step { name, row_type: RowType::F16 });
        Ok(())
    }
}

/// What the embedding and the classifier become; `None`: what they are.
fn vocabulary_types(
    model: &Model,
    target: Target,
    options: &Options,
) -> Result<(Option<RowType>, Option<RowType>), QuantizeError> {
    let shared = model.weights.wcls.is_none();
    // The BitNet variant of T-MAC v2 stores a shared matrix twice, once for each use, but both alike.
    let (embedding, head) = match (options.embedding, options.head) {
        (Some(embedding), Some(head)) if shared && embedding != head => {
            let problem = "the model's classifier is its embedding: both must be of one type";
            return Err(QuantizeError::option("--head", problem));
        }
        (None, head) if shared => (head, head),
        other => other,
    };
    let allowed = |asked: RowType| match target {
        Target::TmacV1 => None,
        Target::TmacV2 if asked == RowType::Ternary16 => Some(asked),
        Target::TmacV2 | Target::Q4V1 if asked == RowType::F32 => Some(asked),
        Target::Q4V1 if asked == RowType::Q4_0 => Some(RowType::Int4),
        Target::TmacV2 | Target::Q4V1 => None,
        _ if asked == RowType::Ternary16 => options.format.row_type(Target::Gguf, 1),
        _ => Some(asked),
    };
    let of = |option: &'static str, asked: Option<RowType>| match asked {
        None if target == Target::Gguf => Ok(None),
        None => Ok(options.format.row_type(target, options.planes)),
        Some(asked) => allowed(asked).map(Some).ok_or_else(|| {
            QuantizeError::option(
                option,
                format!("a {} file cannot hold it as {}", target.name(), asked.name()),
            )
        }),
    };
    let named = if options.embedding.is_none() { "--head" } else { "--embedding" };
    Ok((of(named, embedding)?, of("--head", head)?))
}

/// Puts matrices into the model in the place of those of the same names.
pub(crate) fn replace(model: &mut Model, matrices: Vec<WeightMatrix>) {
    for matrix in matrices {
        if let Some(place) = norm(model, &matrix.name) {
            if let Ok(values) = matrix.to_values() {
                *place = values;
            }
            continue;
        }
        let weights = &mut model.weights;
        let layers = weights.layers.iter_mut().flat_map(|layer| {
            [
                &mut layer.wq,
                &mut layer.wk,
                &mut layer.wv,
                &mut layer.wo,
                &mut layer.w1,
                &mut layer.w2,
                &mut layer.w3,
            ]
            .map(|linear| &mut linear.weight)
        });
        let mut all = std::iter::once(&mut weights.token_embedding).chain(layers).chain(&mut weights.wcls);
        if let Some(place) = all.find(|place| place.name == matrix.name) {
            *place = matrix;
        }
    }
}

/// The norm that the journal calls so.
fn norm<'a>(model: &'a mut Model, name: &str) -> Option<&'a mut Vec<f32>> {
    if name == FINAL_NORM {
        return Some(&mut model.weights.rms_final);
    }
    model.weights.layers.iter_mut().enumerate().find_map(|(l, layer)| {
        let is = |input| norm_name(l, input).is_some_and(|norm| norm == name);
        if is(Input::Qkv) {
            Some(&mut layer.rms_att)
        } else if is(Input::GateUp) {
            Some(&mut layer.rms_ffn)
        } else {
            None
        }
    })
}

/// Mean bits of a weight in the linear layers.
pub(crate) fn bits(model: &Model, target: Target) -> f64 {
    let matrices = model.weights.layers.iter().flat_map(|layer| layer.matrices());
    let (mut bits, mut weights) = (0.0, 0.0);
    for matrix in matrices {
        let count = (matrix.rows * matrix.cols) as f64;
        bits += bits_of(matrix.row_type, matrix.cols, target) * count;
        weights += count;
    }
    bits / weights
}
