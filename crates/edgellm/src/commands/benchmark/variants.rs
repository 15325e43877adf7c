//! `--all`: one model in every type side by side, each in a process of its own so that its peak memory is its own.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::report::Report;
use crate::args::BenchmarkArgs;
use crate::output::{self, Output};

/// The types of a model that is rounded, and those of a synthetic one: T-MAC v1 has no random weights, because
/// without a scale they have no size.
const ROUNDED: [&str; 6] = ["f32", "f16", "int8", "int4", "ternary", "tmac1"];
const SYNTHETIC: [&str; 5] = ["f32", "f16", "int8", "int4", "ternary"];

/// Measures all variants and prints a line for each, or a list of objects.
pub(super) fn run(args: &BenchmarkArgs, out: &mut Output) -> Result<()> {
    let mut reports = Vec::new();
    let (option, types) =
        if args.synthetic.is_some() { ("--type", &SYNTHETIC[..]) } else { ("--as", &ROUNDED[..]) };
    for stored in types {
        output::note(&format!("measuring {stored}"));
        reports.push(measured(option, stored)?);
    }
    if args.json {
        return out.json(&reports);
    }
    out.line(
        "type       kernel     size MB   peak MB   prefill tok/s   decode tok/s   bandwidth   perplexity",
    )?;
    for report in &reports {
        let last = |speeds: &BTreeMap<usize, f64>| {
            speeds.last_key_value().map_or_else(String::new, |(n, speed)| format!("{speed:.1} ({n})"))
        };
        let number = |value: Option<f64>, decimals| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
        };
        out.line(&format!(
            "{:<10} {:<10} {:>7} {:>9} {:>15} {:>14} {:>9.0} % {:>12}",
            report.weight_type,
            report.kernel,
            number(report.size_mb, 1),
            number(report.peak_rss_mb, 0),
            last(&report.prefill_tok_s),
            last(&report.decode_tok_s),
            report.bandwidth_fraction * 100.0,
            number(report.perplexity, 3),
        ))?;
    }
    Ok(())
}

/// Runs this program with the arguments that it was given, but one type instead of `--all`.
fn measured(option: &str, stored: &str) -> Result<Report> {
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let given = std::env::args_os().skip(1).filter(|arg| arg != "--all" && arg != "--json");
    let output = Command::new(program)
        .args(given)
        .args([option, stored, "--json", "--with-size"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot measure {stored}"))?;
    if !output.status.success() {
        bail!("measuring {stored} failed");
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("the figures of {stored}"))
}
