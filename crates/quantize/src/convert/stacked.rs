//! To the formats that store a matrix of all layers as one run of codes: T-MAC v1 and Q4V1.
//!
//! A run pays no heed to where a row or a layer begins. T-MAC v1's threshold is 0.7 of the mean magnitude of the
//! whole run, so that each matrix is read twice; neither format needs more than a row in f32 at a time.

use std::collections::HashMap;
use std::io::Write;

use engine::names::{Global, Naming};
use formats::{Layout, TensorInfo};
use kernels::codec::quantize_row;
use kernels::codec::ternary::{MeanMagnitude, pack_signs};
use kernels::row::RowType;

use super::error::ConvertError;
use super::parts::{RowOrder, Tensor};
use super::{Progress, Report, Source, Target, TensorReport, exact, llama2c, rope_tables, trailer};

/// Weights of a Q4V1 block.
const BLOCK: usize = 32;
/// A T-MAC v1 weight counts when it is larger than this times the mean magnitude.
const THRESHOLD: f32 = 0.7;

pub(super) fn write(
    source: &Source<'_>,
    target: Target,
    out: &mut dyn Write,
    progress: &mut Progress<'_>,
) -> Result<Report, ConvertError> {
    let mut report = Report::default();
    let variant = llama2c::variant(source, target, &mut report.notes)?;
    let mut tensors = llama2c::named_tensors(source, target, variant, &mut report.notes)?;
    let shared_classifier = !tensors.contains_key(Naming::Llama2c.global(Global::Wcls));
    let header = llama2c::header(&source.model.config, target, shared_classifier)?;
    // T-MAC v1 has no trailer: its first quantizer's files are equalled byte for byte.
    let metadata = match target {
        Target::Q4V1 => Some(trailer::of(source, variant, &HashMap::new(), &mut report.notes)?),
        _ => None,
    };
    llama2c::check_config(source, target, &header, variant, metadata.as_ref(), &mut report.notes)?;
    let keep_f32 = |stem: &str| source.options.floats.contains(&stem);
    let planned = match target {
        Target::TmacV1 => formats::tmac_v1::tensors(&header)?,
        _ => formats::int4::tensors(&header, &keep_f32)?,
    };
    llama2c::check_places(source, &mut tensors, &planned, target, &mut report.notes)?;
    let tables = rope_tables::of(source)?;
    let mut data = |info: &TensorInfo, bytes: &mut Vec<u8>| -> Result<(), ConvertError> {
        progress(&info.name, report.tensors.len(), planned.len());
        let stack = Stack::of(&tensors, info);
        let (from, to) = match (info.layout, stack.matrices.first()) {
            (Layout::TernaryRun { .. }, Some((first, _))) => {
                stack.append_signs(bytes)?;
                (source.type_of(&first.name), "T-MAC v1")
            }
            (Layout::Int4Run { .. }, Some((first, _))) => {
                stack.append_int4(bytes)?;
                (source.type_of(&first.name), RowType::Int4.name())
            }
            (_, Some((first, order))) => {
                exact::append_matrix(
                    first,
                    *order,
                    exact::Encoding::Values(RowType::F32),
                    target.name(),
                    bytes,
                )?;
                (source.type_of(&first.name), RowType::F32.name())
            }
            (_, None) => {
                let table = rope_tables::NAMES.iter().position(|name| *name == info.name);
                match (tensors.get(&info.name), table) {
                    (Some(Tensor::Vector(values, order)), _) => exact::append_vector(values, *order, bytes),
                    (_, Some(table)) => exact::append_vector(&tables[table], RowOrder::Kept, bytes),
                    _ => return Err(llama2c::no_source(&info.name, target)),
                }
                ("vector".to_owned(), RowType::F32.name())
            }
        };
        report.tensors.push(TensorReport {
            name: info.name.clone(),
            shape: info.shape.clone(),
            from,
            to: to.to_owned(),
            bytes: info.bytes,
        });
        Ok(())
    };
    match target {
        Target::TmacV1 => formats::tmac_v1::write(out, &header, None, &mut data)?,
        _ => formats::int4::write(out, &header, &keep_f32, metadata.as_ref(), &mut data)?,
    }
    Ok(report)
}

/// The matrices of one stored unit, in order.
struct Stack<'a> {
    matrices: Vec<(&'a engine::weights::WeightMatrix, RowOrder)>,
}

impl<'a> Stack<'a> {
    /// `info` names a tensor, or by its stem the same tensor of all layers.
    fn of(tensors: &HashMap<String, Tensor<'a>>, info: &TensorInfo) -> Self {
        let layers = if info.shape.len() == 3 { info.shape[0] } else { 0 };
        let names: Vec<String> = if layers == 0 {
            vec![info.name.clone()]
        } else {
            (0..layers).map(|l| format!("layers.{l}.{}", info.name)).collect()
        };
        let matrices = names.iter().filter_map(|name| match tensors.get(name) {
            Some(&Tensor::Matrix(weight, order)) => Some((weight, order)),
            _ => None,
        });
        Self { matrices: matrices.collect() }
    }

    /// Calls `each` with the values and the bytes of every row.
    fn rows(
        &self,
        mut each: impl FnMut(&[f32], RowType, &[u8]) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let mut values = Vec::new();
        for (weight, order) in &self.matrices {
            let wrong = |e| ConvertError::matrix(&weight.name, &e);
            let view = weight.view().map_err(wrong)?;
            values.resize(weight.cols, 0.0);
            for r in 0..weight.rows {
                let source = order.source(r);
                view.dequantize_row(source, &mut values).map_err(wrong)?;
                exact::check_finite(&weight.name, source, &values)?;
                each(&values, weight.row_type, view.row(source))?;
            }
        }
        Ok(())
    }

    /// The signs of T-MAC v1.
    fn append_signs(&self, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        let mut mean = MeanMagnitude::default();
        self.rows(|values, _, _| {
            mean.add(values);
            Ok(())
        })?;
        let threshold = THRESHOLD * mean.get();
        let mut pending: Vec<f32> = Vec::new();
        self.rows(|values, _, _| {
            pending.extend_from_slice(values);
            let whole = pending.len() / 4 * 4;
            append_codes(&pending[..whole], threshold, out);
            pending.drain(..whole);
            Ok(())
        })?;
        append_codes(&pending, threshold, out);
        Ok(())
    }

    /// The blocks of Q4V1; rows that are such blocks already are copied.
    fn append_int4(&self, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        let mut pending: Vec<f32> = Vec::new();
        let block = |values: &[f32], out: &mut Vec<u8>| -> Result<(), ConvertError> {
            let start = out.len();
            out.resize(start + RowType::Int4.block().1, 0);
            quantize_row(RowType::Int4, values, &mut out[start..]).map_err(|e| ConvertError::codec("run", &e))
        };
        self.rows(|values, row_type, bytes| {
            if row_type == RowType::Int4 && pending.is_empty() {
                out.extend_from_slice(bytes);
                return Ok(());
            }
            pending.extend_from_slice(values);
            let whole = pending.len() / BLOCK * BLOCK;
            pending[..whole].chunks_exact(BLOCK).try_for_each(|values| block(values, out))?;
            pending.drain(..whole);
            Ok(())
        })?;
        if !pending.is_empty() {
            pending.resize(BLOCK, 0.0);
            block(&pending, out)?;
        }
        Ok(())
    }
}

/// The codes of whole bytes, or of the end of the run.
fn append_codes(values: &[f32], threshold: f32, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + values.len().div_ceil(4), 0);
    pack_signs(values, threshold, &mut out[start..]);
}
