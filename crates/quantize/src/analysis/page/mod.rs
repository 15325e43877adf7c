//! The analysis as one HTML page that needs no other file: tables that sort, plots, light and dark. Writing to a `String`
//! cannot fail, so what `write!` returns is let go.

mod axis;
mod html;
mod plots;
mod sections;

use std::fmt::Write as _;

use super::curve::CurvePoint;
use super::error::AnalysisError;
use super::{Analysis, QuantizedReport};
use html::{Cell, escaped, table};
use plots::Series;

/// Keeps the browser from loading anything, should a name in a model ever slip through as a tag.
const HEAD: &str = "<meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; img-src data:\"><link rel=\"icon\" href=\"data:,\">";

/// The page. `more` are points of the curve beside those of the analysis, from other runs.
///
/// # Errors
/// Only when a plot cannot be drawn.
pub fn render(analysis: Option<&Analysis>, more: &[CurvePoint]) -> Result<String, AnalysisError> {
    let title = match analysis {
        Some(analysis) => format!("What quantization changed: {}", analysis.original.name),
        None => "Perplexity against bits".to_owned(),
    };
    let title = escaped(&title);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head>{HEAD}<title>{title}</title><style>{}</style></head><body>\
         <h1>{title}</h1><p class=\"dim\">EdgeLLM {}. A heading sorts its table.</p>",
        include_str!("page.css"),
        env!("CARGO_PKG_VERSION"),
    );
    if let Some(analysis) = analysis {
        sections::summary(&mut page, analysis);
    }
    let mut points = analysis.map_or_else(Vec::new, Analysis::points);
    points.extend_from_slice(more);
    if !points.is_empty() {
        curve(&mut page, &points, analysis.and_then(|analysis| analysis.perplexity))?;
    }
    if let Some(analysis) = analysis {
        layers(&mut page, &analysis.quantized)?;
        for report in &analysis.quantized {
            sections::model(&mut page, report)?;
        }
    }
    let _ = writeln!(page, "<script>{}</script></body></html>", include_str!("page.js"));
    Ok(page)
}

/// Perplexity, and where it is known KL, against bits: a line for each method.
fn curve(page: &mut String, points: &[CurvePoint], original: Option<f64>) -> Result<(), AnalysisError> {
    let mut methods: Vec<&str> = Vec::new();
    for point in points {
        if !methods.contains(&&point.method[..]) {
            methods.push(&point.method);
        }
    }
    let series = |value: fn(&CurvePoint) -> Option<f64>| -> Vec<Series> {
        let of = |method: &&str| {
            let mine = points.iter().filter(|point| point.method == *method);
            let mut points: Vec<_> = mine.filter_map(|p| Some((p.bits, value(p)?))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series { name: (*method).to_owned(), points }
        };
        methods.iter().map(of).collect()
    };
    let x = "bits a weight in the layers";
    let perplexity = series(|point| Some(point.perplexity));
    page.push_str("<h2>Perplexity against bits</h2><figure>");
    page.push_str(&plots::lines((x, "perplexity"), &perplexity, original, true)?);
    page.push_str("<figcaption>Lower and further to the left is better.");
    if original.is_some() {
        page.push_str(" The grey line is the original.");
    }
    page.push_str("</figcaption></figure>");
    legend(page, &perplexity);
    let kl = series(|point| point.mean_kl);
    if kl.iter().any(|series| !series.points.is_empty()) {
        page.push_str("<figure>");
        page.push_str(&plots::lines((x, "mean KL, nats"), &kl, None, true)?);
        page.push_str("<figcaption>Divergence of the next token's distribution from the original's.</figcaption></figure>");
    }
    let row = |point: &CurvePoint| {
        let method = Cell::Text(point.method.clone());
        vec![method, Cell::Number(point.bits), Cell::Number(point.perplexity), Cell::optional(point.mean_kl)]
    };
    page.push_str("<details><summary>The points</summary>");
    let headings = [
        ("method", "How the model was made"),
        ("bits", "Bits a weight in the matrices of the layers"),
        ("perplexity", "On the text of its run"),
        ("mean KL", "From the original, in nats"),
    ];
    table(page, &headings, points.iter().map(row).collect());
    page.push_str("</details>");
    Ok(())
}

/// The error of the hidden states behind each layer, a line for each model.
fn layers(page: &mut String, reports: &[QuantizedReport]) -> Result<(), AnalysisError> {
    if reports.iter().all(|report| report.layers.is_empty()) {
        return Ok(());
    }
    let of = |report: &QuantizedReport| {
        let errors = report.layers.iter().map(|layer| layer.relative_error);
        Series { name: report.size.name.clone(), points: (0..).map(f64::from).zip(errors).collect() }
    };
    let series: Vec<Series> = reports.iter().map(of).collect();
    page.push_str("<h2>Layer by layer</h2><figure>");
    page.push_str(&plots::lines(("layer", "relative error"), &series, None, reports.len() > 1)?);
    page.push_str(
        "<figcaption>How far the hidden state behind each layer is from the original's: |h - h'| / |h|, the mean over the \
         tokens of the text. Both models see the same tokens, so errors of earlier layers are in it.</figcaption></figure>",
    );
    if reports.len() > 1 {
        legend(page, &series);
    }
    Ok(())
}

/// Which colour and number is which.
fn legend(page: &mut String, series: &[Series]) {
    page.push_str("<ul class=\"legend\">");
    for (i, series) in series.iter().enumerate() {
        let (color, name) = (plots::css(i), escaped(&series.name));
        let _ = write!(page, "<li><i style=\"background:{color}\"></i>{} {name}</li>", i + 1);
    }
    page.push_str("</ul>");
}
