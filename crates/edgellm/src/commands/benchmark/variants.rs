//! `--all`: one model in every type side by side, each in a process of its own so that its peak memory is its own.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::report::Report;
use crate::args::BenchmarkArgs;
use crate::output::{self, Output};

/// Types, and the kernels that each is measured with. Ternary weights are held at 1.6 bits by the lookup and the multiply
/// kernels and at 2 bits, as in the file, by the reference.
const VARIANTS: [(&str, &[&str]); 6] = [
    ("f32", &["auto"]),
    ("f16", &["auto"]),
    ("int8", &["auto"]),
    ("int4", &["auto"]),
    ("ternary", &["lookup", "multiply", "reference"]),
    ("tmac1", &["auto"]),
];

/// Measures all variants and prints a line for each, or a list of objects.
pub(super) fn run(args: &BenchmarkArgs, out: &mut Output) -> Result<()> {
    let mut reports = Vec::new();
    let option = if args.synthetic.is_some() { "--type" } else { "--as" };
    for (stored, kernels) in VARIANTS {
        // T-MAC v1 has no random weights, because without a scale they have no size.
        if args.synthetic.is_some() && stored == "tmac1" {
            continue;
        }
        for kernel in kernels {
            output::note(&format!("measuring {stored}, kernels: {kernel}"));
            reports.push(measured([option, stored, "--kernel", kernel])?);
        }
    }
    if args.json {
        return out.json(&reports);
    }
    out.line(
        "type       kernel     file MB   read MB   peak MB   prefill tok/s   decode tok/s   bandwidth   perplexity",
    )?;
    for report in &reports {
        let last = |speeds: &BTreeMap<usize, f64>| {
            speeds.last_key_value().map_or_else(String::new, |(n, speed)| format!("{speed:.1} ({n})"))
        };
        let number = |value: Option<f64>, decimals| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
        };
        out.line(&format!(
            "{:<10} {:<10} {:>7} {:>9.1} {:>9} {:>15} {:>14} {:>9.0} % {:>12}",
            report.weight_type,
            report.kernel,
            number(report.size_mb, 1),
            report.bytes_per_token as f64 / 1e6,
            number(report.peak_rss_mb, 0),
            last(&report.prefill_tok_s),
            last(&report.decode_tok_s),
            report.bandwidth_fraction * 100.0,
            number(report.perplexity, 3),
        ))?;
    }
    Ok(())
}

/// Runs this program with the arguments that it was given, but one variant instead of `--all`.
fn measured(variant: [&str; 4]) -> Result<Report> {
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let given = std::env::args_os().skip(1).filter(|arg| arg != "--all" && arg != "--json");
    let output = Command::new(program)
        .args(given)
        .args(variant)
        .args(["--json", "--with-size"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run this program anew")?;
    if !output.status.success() {
        bail!("measuring {} failed", variant.join(" "));
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("the figures of {}", variant.join(" ")))
}
