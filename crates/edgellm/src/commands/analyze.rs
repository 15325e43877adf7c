//! `edgellm analyze`: what quantization has changed.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use formats::writer::AtomicFile;
use quantize::analysis::{
    Analysis, AnalysisError, CurvePoint, Options, QuantizedReport, Text, analyze, page, parse_curve,
};

use super::load;
use crate::args::AnalyzeArgs;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::resolve;

/// Tensors that the table names: those that lost the most.
const WORST: usize = 5;

/// Compares, writes the page, and prints a table or one object.
pub(crate) fn run(args: &AnalyzeArgs, out: &mut Output) -> Result<()> {
    // What cannot be read is told before minutes of work, not after.
    let points = args.curve.as_deref().map_or(Ok(Vec::new()), curve)?;
    let analysis = args.original.as_deref().map(|original| compare(args, original)).transpose()?;
    if let Some(path) = &args.html {
        write(path, &page::render(analysis.as_ref(), &points)?)?;
    }
    match &analysis {
        Some(analysis) if args.json => out.json(analysis),
        Some(analysis) => print(analysis, out),
        None => Ok(()),
    }
}

fn compare(args: &AnalyzeArgs, original: &str) -> Result<Analysis> {
    let text = |path: &Path| -> Result<Text> {
        Ok(Text { text: load::file(path)?, context: args.context, chunks: args.chunks })
    };
    let options =
        Options { load: load::options(&args.run, None), text: args.text.as_deref().map(text).transpose()? };
    let original = resolve::model(original)?;
    let quantized = args.quantized.iter().map(|name| resolve::model(name)).collect::<Result<Vec<_>>>()?;
    let progress = output::step_progress()?;
    let found = analyze(&original, &quantized, &options, &mut |what, done, all| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
        progress.set_message(what.to_owned());
    });
    progress.finish_and_clear();
    found.map_err(advise)
}

/// What the user can do about it.
fn advise(err: AnalysisError) -> anyhow::Error {
    let hint = match &err {
        AnalysisError::Differs { .. } => "the original is named first, then what was made of it",
        AnalysisError::NotFinite { .. } => "the file is damaged, or its quantization failed: make it anew",
        _ => return err.into(),
    };
    Failure::new(err.to_string(), hint).into()
}

fn curve(path: &Path) -> Result<Vec<CurvePoint>> {
    let name = || path.display().to_string();
    let json = std::fs::read(path).with_context(|| format!("{}: cannot read", name()))?;
    parse_curve(&json).with_context(name)
}

/// Writes the page; it appears when it is whole.
fn write(path: &Path, page: &str) -> Result<()> {
    let cannot_write = || format!("{}: cannot write", path.display());
    let mut file = AtomicFile::create(path).with_context(cannot_write)?;
    file.write_all(page.as_bytes()).with_context(cannot_write)?;
    file.commit().with_context(cannot_write)
}

fn print(analysis: &Analysis, out: &mut Output) -> Result<()> {
    let width = analysis.quantized.iter().map(|report| report.size.name.len()).max().unwrap_or(0);
    let width = width.max(analysis.original.name.len()).max(5);
    let with_text = analysis.perplexity.is_some();
    let mut head =
        format!("{:<width$} {:>9} {:>7} {:>9} {:>9}", "model", "MB", "bits", "in layers", "SQNR dB");
    if with_text {
        head += &format!(" {:>11} {:>9} {:>9} {:>10}", "perplexity", "mean KL", "p99 KL", "same top %");
    }
    out.line(&head)?;
    let size = |size: &quantize::analysis::Size, sqnr: String| {
        let (name, mb) = (&size.name, size.file_bytes as f64 / 1e6);
        format!("{name:<width$} {mb:>9.2} {:>7.3} {:>9.3} {sqnr:>9}", size.bits, size.linear_bits)
    };
    let original = size(&analysis.original, "exact".to_owned());
    match analysis.perplexity {
        Some(found) => out.line(&format!("{original} {:>11}", perplexity(found)))?,
        None => out.line(&original)?,
    }
    for report in &analysis.quantized {
        let sqnr = report.sqnr_db.map_or("exact".to_owned(), |db| format!("{db:.2}"));
        let mut row = size(&report.size, sqnr);
        if let Some(text) = report.text {
            row += &format!(
                " {:>11} {:>9.5} {:>9.5} {:>10.2}",
                perplexity(text.perplexity),
                text.mean_kl,
                text.p99_kl,
                text.top1_agreement * 100.0
            );
        }
        out.line(&row)?;
    }
    for report in &analysis.quantized {
        details(report, out)?;
    }
    Ok(())
}

/// A ruined model's has more digits than a table has room for.
fn perplexity(value: f64) -> String {
    if value < 1e6 { format!("{value:.4}") } else { format!("{value:.3e}") }
}

/// What lost the most, and what is there only once.
fn details(report: &QuantizedReport, out: &mut Output) -> Result<()> {
    out.line("")?;
    let (times, what) = match report.compression {
        smaller if smaller >= 1.0 => (smaller, "smaller"),
        larger => (1.0 / larger, "larger"),
    };
    out.line(&format!("{}: {times:.2} times {what} than the original", report.size.name))?;
    let mut changed: Vec<_> = report.tensors.iter().filter(|tensor| tensor.sqnr_db.is_some()).collect();
    changed.sort_by(|a, b| b.relative_error.total_cmp(&a.relative_error));
    for tensor in changed.iter().take(WORST) {
        out.line(&format!(
            "  {:<20} {:<14} relative error {:.4}, {:.1} % zeros",
            tensor.name,
            tensor.types[1],
            tensor.relative_error,
            tensor.zeros[1] * 100.0
        ))?;
    }
    let rest = changed.len().saturating_sub(WORST);
    let same = report.tensors.len() - changed.len();
    match changed.len() {
        0 => out.line(&format!("  none of {same} tensors has changed"))?,
        _ => out.line(&format!("  {rest} more tensors have changed less, {same} not at all"))?,
    }
    let worst =
        report.layers.iter().enumerate().max_by(|a, b| a.1.relative_error.total_cmp(&b.1.relative_error));
    if let (Some(last), Some((layer, worst))) = (report.layers.last(), worst) {
        out.line(&format!(
            "  hidden states: relative error {:.4} behind the last layer, at most {:.4} (behind layer {layer})",
            last.relative_error, worst.relative_error
        ))?;
    }
    for (names, whose) in [(&report.only_in_original, "original"), (&report.only_in_quantized, "quantized")] {
        if !names.is_empty() {
            out.line(&format!("  only in the {whose} model: {}", names.join(", ")))?;
        }
    }
    Ok(())
}
