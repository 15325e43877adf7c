//! Plots as SVG. Their text and axes take the page's colours from its style sheet, their lines one of [`COLORS`].

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::axis::{LogAxis, span};
use super::html::number;
use crate::analysis::error::AnalysisError;
use crate::analysis::tensor::{Histogram, Scales};

const LARGE: (u32, u32) = (760, 340);
const SMALL: (u32, u32) = (340, 150);
/// Seen as well on white as on black.
const COLORS: [RGBColor; 8] = [
    RGBColor(59, 130, 196),
    RGBColor(224, 129, 45),
    RGBColor(63, 155, 106),
    RGBColor(208, 80, 79),
    RGBColor(143, 107, 192),
    RGBColor(156, 107, 78),
    RGBColor(216, 115, 168),
    RGBColor(127, 135, 144),
];
const BEFORE: RGBColor = RGBColor(127, 135, 144);
/// Share of weights below which a bin is not shown.
const LEAST_SHARE: f64 = 1e-6;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error + Send + Sync>>;

/// Points that belong together.
pub(super) struct Series {
    pub(super) name: String,
    /// x and y; those of which y has no logarithm are left out.
    pub(super) points: Vec<(f64, f64)>,
}

fn color(i: usize) -> RGBColor {
    COLORS[i % COLORS.len()]
}

/// The colour of series `i` as CSS has it.
pub(super) fn css(i: usize) -> String {
    let RGBColor(r, g, b) = color(i);
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Lines with a mark at each point, y on a logarithmic axis, and with `numbers` the number of its series at the last point
/// of each. `level` is a horizontal line.
pub(super) fn lines(
    (x, y): (&str, &str),
    series: &[Series],
    level: Option<f64>,
    numbers: bool,
) -> Result<String, AnalysisError> {
    let seen = |&(x, y): &(f64, f64)| (x.is_finite() && y.is_finite() && y > 0.0).then(|| (x, y.ln()));
    let all: Vec<Vec<(f64, f64)>> =
        series.iter().map(|series| series.points.iter().filter_map(seen).collect()).collect();
    let whole = all.iter().flatten().all(|point| point.0.fract() == 0.0);
    let xs = span(all.iter().flatten().map(|point| point.0), 0.04);
    let level = level.filter(|level| *level > 0.0).map(f64::ln);
    let ys = span(all.iter().flatten().map(|point| point.1).chain(level), 0.06);
    drawn(LARGE, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(20)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(xs.clone(), LogAxis::new(ys))?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(x)
            .x_label_formatter(&|x| whole_or_short(*x, whole))
            .y_desc(y)
            .label_style(("sans-serif", 13))
            .draw()?;
        if let Some(level) = level {
            let line = PathElement::new(vec![(xs.start, level), (xs.end, level)], BEFORE.stroke_width(2));
            chart.draw_series([line])?;
        }
        for (i, points) in all.iter().enumerate() {
            chart.draw_series([PathElement::new(points.clone(), color(i).stroke_width(2))])?;
            chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, color(i).filled())))?;
            if let Some(&last) = points.last().filter(|_| numbers) {
                let text = Text::new((i + 1).to_string(), (6, -14), ("sans-serif", 13));
                chart.draw_series([EmptyElement::at(last) + text])?;
            }
        }
        Ok(())
    })
}

/// A label of x; none between whole numbers where only these occur.
fn whole_or_short(x: f64, whole: bool) -> String {
    if whole && (x - x.round()).abs() > 1e-9 { String::new() } else { number(x) }
}

/// Shares of weights, filled before, a line after; logarithmic.
pub(super) fn weights(histogram: &Histogram) -> Result<String, AnalysisError> {
    let limit = histogram.limit;
    let outlines = histogram.counts.each_ref().map(|counts| outline(counts, -limit, limit));
    let ys = LEAST_SHARE.ln()..0.0;
    drawn(SMALL, |area| {
        let ys = LogAxis::with_ticks(ys, &[1e-6, 1e-4, 1e-2, 1.0]);
        let mut chart = ChartBuilder::on(area)
            .margin(4)
            .x_label_area_size(20)
            .y_label_area_size(44)
            .build_cartesian_2d(-limit..limit, ys)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .label_style(("sans-serif", 12))
            .x_labels(5)
            .x_label_formatter(&|x| number(*x))
            .draw()?;
        let [before, after] = outlines;
        chart.draw_series([Polygon::new(before, BEFORE.mix(0.55))])?;
        chart.draw_series([PathElement::new(after, color(0).stroke_width(1))])?;
        Ok(())
    })
}

/// How many scales of each magnitude; the magnitude is logarithmic.
pub(super) fn scales(scales: &Scales) -> Result<String, AnalysisError> {
    let (least, most) = (scales.quantiles[0].ln(), scales.quantiles[4].ln());
    let ends = if most > least { (least, most) } else { (least - 0.5, least + 0.5) };
    let most = scales.counts.iter().max().copied().unwrap_or(0).max(1) as f64;
    drawn(SMALL, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(4)
            .x_label_area_size(20)
            .y_label_area_size(44)
            .build_cartesian_2d(LogAxis::small(ends.0..ends.1), 0.0..most * 1.05)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .label_style(("sans-serif", 12))
            .y_labels(3)
            .y_label_formatter(&|y| number(*y))
            .draw()?;
        let width = (ends.1 - ends.0) / scales.counts.len() as f64;
        let bar = |(i, &count): (usize, &u64)| {
            let left = ends.0 + i as f64 * width;
            Rectangle::new([(left, 0.0), (left + width * 0.9, count as f64)], color(0).filled())
        };
        chart.draw_series(scales.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(bar))?;
        Ok(())
    })
}

/// The steps of a histogram as a line from floor to floor, heights as logarithms of shares.
fn outline(counts: &[u64], from: f64, to: f64) -> Vec<(f64, f64)> {
    let all = counts.iter().sum::<u64>().max(1) as f64;
    let width = (to - from) / counts.len().max(1) as f64;
    let mut points = vec![(from, LEAST_SHARE.ln())];
    for (i, &count) in counts.iter().enumerate() {
        let height = (count as f64 / all).max(LEAST_SHARE).ln();
        let left = from + i as f64 * width;
        points.extend([(left, height), (left + width, height)]);
    }
    points.push((to, LEAST_SHARE.ln()));
    points
}

/// An SVG that `draw` has drawn.
fn drawn(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, AnalysisError> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let all = draw(&area).and_then(|()| Ok(area.present()?));
        all.map_err(|err| AnalysisError::Plot(err.to_string()))?;
    }
    // What is said of each element though it is so anyway: a page has hundreds of plots.
    Ok(svg.replace(" opacity=\"1\"", "").replace(" font-family=\"sans-serif\"", ""))
}
