//! The tables of the page, and what belongs to one model.

use std::fmt::Write as _;

use super::html::{Cell, escaped, number, table};
use super::plots::{self, Series};
use crate::analysis::error::AnalysisError;
use crate::analysis::size::{Size, TypeSize};
use crate::analysis::tensor::TensorReport;
use crate::analysis::{Analysis, QuantizedReport};

/// All models side by side, the original first.
pub(super) fn summary(page: &mut String, analysis: &Analysis) {
    let size = |size: &Size| {
        vec![
            Cell::Text(size.name.clone()),
            Cell::Text(size.format.clone()),
            Cell::Number(size.file_bytes as f64 / 1e6),
            Cell::Number(size.bits),
            Cell::Number(size.linear_bits),
        ]
    };
    let mut headings = vec![
        ("model", "The file"),
        ("container", "Its format"),
        ("MB", "Size of its files, tokenizer included, in 10^6 bytes"),
        ("bits", "Bits a weight over all tensors"),
        ("in layers", "Bits a weight over the matrices of the layers"),
        ("smaller", "The original's size over this one's"),
        (
            "SQNR dB",
            "Signal to quantization noise over the matrices of the layers: 6 dB more is half the error",
        ),
    ];
    let with_text = analysis.perplexity.is_some();
    if with_text {
        headings.extend([
            ("perplexity", "On the text"),
            ("mean KL", "Kullback-Leibler divergence from the original, in nats a token"),
            ("p99 KL", "One token in a hundred diverges more"),
            ("same top", "How often both find the same token most likely, in percent"),
        ]);
    }
    let mut original = size(&analysis.original);
    original.extend([Cell::Number(1.0), Cell::Other(f64::MAX, "exact")]);
    if with_text {
        original.extend([
            Cell::optional(analysis.perplexity),
            Cell::Number(0.0),
            Cell::Number(0.0),
            Cell::Number(100.0),
        ]);
    }
    let mut rows = vec![original];
    for report in &analysis.quantized {
        let mut row = size(&report.size);
        row.extend([Cell::Number(report.compression), sqnr(report.sqnr_db)]);
        if with_text {
            let text = report.text;
            row.extend([
                Cell::optional(text.map(|text| text.perplexity)),
                Cell::optional(text.map(|text| text.mean_kl)),
                Cell::optional(text.map(|text| text.p99_kl)),
                Cell::optional(text.map(|text| text.top1_agreement * 100.0)),
            ]);
        }
        rows.push(row);
    }
    table(page, &headings, rows);
    if let Some(text) = analysis.quantized.iter().find_map(|report| report.text) {
        let _ = write!(page, "<p class=\"dim\">{} tokens of the text are scored.</p>", text.tokens);
    }
}

/// Nothing lost sorts behind everything else.
fn sqnr(db: Option<f64>) -> Cell {
    db.map_or(Cell::Other(f64::MAX, "exact"), Cell::Number)
}

/// Everything about one model.
pub(super) fn model(page: &mut String, report: &QuantizedReport) -> Result<(), AnalysisError> {
    let _ = write!(page, "<h2>{}</h2>", escaped(&report.size.name));
    let row = |size: &TypeSize| {
        let name = Cell::Text(size.name.clone());
        let counts = [size.tensors as u64, size.weights, size.bytes].map(Cell::Count);
        std::iter::once(name).chain(counts).chain([Cell::Number(size.bits)]).collect()
    };
    let headings = [
        ("type", "As the file has it"),
        ("tensors", "How many"),
        ("weights", "In them"),
        ("bytes", "That they take"),
        ("bits", "Bits a weight"),
    ];
    table(page, &headings, report.size.types.iter().map(row).collect());
    for (names, whose) in
        [(&report.only_in_original, "the original"), (&report.only_in_quantized, "this model")]
    {
        if !names.is_empty() {
            let _ = write!(page, "<p>Only in {whose}: {}.</p>", escaped(&names.join(", ")));
        }
    }
    sqnr_by_layer(page, report)?;
    tensors(page, report)
}

