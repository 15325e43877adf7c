//! The course of a training as a picture of characters.

use std::time::Duration;

use indicatif::HumanDuration;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Axis, Block, Chart, Dataset, GraphType, LegendPosition, LineGauge, Paragraph, Widget, Wrap,
};

use super::course::{Course, means};

/// The colour of the training's loss.
const TRAINING: Color = Color::Cyan;

/// Those of the validations, one after the other.
const VALIDATIONS: [Color; 3] = [Color::Yellow, Color::Green, Color::Magenta];

/// Lines of the last sample, at most.
const SAMPLE_LINES: u16 = 5;

/// What is drawn.
pub(super) struct Picture<'a> {
    /// Losses, speed, samples.
    pub(super) course: &'a Course,
    /// Steps done.
    pub(super) step: u64,
    /// Steps in all.
    pub(super) steps: u64,
    /// The last step that is in a checkpoint.
    pub(super) checkpoint: Option<u64>,
    /// Since this run began.
    pub(super) elapsed: Duration,
    /// Until it ends, as far as can be said.
    pub(super) left: Duration,
}

impl Widget for &Picture<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let sample = self.course.samples.last();
        let sample_lines = if sample.is_some() { SAMPLE_LINES + 2 } else { 0 };
        // The curve has at least half of the lines.
        let sample_lines = if sample_lines + 2 > area.height / 2 { 0 } else { sample_lines };
        let said = self.figures();
        let said_lines = if said.width() > usize::from(area.width) { 2 } else { 1 };
        let [curve, gauge, figures, text] = Layout::vertical([
            Constraint::Min(3),
            Constraint::Length(1),
            Constraint::Length(said_lines),
            Constraint::Length(sample_lines),
        ])
        .areas(area);
        self.curve(curve, buffer);
        self.gauge(gauge, buffer);
        Paragraph::new(said).wrap(Wrap { trim: true }).render(figures, buffer);
        if let Some((step, sample)) = sample.filter(|_| sample_lines > 0) {
            let title = format!(" what it wrote at step {step} ");
            // What a terminal would take for an order is not for it.
            let shown: String = sample.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            Paragraph::new(shown)
                .wrap(Wrap { trim: true })
                .block(Block::bordered().title(title))
                .render(text, buffer);
        }
    }
}

impl Picture<'_> {
    /// The losses of training and validation over the steps.
    fn curve(&self, area: Rect, buffer: &mut Buffer) {
        let block = Block::bordered().title(" loss, nats a token ");
        let losses = self.course.steps.get("loss").map_or(&[][..], |points| points);
        // Braille has two dots a column.
        let training = means(losses, usize::from(area.width) * 2);
        let validations: Vec<(&str, &[(f64, f64)])> = self
            .course
            .validations
            .iter()
            .filter(|((unit, _), points)| *unit == "nll" && !points.is_empty())
            .map(|((_, name), points)| (name.as_str(), &points[..]))
            .collect();
        let Some([low, high]) = bounds(&training, &validations) else {
            return Paragraph::new("no step is done yet").block(block).render(area, buffer);
        };
        let curve = |name: &str, points, color| {
            Dataset::default()
                .name(name.to_owned())
                .data(points)
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(color))
        };
        let mut curves = vec![curve("training", &training[..], TRAINING)];
        for ((name, points), color) in validations.iter().zip(VALIDATIONS.iter().cycle()) {
            curves.push(curve(name, points, *color));
        }
        let first = training.first().map_or(0.0, |point| point.0).min(1.0);
        let last = (self.steps.max(1) as f64).max(first + 1.0);
        Chart::new(curves)
            .block(block)
            .legend_position(Some(LegendPosition::TopRight))
            .x_axis(Axis::default().bounds([first, last]).labels([format!("{first}"), format!("{last}")]))
            .y_axis(Axis::default().bounds([low, high]).labels([low, high].map(|y| format!("{y:.3}"))))
            .render(area, buffer);
    }

    fn gauge(&self, area: Rect, buffer: &mut Buffer) {
        let part = if self.steps == 0 { 0.0 } else { (self.step as f64 / self.steps as f64).clamp(0.0, 1.0) };
        LineGauge::default()
            .ratio(part)
            .label(format!("step {} of {}", self.step, self.steps))
            .filled_style(Style::new().fg(TRAINING))
            .render(area, buffer);
    }

    fn figures(&self) -> Line<'static> {
        let mut parts = Vec::new();
        if let Some(loss) = self.course.last("loss") {
            parts.push(Span::styled(format!("loss {loss:.4}"), TRAINING));
        }
        let validations = self.course.validations.iter().filter(|((unit, _), _)| *unit == "nll");
        for (((_, name), points), color) in validations.zip(VALIDATIONS.iter().cycle()) {
            if let Some((_, nll)) = points.last() {
                parts.push(Span::styled(format!("{name} {nll:.4}"), *color));
            }
        }
        if let Some(speed) = self.course.last("tokens_per_second") {
            parts.push(format!("{speed:.0} tokens/s").into());
        }
        match (self.course.last("learning_rate"), self.course.last("rate")) {
            (Some(rate), _) => parts.push(format!("learning rate {rate:.2e}").into()),
            (None, Some(rate)) => {
                parts.push(format!("learning rate {:.0} % of its peak", rate * 100.0).into())
            }
            (None, None) => {}
        }
        if self.step < self.steps && self.course.last("loss").is_some() {
            parts.push(format!("{} left", HumanDuration(self.left)).into());
        }
        parts.push(format!("{} passed", HumanDuration(self.elapsed)).into());
        parts.extend(self.checkpoint.map(|step| format!("checkpoint of step {step}").into()));
        let mut line = Line::default();
        for (i, part) in parts.into_iter().enumerate() {
            if i > 0 {
                line.push_span(" | ");
            }
            line.push_span(part);
        }
        line
    }
}

