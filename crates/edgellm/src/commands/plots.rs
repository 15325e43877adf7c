//! Plots as SVG.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;

const SIZE: (u32, u32) = (640, 300);
/// This run, and the one that it is compared with.
const COLORS: [RGBColor; 2] = [RGBColor(31, 119, 180), RGBColor(190, 190, 190)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error + Send + Sync>>;

/// Bars side by side: for each label one value of each series (at most two; `None` leaves a gap). The first
/// value of a label is written on its bar.
pub(super) fn bars(title: &str, labels: &[String], series: &[Vec<Option<f64>>]) -> anyhow::Result<String> {
    drawn(|area| {
        let most = series.iter().flatten().flatten().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..labels.len() as f64, 0.0..most * 1.15)?;
        let label = |x: &f64| labels.get(x.floor() as usize).cloned().unwrap_or_default();
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(labels.len())
            .x_label_formatter(&label)
            .x_label_offset((SIZE.0 / (2 * labels.len().max(1) as u32)) as i32)
            .draw()?;
        for (s, (values, color)) in series.iter().zip(COLORS).enumerate() {
            let width = 0.7 / series.len() as f64;
            for (i, value) in values.iter().enumerate() {
                let Some(value) = *value else { continue };
                let left = i as f64 + 0.15 + s as f64 * width;
                let bar = Rectangle::new([(left, 0.0), (left + width, value)], color.filled());
                let text =
                    Text::new(format!("{value:.1}"), (left, value * 1.0 + most * 0.06), ("sans-serif", 13));
                chart.draw_series([bar])?;
                chart.draw_series([text])?;
            }
        }
        Ok(())
    })
}

/// A point for each value in its order.
pub(super) fn points(title: &str, x: &str, y: &str, values: &[f64]) -> anyhow::Result<String> {
    drawn(|area| {
        let most = values.iter().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..values.len() as f64, 0.0..most * 1.1)?;
        chart.configure_mesh().x_desc(x).y_desc(y).draw()?;
        let point = |(i, &value): (usize, &f64)| Circle::new((i as f64, value), 2, COLORS[0].filled());
        chart.draw_series(values.iter().enumerate().map(point))?;
        Ok(())
    })
}

/// A line through the points of each series, by their names.
pub(super) fn lines(
    title: &str,
    x: &str,
    y: &str,
    series: &[(String, Vec<(f64, f64)>)],
) -> anyhow::Result<String> {
    drawn(|area| {
        let points = || series.iter().flat_map(|(_, points)| points).filter(|(_, y)| y.is_finite());
        let last = points().map(|p| p.0).fold(1.0, f64::max);
        let (least, most) =
            points().fold((f64::INFINITY, f64::NEG_INFINITY), |r, p| (r.0.min(p.1), r.1.max(p.1)));
        let (least, most) = if least <= most { (least, most) } else { (0.0, 1.0) };
        let room = ((most - least) * 0.05).max(most.abs() * 1e-3).max(1e-9);
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..last, least - room..most + room)?;
        chart.configure_mesh().x_desc(x).y_desc(y).draw()?;
        for (i, (name, points)) in series.iter().enumerate() {
            let color = Palette99::pick(i).to_rgba();
            let points: Vec<(f64, f64)> = points.iter().copied().filter(|(_, y)| y.is_finite()).collect();
            let drawn = chart.draw_series([PathElement::new(points, color)])?;
            if series.len() > 1 {
                drawn.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
            }
        }
        if series.len() > 1 {
            chart
                .configure_series_labels()
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.3))
                .draw()?;
        }
        Ok(())
    })
}

/// An SVG that `draw` has drawn.
fn drawn(draw: impl FnOnce(&Area<'_>) -> Drawn) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let all = draw(&area).and_then(|()| Ok(area.present()?));
        all.map_err(|err| anyhow::anyhow!("cannot draw a plot: {err}"))?;
    }
    Ok(svg)
}
