//! The page of `--html`: figures and plots in one file that needs no other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;

use super::measure::{Measured, Plan};
use super::report::Report;
use crate::commands::html::{STYLE, escaped};
use crate::commands::plots;

/// The page. With an earlier report, its figures stand beside those of this run.
pub(super) fn render(
    report: &Report,
    plan: &Plan,
    measured: &Measured,
    other: Option<&Report>,
) -> Result<String> {
    let mut page = String::new();
    let title = escaped(&format!("{} ({})", report.model, report.weight_type));
    write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\
         </head><body><h1>{title}</h1><p>EdgeLLM {}, {}, kernels: {}, {} threads; medians of {} runs.</p>",
        env!("CARGO_PKG_VERSION"),
        escaped(&report.isa),
        escaped(&report.kernel),
        report.threads,
        plan.repeat,
    )?;
    table(&mut page, report, other)?;
    for (name, this, that) in [
        ("Prefill, tokens/s by length of the prompt", &report.prefill_tok_s, other.map(|o| &o.prefill_tok_s)),
        ("Decode, tokens/s by number of tokens", &report.decode_tok_s, other.map(|o| &o.decode_tok_s)),
        ("Total tokens/s by number of sequences", &report.batch_tok_s, other.map(|o| &o.batch_tok_s)),
    ] {
        page.push_str(&speeds(name, this, that)?);
    }
    let gaps: Vec<f64> = measured.gaps.iter().map(|seconds| seconds * 1e3).collect();
    page.push_str(&plots::points("Time of each token", "token", "ms", &gaps)?);
    page.push_str("</body></html>\n");
    Ok(page)
}

fn speeds(name: &str, this: &BTreeMap<usize, f64>, other: Option<&BTreeMap<usize, f64>>) -> Result<String> {
    let labels: Vec<String> = this.keys().map(ToString::to_string).collect();
    let mut series = vec![this.values().map(|&speed| Some(speed)).collect()];
    series.extend(other.map(|other| this.keys().map(|n| other.get(n).copied()).collect()));
    plots::bars(name, &labels, &series)
}

/// Every figure but those that are plotted.
fn table(page: &mut String, report: &Report, other: Option<&Report>) -> Result<()> {
    let rows = |report: &Report| {
        let gaps = report.inter_token_ms;
        [
            ("Load, ms", report.load_ms),
            ("First token, ms", report.ttft_ms),
            ("Between tokens, p50, ms", gaps.p50),
            ("p99, ms", gaps.p99),
            ("p99.9, ms", gaps.p999),
            ("max, ms", gaps.max),
            ("Bytes a token, MB", report.bytes_per_token as f64 / 1e6),
            ("Read bandwidth, GB/s", report.read_bandwidth_gb_s),
            ("Used by decoding, %", report.bandwidth_fraction * 100.0),
            ("Peak memory, MB", report.peak_rss_mb.unwrap_or(f64::NAN)),
        ]
    };
    page.push_str("<table><tr><th></th><th>this run</th>");
    if let Some(other) = other {
        write!(page, "<th>{} ({})</th>", escaped(&other.model), escaped(&other.weight_type))?;
    }
    page.push_str("</tr>");
    let others = other.map(rows);
    for (i, (name, value)) in rows(report).into_iter().enumerate() {
        write!(page, "<tr><td>{name}</td><td class=\"n\">{}</td>", number(value))?;
        if let Some(others) = &others {
            write!(page, "<td class=\"n\">{}</td>", number(others[i].1))?;
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
    Ok(())
}

fn number(value: f64) -> String {
    if value.is_nan() { "not known".to_owned() } else { format!("{value:.2}") }
}
