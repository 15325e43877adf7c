//! The figures on the terminal.

use std::collections::BTreeMap;

use anyhow::Result;

use super::measure::{Measured, Plan};
use super::report::{InterToken, ProfileReport, Report};
use crate::output::Output;

/// Prints the figures, each with the range of its runs.
pub(super) fn print(report: &Report, plan: &Plan, measured: &Measured, out: &mut Output) -> Result<()> {
    let mut line = |name: &str, value: String| out.line(&format!("{name:<16} {value}"));
    line("model", format!("{}, {}", report.model, report.weight_type))?;
    line("runs on", format!("{}, {}, {} threads", report.isa, report.kernel, report.threads))?;
    line("load", format!("{:.0} ms", report.load_ms))?;
    for (what, medians, lengths, runs) in [
        ("prefill", &report.prefill_tok_s, &plan.prompt_lengths, &measured.prefill),
        ("decode", &report.decode_tok_s, &plan.decode_lengths, &measured.decode),
        ("sequences", &report.batch_tok_s, &plan.batch_sizes, &measured.batch),
    ] {
        for (length, runs) in lengths.iter().zip(runs) {
            let speed = medians.get(length).copied().unwrap_or_default();
            line(&format!("{what} {length}"), format!("{speed:.1} tok/s{}", range(runs)))?;
        }
    }
    if let Some(length) = plan.prompt_lengths.first() {
        line("first token", format!("{:.1} ms behind a prompt of {length}", report.ttft_ms))?;
    }
    let InterToken { p50, p99, p999, max } = report.inter_token_ms;
    line("between tokens", format!("p50 {p50:.2} ms, p99 {p99:.2}, p99.9 {p999:.2}, max {max:.2}"))?;
    line("jitter", format!("p99 is {:.2} x p50, max {:.2} x", p99 / p50, max / p50))?;
    line("bytes a token", format!("{:.1} MB", report.bytes_per_token as f64 / 1e6))?;
    line(
        "read bandwidth",
        format!(
            "{:.1} GB/s, of which decoding uses {:.0} %",
            report.read_bandwidth_gb_s,
            report.bandwidth_fraction * 100.0
        ),
    )?;
    if let Some(peak) = report.peak_rss_mb {
        line("peak memory", format!("{peak:.0} MB"))?;
    }
    if let Some(perplexity) = report.perplexity {
        line("perplexity", format!("{perplexity:.4}"))?;
    }
    Ok(())
}

/// The slowest and the fastest run.
fn range(runs: &[f64]) -> String {
    let (least, most) =
        runs.iter().fold((f64::INFINITY, 0.0f64), |(least, most), &x| (least.min(x), most.max(x)));
    if runs.len() > 1 { format!("  ({least:.1} to {most:.1})") } else { String::new() }
}

/// Prints the time of each operation and of each layer, of a batch of the prompt and of a generated token.
pub(super) fn print_profile(profile: &ProfileReport, out: &mut Output) -> Result<()> {
    let (prefill, decode) = (&profile.prefill, &profile.decode);
    out.line("")?;
    out.line(&format!("{:<16} {:>12} {:>12}", "ms a pass", "prefill", "decode"))?;
    for ((name, prefill), (_, decode)) in prefill.operations.iter().zip(&decode.operations) {
        out.line(&format!("{name:<16} {prefill:>12.3} {decode:>12.3}"))?;
    }
    for (layer, (prefill, decode)) in prefill.layers.iter().zip(&decode.layers).enumerate() {
        out.line(&format!("{:<16} {prefill:>12.3} {decode:>12.3}", format!("layer {layer}")))?;
    }
    Ok(())
}

/// Prints each figure of `this` beside that of `other`, and their ratio: above 1 is better.
pub(super) fn compare(this: &Report, other: &Report, out: &mut Output) -> Result<()> {
    out.line("")?;
    out.line(&format!(
        "against          {}, {}, {}, {} threads",
        other.model, other.weight_type, other.isa, other.threads
    ))?;
    for (name, this, other, ratio) in ratios(this, other) {
        out.line(&format!("{name:<16} {this:>12.3} {other:>12.3}  {ratio:.3} x"))?;
    }
    Ok(())
}

/// Name, both figures and how much better the first is, of all that both reports have.
fn ratios(this: &Report, other: &Report) -> Vec<(String, f64, f64, f64)> {
    let mut rows = Vec::new();
    let maps = |report: &Report| {
        [report.prefill_tok_s.clone(), report.decode_tok_s.clone(), report.batch_tok_s.clone()]
    };
    let names = ["prefill", "decode", "batch"];
    for ((name, this), other) in names.into_iter().zip(maps(this)).zip(maps(other)) {
        let other: BTreeMap<usize, f64> = other;
        let both = this.into_iter().filter_map(|(n, speed)| Some((n, speed, *other.get(&n)?)));
        rows.extend(both.map(|(n, this, other)| (format!("{name} {n} tok/s"), this, other, this / other)));
    }
    let (a, b) = (&this.inter_token_ms, &other.inter_token_ms);
    for (name, this, other) in [
        ("first token ms", this.ttft_ms, other.ttft_ms),
        ("p50 ms", a.p50, b.p50),
        ("p99 ms", a.p99, b.p99),
        ("p99.9 ms", a.p999, b.p999),
        ("max ms", a.max, b.max),
        ("bytes a token", this.bytes_per_token as f64, other.bytes_per_token as f64),
        ("load ms", this.load_ms, other.load_ms),
    ] {
        rows.push((name.to_owned(), this, other, other / this));
    }
    if let (Some(this), Some(other)) = (this.peak_rss_mb, other.peak_rss_mb) {
        rows.push(("peak memory MB".to_owned(), this, other, other / this));
    }
    rows
}
