//! `report.html` of a training: its course in plots, made of `log.jsonl`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

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

/// What a log tells.
#[derive(Debug, Default)]
struct Course {
    /// By field: step and value.
    steps: BTreeMap<&'static str, Vec<(f64, f64)>>,
    /// By unit and data set, likewise.
    validations: BTreeMap<(&'static str, String), Vec<(f64, f64)>>,
    samples: Vec<(f64, String)>,
}

impl Course {
    /// Of the lines of a log. Where a run went on from a checkpoint, what was done twice counts as it was done last.
    fn of(log: &str) -> Result<Self> {
        let mut course = Self::default();
        for (i, line) in log.lines().enumerate() {
            let event: Value =
                serde_json::from_str(line).with_context(|| format!("log.jsonl: line {}", i + 1))?;
            let Some(step) = event["step"].as_f64() else { continue };
            match event["event"].as_str() {
                Some("step") => {
                    if course.last_step() >= step {
                        course.forget_after(step - 1.0);
                    }
                    for (field, ..) in OF_A_STEP {
                        let value = event[field].as_f64();
                        course.steps.entry(field).or_default().extend(value.map(|value| (step, value)));
                    }
                }
                Some("validation") => {
                    let name = event["name"].as_str().unwrap_or("validation");
                    for unit in ["bits_per_byte", "nll"] {
                        let values = course.validations.entry((unit, name.to_owned())).or_default();
                        values.extend(event[unit].as_f64().map(|value| (step, value)));
                    }
                }
                Some("sample") => {
                    course.samples.push((step, event["text"].as_str().unwrap_or_default().to_owned()));
                }
                _ => {}
            }
        }
        Ok(course)
    }

    fn last_step(&self) -> f64 {
        self.steps.values().filter_map(|points| points.last()).map(|p| p.0).fold(0.0, f64::max)
    }

    fn forget_after(&mut self, step: f64) {
        self.steps
            .values_mut()
            .chain(self.validations.values_mut())
            .for_each(|all| all.retain(|p| p.0 <= step));
        self.samples.retain(|sample| sample.0 <= step);
    }

    fn page(&self, title: &str, config: &str) -> Result<String> {
        let title = escaped(title);
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}\
             </style></head><body><h1>{title}</h1>"
        );
        for (unit, name) in [("bits_per_byte", "bits a byte"), ("nll", "nats a token")] {
            let series: Vec<(String, Vec<(f64, f64)>)> = self
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
            let points = self.steps.get(field).map_or(&[][..], |points| points);
            if !points.is_empty() {
                let series = [(String::new(), means(points))];
                page.push_str(&plots::lines(title, "step", unit, &series)?);
            }
        }
        if !self.samples.is_empty() {
            page.push_str("<h2>What it wrote</h2><table><tr><th>step</th><th></th></tr>");
            for (step, text) in self.samples.iter().rev().take(SAMPLES) {
                write!(page, "<tr><td class=\"n\">{step}</td><td>{}</td></tr>", escaped(text))?;
            }
            page.push_str("</table>");
        }
        writeln!(page, "<h2>Configuration</h2><pre>{}</pre></body></html>", escaped(config))?;
        Ok(page)
    }
}

/// At most [`POINTS`] means of points that follow each other.
fn means(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |part: &[(f64, f64)]| {
        let sum = part.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (sum.0 / part.len() as f64, sum.1 / part.len() as f64)
    };
    points.chunks(points.len().div_ceil(POINTS).max(1)).map(mean).collect()
}

/// Writes `report.html` beside the log of `folder`. `config` is what the run was told.
pub(super) fn write(folder: &Path, config: &str) -> Result<()> {
    let log = folder.join("log.jsonl");
    let text = std::fs::read_to_string(&log).with_context(|| format!("{}: cannot read", log.display()))?;
    let title = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    html::write(&folder.join("report.html"), &Course::of(&text)?.page(&title, config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_twice_counts_as_it_was_done_last() {
        let log = r#"{"event":"step","step":1,"loss":4.0}
{"event":"step","step":2,"loss":3.0}
{"event":"validation","step":2,"name":"a","nll":3.5,"bits_per_byte":1.5}
{"event":"step","step":3,"loss":9.0}
{"event":"step","step":3,"loss":2.0}
{"event":"sample","step":3,"text":"<b> once"}
"#;
        let course = Course::of(log).unwrap();
        assert_eq!(course.steps["loss"], [(1.0, 4.0), (2.0, 3.0), (3.0, 2.0)]);
        let page = course.page("run", "dim = 1").unwrap();
        assert!(
            page.contains("&lt;b&gt; once") && page.contains("dim = 1") && page.matches("<svg").count() == 3
        );
        assert!(Course::of("what").is_err());
    }

    #[test]
    fn many_steps_become_few_points() {
        let points: Vec<(f64, f64)> = (0..1001).map(|i| (f64::from(i), 2.0)).collect();
        let means = means(&points);
        assert!(means.len() <= POINTS && means.iter().all(|p| p.1 == 2.0));
    }
}
