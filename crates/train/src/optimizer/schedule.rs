//! How the learning rate goes over a training.

use serde::{Deserialize, Serialize};

/// The course behind the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Course {
    /// As it is.
    Constant,
    /// Half a cosine down to the least.
    Cosine,
    /// Constant, then down to the least in a straight line over the last part ([`Schedule::decay`]).
    Trapezoid,
    /// BitNet b1.58's: straight down from 1, at the middle a step to two thirds of that, without weight decay from there
    /// on.
    TwoPhase,
}

/// What the learning rate is multiplied with in the second phase of [`Course::TwoPhase`].
const SECOND_PHASE: f64 = 2.0 / 3.0;

/// The course of a training of known length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Steps in all.
    pub steps: u64,
    /// Steps over which it rises from 0.
    pub warmup: u64,
    /// What comes behind.
    pub course: Course,
    /// The least, as a fraction of the peak.
    pub least: f64,
    /// The part of the training over which [`Course::Trapezoid`] falls.
    pub decay: f64,
}

impl Schedule {
    /// Factors on the learning rate and on the weight decay at `step`, the first of which is 0.
    pub fn at(&self, step: u64) -> (f64, f64) {
        if step < self.warmup {
            return ((step + 1) as f64 / self.warmup as f64, 1.0);
        }
        let length = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let done = ((step - self.warmup) as f64 / length).min(1.0);
        let between = |x: f64| self.least + (1.0 - self.least) * x;
        match self.course {
            Course::Constant => (1.0, 1.0),
            Course::Cosine => (between((1.0 + (std::f64::consts::PI * done).cos()) / 2.0), 1.0),
            Course::Trapezoid => {
                let falling = if self.decay > 0.0 { ((1.0 - done) / self.decay).min(1.0) } else { 1.0 };
                (between(falling), 1.0)
            }
            Course::TwoPhase if done < 0.5 => (between(1.0 - done), 1.0),
            Course::TwoPhase => (between(SECOND_PHASE * (1.0 - done)), 0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_course_goes_through_its_points() {
        let at = |course, step| {
            let schedule = Schedule { steps: 110, warmup: 10, course, least: 0.1, decay: 0.2 };
            schedule.at(step)
        };
        let near = |(got, _): (f64, f64), want: f64| assert!((got - want).abs() < 1e-12, "{got} for {want}");
        for course in [Course::Constant, Course::Cosine, Course::Trapezoid, Course::TwoPhase] {
            near(at(course, 0), 0.1);
            near(at(course, 9), 1.0);
            near(at(course, 10), 1.0);
        }
        near(at(Course::Constant, 500), 1.0);
        near(at(Course::Cosine, 60), 0.55);
        near(at(Course::Cosine, 110), 0.1);
        near(at(Course::Trapezoid, 90), 1.0);
        near(at(Course::Trapezoid, 100), 0.55);
        near(at(Course::Trapezoid, 200), 0.1);
        near(at(Course::TwoPhase, 59), 0.1 + 0.9 * 0.51);
        near(at(Course::TwoPhase, 60), 0.1 + 0.9 / 3.0);
        assert_eq!((at(Course::TwoPhase, 59).1, at(Course::TwoPhase, 60).1), (1.0, 0.0));
    }
}