/// SQNR of each matrix of the layers: a line for each kind.
fn sqnr_by_layer(page: &mut String, report: &QuantizedReport) -> Result<(), AnalysisError> {
    let mut series: Vec<Series> = Vec::new();
    for tensor in report.tensors.iter().filter(|tensor| tensor.shape[0] > 1) {
        let Some(layer) = tensor.layer else { continue };
        let point = (layer as f64, tensor.relative_error);
        match series.iter_mut().find(|series| series.name == tensor.kind) {
            Some(series) => series.points.push(point),
            None => series.push(Series { name: tensor.kind.clone(), points: vec![point] }),
        }
    }
    if series.iter().flat_map(|series| &series.points).all(|point| point.1 == 0.0) {
        return Ok(());
    }
    page.push_str("<figure>");
    page.push_str(&plots::lines(("layer", "relative error"), &series, None, true)?);
    page.push_str("<figcaption>Error of the weights of each matrix, |W - W'| / |W|.</figcaption></figure>");
    super::legend(page, &series);
    Ok(())
}

/// Every tensor that has changed, with its histograms.
fn tensors(page: &mut String, report: &QuantizedReport) -> Result<(), AnalysisError> {
    let headings = [
        ("tensor", "What it is"),
        ("shape", "Rows x columns"),
        ("type", "Before, after"),
        ("bits", "Bits a weight after"),
        ("MSE", "Mean square of the error"),
        ("rel. error", "|W - W'| / |W|"),
        ("SQNR dB", "Signal to quantization noise"),
        ("zeros %", "Share of weights that are zero after"),
        ("before %", "Share of weights that were zero"),
        ("distribution", "Histograms of weights and scales"),
    ];
    let changed: Vec<&TensorReport> =
        report.tensors.iter().filter(|tensor| tensor.sqnr_db.is_some()).collect();
    let same = report.tensors.len() - changed.len();
    let mut rows = Vec::with_capacity(changed.len());
    for tensor in changed {
        let [before, after] = &tensor.types;
        rows.push(vec![
            Cell::Text(tensor.name.clone()),
            Cell::Text(format!("{} x {}", tensor.shape[0], tensor.shape[1])),
            Cell::Text(if before == after { after.clone() } else { format!("{before}, {after}") }),
            Cell::Number(tensor.bits[1]),
            Cell::Number(tensor.mse),
            Cell::Number(tensor.relative_error),
            sqnr(tensor.sqnr_db),
            Cell::Number(tensor.zeros[1] * 100.0),
            Cell::Number(tensor.zeros[0] * 100.0),
            Cell::Html(distribution(tensor)?),
        ]);
    }
    let all = if rows.is_empty() { "No tensor has changed." } else { "Tensors that have changed" };
    let _ = write!(page, "<h3>{all}</h3>");
    if !rows.is_empty() {
        table(page, &headings, rows);
        let _ = write!(page, "<p class=\"dim\">{same} tensors are the same before and after.</p>");
    }
    Ok(())
}

fn distribution(tensor: &TensorReport) -> Result<String, AnalysisError> {
    let mut html = String::from("<details><summary>show</summary><figure>");
    html.push_str(&plots::weights(&tensor.histogram)?);
    html.push_str("<figcaption>Share of weights: grey before, line after.</figcaption></figure>");
    if let Some(scales) = tensor.scales.as_ref().filter(|scales| scales.count > scales.zero) {
        html.push_str("<figure>");
        html.push_str(&plots::scales(scales)?);
        let [least, low, median, high, most] = scales.quantiles.map(number);
        let _ = write!(
            html,
            "<figcaption>{} scales, {} of them 0: {least} to {most}<br>5 % below {low}, half below {median}, 5 % above \
             {high}.</figcaption></figure>",
            scales.count, scales.zero,
        );
    }
    html.push_str("</details>");
    Ok(html)
}
