//! What an axis shows.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use super::html::number;

/// Labels of an axis at most.
const MAX_TICKS: usize = 9;
/// Those of a small plot.
const MAX_SMALL_TICKS: usize = 5;

/// An axis of natural logarithms, labelled with what they are logarithms of.
pub(super) struct LogAxis {
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl LogAxis {
    /// With labels that fit the range.
    pub(super) fn new(range: Range<f64>) -> Self {
        Self { ticks: log_ticks(&range), range }
    }

    /// With fewer of them, for a small plot.
    pub(super) fn small(range: Range<f64>) -> Self {
        let ticks = log_ticks(&range);
        let every = ticks.len().div_ceil(MAX_SMALL_TICKS).max(1);
        Self { ticks: ticks.into_iter().step_by(every).collect(), range }
    }

    /// With these labels.
    pub(super) fn with_ticks(range: Range<f64>, values: &[f64]) -> Self {
        Self { range, ticks: values.iter().map(|value| value.ln()).collect() }
    }
}

impl Ranged for LogAxis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let place = (value - self.range.start) / (self.range.end - self.range.start);
        from + (f64::from(to - from) * place).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for LogAxis {
    fn format(value: &f64) -> String {
        number(value.exp())
    }
}

/// From the least to the largest of the finite values with this share of room on both sides; never empty.
pub(super) fn span(values: impl Iterator<Item = f64>, room: f64) -> Range<f64> {
    let finite = values.filter(|value| value.is_finite());
    let (least, most) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
    if least > most {
        return 0.0..1.0;
    }
    // A single value stands in the middle.
    let room = if most > least { (most - least) * room } else { 0.5 };
    least - room..most + room
}

/// Logarithms of round numbers inside a range of (natural) logarithms.
fn log_ticks(range: &Range<f64>) -> Vec<f64> {
    let decades = (range.end - range.start) / std::f64::consts::LN_10;
    let numbers =
        if decades < 0.8 { even(range.start.exp(), range.end.exp()) } else { steps(range, decades) };
    numbers.into_iter().map(f64::ln).filter(|tick| range.contains(tick)).collect()
}

/// 1, 2 and 5 of each decade, or, where these are too many, powers of ten.
fn steps(range: &Range<f64>, decades: f64) -> Vec<f64> {
    let log10 = |x: f64| x / std::f64::consts::LN_10;
    let powers = log10(range.start).floor() as i32..=log10(range.end).ceil() as i32;
    if decades * 3.0 <= MAX_TICKS as f64 {
        return powers.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power))).collect();
    }
    let every = (decades / MAX_TICKS as f64).ceil().max(1.0) as usize;
    powers.step_by(every).map(|power| 10f64.powi(power)).collect()
}

/// Multiples of a round number: three or more that fit.
fn even(least: f64, most: f64) -> Vec<f64> {
    let raw = (most - least) / 4.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [5.0, 2.0, 1.0].map(|digit| digit * power).into_iter().find(|step| *step <= raw);
    let step = step.unwrap_or(power);
    let first = (least / step).ceil();
    (0..MAX_TICKS).map(|i| (first + i as f64) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(least: f64, most: f64) -> Vec<f64> {
        let round = |tick: f64| (tick.exp() * 1e6).round() / 1e6;
        log_ticks(&(least.ln()..most.ln())).into_iter().map(round).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(19.0, 31.0), [20.0, 22.0, 24.0, 26.0, 28.0, 30.0]);
        assert_eq!(ticks(9.0, 600.0), [10.0, 20.0, 50.0, 100.0, 200.0, 500.0]);
        assert_eq!(ticks(15.0, 700_000.0), [100.0, 1e3, 1e4, 1e5]);
        for (least, most) in [(1e-9, 1e9), (1.0, 1.001), (1e-30, 1e-29), (5.0, 40.0)] {
            let found = log_ticks(&(f64::ln(least)..f64::ln(most)));
            assert!((1..=MAX_TICKS).contains(&found.len()), "{least} {most} {found:?}");
        }
    }

    #[test]
    fn spans_hold_all_values() {
        assert_eq!(span([].into_iter(), 0.1), 0.0..1.0);
        assert_eq!(span([2.0, f64::NAN].into_iter(), 0.1), 1.5..2.5);
        assert_eq!(span([0.0, 10.0].into_iter(), 0.1), -1.0..11.0);
    }
}
