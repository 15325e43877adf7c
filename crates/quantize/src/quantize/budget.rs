//! Types for the matrices of the layers under a budget of bits.
//!
//! Each matrix begins at the smallest type. The step to a larger one that takes away most of the expected damage for
//! each bit is taken, again and again, until the budget is spent. The damage of a type is the measured one
//! ([`crate::calibrate::sensitivity`]) times how much less it rounds than the type of the probe.

use engine::Model;
use engine::weights::WeightMatrix;
use kernels::codec::{dequantize_row, quantize_row};
use kernels::row::RowType;

use super::bits_of;
use super::error::QuantizeError;
use crate::calibrate::sensitivity::{PROBE, names};
use crate::convert::Target;

/// The types to choose from, from the smallest on.
pub(crate) const LADDER: [RowType; 6] =
    [RowType::BG1, RowType::TG1, RowType::TG2, RowType::Q4_0, RowType::Q4_1, RowType::Q8_0];
/// Of so many rows one is rounded to see what a type does to a matrix.
const EVERY: usize = 16;

/// A matrix and what each type of the ladder that can hold it would cost and do.
struct Choice<'m> {
    weight: &'m WeightMatrix,
    /// Type, bits in all, damage; from the smallest on.
    types: Vec<(RowType, f64, f64)>,
    chosen: usize,
}

impl Choice<'_> {
    /// The larger type that takes away most damage for each bit, among those of at most `left` more bits.
    fn step(&self, left: f64) -> Option<(usize, f64)> {
        let &(_, bits, damage) = self.types.get(self.chosen)?;
        let steps = self.types.iter().enumerate().skip(self.chosen + 1).filter_map(|(i, to)| {
            let (more, less) = (to.1 - bits, damage - to.2);
            (more <= left && less > 0.0).then_some((i, less / more))
        });
        steps.max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// The type of each matrix of the layers, by name, with at most `budget` bits a weight on average.
///
/// # Errors
/// A budget that the smallest types exceed; rows that cannot be read.
pub(crate) fn choose(
    model: &Model,
    damages: &[f32],
    budget: f64,
) -> Result<Vec<(String, RowType)>, QuantizeError> {
    let mut choices = Vec::new();
    let (mut spent, mut weights) = (0.0, 0.0);
    for (weight, &damage) in names(model).zip(damages) {
        let count = (weight.rows * weight.cols) as f64;
        let probe = error(weight, PROBE)?.max(1e-12);
        let mut types = Vec::new();
        for row_type in LADDER {
            if row_type.row_bytes(weight.cols).is_some() {
                let bits = bits_of(row_type, weight.cols, Target::Gguf) * count;
                types.push((row_type, bits, f64::from(damage) * error(weight, row_type)? / probe));
            }
        }
        weights += count;
        spent += types.first().map_or(0.0, |first| first.1);
        choices.push(Choice { weight, types, chosen: 0 });
    }
    if spent > budget * weights {
        let problem = format!("{budget} bits a weight: the least is {:.3}", spent / weights);
        return Err(QuantizeError::option("--bits", problem));
    }
    loop {
        let left = budget * weights - spent;
        let steps = choices.iter().enumerate().filter_map(|(c, choice)| Some((c, choice.step(left)?)));
        let Some((c, (to, _))) = steps.max_by(|a, b| a.1.1.total_cmp(&b.1.1)) else { break };
        let choice = &mut choices[c];
        spent += choice.types[to].1 - choice.types[choice.chosen].1;
        choice.chosen = to;
    }
    Ok(choices.iter().map(|c| (c.weight.name.clone(), c.types[c.chosen].0)).collect())
}

/// The mean square error that rounding to a type makes in some of the rows.
fn error(weight: &WeightMatrix, row_type: RowType) -> Result<f64, QuantizeError> {
    let wrong = QuantizeError::matrix(&weight.name);
    let codec = QuantizeError::codec(&weight.name);
    let view = weight.view().map_err(&wrong)?;
    let (mut row, mut back) = (vec![0.0; weight.cols], vec![0.0; weight.cols]);
    let mut bytes = vec![0; row_type.row_bytes(weight.cols).unwrap_or_default()];
    let (mut sum, mut count) = (0.0, 0usize);
    for r in (0..weight.rows).step_by(EVERY) {
        view.dequantize_row(r, &mut row).map_err(&wrong)?;
        quantize_row(row_type, &row, &mut bytes).map_err(&codec)?;
        dequantize_row(row_type, &bytes, &mut back).map_err(&codec)?;
        sum += row.iter().zip(&back).map(|(a, b)| f64::from((a - b) * (a - b))).sum::<f64>();
        count += row.len();
    }
    Ok(sum / count.max(1) as f64)
}