/// The least and the largest loss that is shown: the first few of many steps, which are far above all others, are not.
fn bounds(training: &[(f64, f64)], validations: &[(&str, &[(f64, f64)])]) -> Option<[f64; 2]> {
    let mut all: Vec<f64> = training.iter().map(|point| point.1).collect();
    all.extend(validations.iter().flat_map(|(_, points)| points.iter().map(|point| point.1)));
    all.retain(|loss| loss.is_finite());
    all.sort_by(f64::total_cmp);
    let (low, high) = (*all.first()?, all[all.len() - 1 - all.len() / 50]);
    Some([low, if high > low { high } else { low + 1.0 }])
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    /// Losses that fall from 8 to 2 in 100 steps of 400.
    fn course() -> Course {
        let mut course = Course::default();
        for step in 1..=100 {
            let loss = 2.0 + 6.0 * (1.0 - f64::from(step - 1) / 99.0);
            course.add(&json!({"event": "step", "step": step, "loss": loss, "rate": 0.5, "tokens_per_second": 4680.2}));
        }
        for (step, nll) in [(50, 5.5), (100, 2.5)] {
            course.add(&json!({"event": "validation", "step": step, "name": "tales", "nll": nll, "bits_per_byte": 1.0}));
        }
        course.add(&json!({"event": "sample", "step": 100, "text": "Once upon\n\u{1b}[31ma time"}));
        course
    }

    fn drawn(course: &Course, width: u16, height: u16) -> Vec<String> {
        let picture = Picture {
            course,
            step: 100,
            steps: 400,
            checkpoint: Some(75),
            elapsed: Duration::from_secs(60),
            left: Duration::from_secs(180),
        };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| frame.render_widget(&picture, frame.area())).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        (0..height).map(line).collect()
    }

    /// Columns with dots of a curve, in each line.
    fn dots(line: &str) -> Vec<usize> {
        let braille = |c: char| ('\u{2801}'..='\u{28ff}').contains(&c);
        line.chars().enumerate().filter(|(_, c)| braille(*c)).map(|(i, _)| i).collect()
    }

    #[test]
    fn the_picture_has_the_curve_and_the_figures() {
        let lines = drawn(&course(), 120, 24);
        let all = lines.join("\n");
        for figure in [
            "step 100 of 400",
            "loss 2.0000",
            "tales 2.5000",
            "4680 tokens/s",
            "learning rate 50 % of its peak",
            "3 minutes left",
            "60 seconds passed",
            "checkpoint of step 75",
            "what it wrote at step 100",
            "Once upon  [31ma time",
        ] {
            assert!(all.contains(figure), "{figure} is missing in\n{all}");
        }
        // It falls: the higher a line, the further to the left its dots, and all lie in the first quarter of the steps.
        let curve: Vec<Vec<usize>> =
            lines.iter().map(|line| dots(line)).filter(|line| !line.is_empty()).collect();
        assert!(curve.len() >= 10, "{all}");
        assert!(curve.windows(2).all(|w| w[0][0] <= w[1][0] && w[0].last() <= w[1].last()), "{all}");
        assert!(curve.iter().flatten().all(|&x| x < 40), "{all}");
    }

    #[test]
    fn small_terminals_and_the_first_moment_have_a_picture() {
        assert!(drawn(&Course::default(), 40, 14).join("\n").contains("no step is done yet"));
        let lines = drawn(&course(), 40, 14);
        assert!(lines.iter().filter(|line| !dots(line).is_empty()).count() >= 5, "{lines:?}");
        assert!(lines.join("\n").contains("step 100 of 400"), "{lines:?}");
        for (width, height) in [(1, 1), (3, 2), (10, 4), (300, 100)] {
            drawn(&course(), width, height);
        }
    }

    #[test]
    fn the_first_of_many_losses_do_not_press_the_others_flat() {
        let losses: Vec<(f64, f64)> = (0..200)
            .map(|i| (f64::from(i), if i < 3 { 100.0 } else { 3.0 - f64::from(i) / 200.0 }))
            .collect();
        assert_eq!(bounds(&losses, &[]).unwrap()[1], 3.0 - 4.0 / 200.0);
        assert_eq!(bounds(&losses[..1], &[]), Some([100.0, 101.0]));
        assert_eq!(bounds(&[(1.0, f64::NAN)], &[]), None);
    }
}
