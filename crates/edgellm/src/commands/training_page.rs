//! `report.html` of a training: its course in plots, made of `log.jsonl`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::course::{Course, means};
use super::html::{self, STYLE, escaped};
use super::plots;

/// Points of a line at most: each is the mean of as many steps as it takes.
const POINTS: usize = 400;

/// Samples that are shown, the last ones.
const SAMPLES: usize = 10;

/// What is plotted of each step: the field of its event, the plot's title, the axis.
const OF_A_STEP: [(&str, &str, &str); 5] = [
    ("loss", "Loss of the training texts", "nats a token"),
    ("gradient", "Length of the gradient", ""),
    ("rate", "Learning rate, of its peak", ""),
    ("learning_rate", "Learning rate", ""),
    ("tokens_per_second", "Speed", "tokens/s"),
];

/// The page of a course.
fn page(course: &Course, title: &str, config: &str) -> Result<String> {
    let title = escaped(title);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}\
         </style></head><body><h1>{title}</h1>"
    );
    for (unit, name) in [("bits_per_byte", "bits a byte"), ("nll", "nats a token")] {
        let series: Vec<(String, Vec<(f64, f64)>)> = course
            .validations
            .iter()
            .filter(|((of, _), points)| *of == unit && !points.is_empty())
            .map(|((_, set), points)| (set.clone(), points.clone()))
            .collect();
        if series.is_empty() {
            continue;
        }
        page.push_str(&plots::lines("Loss of the validation texts", "step", name, &series)?);
        write!(page, "<table><tr><th>{name}</th><th>step</th><th>last</th><th>least</th></tr>")?;
        for (set, points) in &series {
            let least = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
            let (step, last) = points.last().copied().unwrap_or_default();
            let set = escaped(set);
            write!(
                page,
                "<tr><td>{set}</td><td class=\"n\">{step}</td><td class=\"n\">{last:.4}</td>\
                 <td class=\"n\">{least:.4}</td></tr>"
            )?;
        }
        page.push_str("</table>");
    }
    for (field, title, unit) in OF_A_STEP {
        let points = course.steps.get(field).map_or(&[][..], |points| points);
        if !points.is_empty() {
            let series = [(String::new(), means(points, POINTS))];
            page.push_str(&plots::lines(title, "step", unit, &series)?);
        }
    }
    if !course.samples.is_empty() {
        page.push_str("<h2>What it wrote</h2><table><tr><th>step</th><th></th></tr>");
        for (step, text) in course.samples.iter().rev().take(SAMPLES) {
            write!(page, "<tr><td class=\"n\">{step}</td><td>{}</td></tr>", escaped(text))?;
        }
        page.push_str("</table>");
    }
    writeln!(page, "<h2>Configuration</h2><pre>{}</pre></body></html>", escaped(config))?;
    Ok(page)
}

/// Writes `report.html` beside the log of `folder`. `config` is what the run was told.
pub(super) fn write(folder: &Path, config: &str) -> Result<()> {
    let log = folder.join("log.jsonl");
    let text = std::fs::read_to_string(&log).with_context(|| format!("{}: cannot read", log.display()))?;
    let title = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    html::write(&folder.join("report.html"), &page(&Course::of(&text)?, &title, config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_tells_is_on_the_page() {
        let log = r#"{"event":"step","step":1,"loss":4.0}
{"event":"validation","step":1,"name":"a","nll":3.5,"bits_per_byte":1.5}
{"event":"sample","step":1,"text":"<b> once"}
"#;
        let page = page(&Course::of(log).unwrap(), "run", "dim = 1").unwrap();
        assert!(
            page.contains("&lt;b&gt; once") && page.contains("dim = 1") && page.matches("<svg").count() == 3
        );
    }
}
