//! The course of a training, as its events tell it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

/// Fields of a step that are remembered.
const OF_A_STEP: [&str; 5] = ["loss", "gradient", "rate", "learning_rate", "tokens_per_second"];

/// What a log tells.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// By field: step and value.
    pub(super) steps: BTreeMap<&'static str, Vec<(f64, f64)>>,
    /// By unit and data set, likewise.
    pub(super) validations: BTreeMap<(&'static str, String), Vec<(f64, f64)>>,
    /// Step and text.
    pub(super) samples: Vec<(f64, String)>,
}

impl Course {
    /// Of the lines of a log. Where a run went on from a checkpoint, what was done twice counts as it was done last.
    pub(super) fn of(log: &str) -> Result<Self> {
        let mut course = Self::default();
        for (i, line) in log.lines().enumerate() {
            course.add(&serde_json::from_str(line).with_context(|| format!("log.jsonl: line {}", i + 1))?);
        }
        Ok(course)
    }

    /// One event more.
    pub(super) fn add(&mut self, event: &Value) {
        let Some(step) = event["step"].as_f64() else { return };
        match event["event"].as_str() {
            Some("step") => {
                if self.last_step() >= step {
                    self.forget_after(step - 1.0);
                }
                for field in OF_A_STEP {
                    let value = event[field].as_f64();
                    self.steps.entry(field).or_default().extend(value.map(|value| (step, value)));
                }
            }
            Some("validation") => {
                let name = event["name"].as_str().unwrap_or("validation");
                for unit in ["bits_per_byte", "nll"] {
                    let values = self.validations.entry((unit, name.to_owned())).or_default();
                    values.extend(event[unit].as_f64().map(|value| (step, value)));
                }
            }
            Some("sample") => {
                self.samples.push((step, event["text"].as_str().unwrap_or_default().to_owned()));
            }
            _ => {}
        }
    }

    /// The last value of a field of the steps.
    pub(super) fn last(&self, field: &str) -> Option<f64> {
        self.steps.get(field)?.last().map(|point| point.1)
    }

    fn last_step(&self) -> f64 {
        self.steps.values().filter_map(|points| points.last()).map(|p| p.0).fold(0.0, f64::max)
    }

    /// What was told after `step` counts no more.
    pub(super) fn forget_after(&mut self, step: f64) {
        self.steps
            .values_mut()
            .chain(self.validations.values_mut())
            .for_each(|all| all.retain(|p| p.0 <= step));
        self.samples.retain(|sample| sample.0 <= step);
    }
}

/// At most `most` means of points that follow each other.
pub(super) fn means(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let mean = |part: &[(f64, f64)]| {
        let sum = part.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (sum.0 / part.len() as f64, sum.1 / part.len() as f64)
    };
    points.chunks(points.len().div_ceil(most.max(1)).max(1)).map(mean).collect()
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
        assert_eq!(course.validations[&("nll", "a".to_owned())], [(2.0, 3.5)]);
        assert_eq!(course.samples, [(3.0, "<b> once".to_owned())]);
        assert_eq!((course.last("loss"), course.last("rate")), (Some(2.0), None));
        assert!(Course::of("what").is_err());
    }

    #[test]
    fn many_steps_become_few_points() {
        let points: Vec<(f64, f64)> = (0..1001).map(|i| (f64::from(i), 2.0)).collect();
        let means = means(&points, 400);
        assert!(means.len() <= 400 && means.len() > 300 && means.iter().all(|p| p.1 == 2.0));
    }
}
