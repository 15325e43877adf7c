//! How a training shows itself on standard error: a progress bar, or in its place a picture of the course.
//!
//! The picture is drawn as the bar is, below what was printed before. There is no other screen and the terminal is in no other
//! mode, so that there is nothing to put back when the program ends, however it does.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use console::Term;
use indicatif::ProgressBar;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::widgets::Widget;
use serde::Serialize;

use super::course::Course;
use super::picture::Picture;
use crate::output;

/// Pictures follow each other no sooner.
const PAUSE: Duration = Duration::from_millis(200);

/// A terminal of fewer columns or lines gets the bar.
const LEAST: (u16, u16) = (40, 14);

/// Lines of a picture at most.
const MOST_LINES: u16 = 24;

/// Where a training shows itself.
pub(super) struct Dashboard {
    bar: ProgressBar,
    /// What the picture shows; the bar is shown where there is none.
    course: Option<Course>,
    folder: PathBuf,
    checkpoint: Option<u64>,
    drawn: Option<Instant>,
}

impl Dashboard {
    /// For a training that writes to `folder`. Without `picture`, or where standard error is a terminal that is small or can do
    /// nothing, there is only the bar, and where it is no terminal, nothing.
    pub(super) fn new(folder: &Path, picture: bool) -> Result<Self> {
        let can = io::stderr().is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb");
        let course = (picture && can && room().is_some()).then(Course::default);
        let bar = if course.is_some() { output::picture_progress()? } else { output::step_progress()? };
        Ok(Self { bar, course, folder: folder.to_owned(), checkpoint: None, drawn: None })
    }

    /// Steps in all.
    pub(super) fn set_steps(&self, steps: u64) {
        self.bar.set_length(steps);
    }

    /// The training goes on from a checkpoint.
    pub(super) fn resumed(&mut self, step: u64) {
        self.bar.set_position(step);
        self.bar.reset_eta();
        if let Some(course) = &mut self.course {
            // A log that cannot be read makes the picture begin here, and is an error where it is needed.
            let log = std::fs::read_to_string(self.folder.join("log.jsonl")).unwrap_or_default();
            *course = Course::of(&log).unwrap_or_default();
            course.forget_after(step as f64);
            self.checkpoint = Some(step);
        }
        self.note(&format!("step {step}: going on from the checkpoint"));
    }

    /// A step is done.
    pub(super) fn step(&self, step: u64, loss: f64, tokens_per_second: f64) {
        self.bar.set_position(step);
        if self.course.is_none() {
            self.bar.set_message(format!("loss {loss:.4}, {tokens_per_second:.0} tokens/s"));
        }
    }

    /// A checkpoint is written.
    pub(super) fn checkpoint(&mut self, step: u64) {
        self.checkpoint = Some(step);
        self.remark(&format!("step {step}: checkpoint"));
    }

    /// Prints what the picture does not show.
    pub(super) fn note(&self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }

    /// Prints what the picture shows, where there is none.
    pub(super) fn remark(&self, text: &str) {
        if self.course.is_none() {
            self.note(text);
        }
    }

    /// Every event comes here last.
    pub(super) fn event(&mut self, event: &impl Serialize) -> Result<()> {
        let Some(course) = &mut self.course else { return Ok(()) };
        course.add(&serde_json::to_value(event)?);
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE) {
            self.drawn = Some(Instant::now());
            self.draw();
        }
        Ok(())
    }

    /// At the end the bar vanishes; the last picture stays.
    pub(super) fn finish(&self) {
        if self.course.is_some() {
            self.draw();
            self.bar.abandon();
        } else {
            self.bar.finish_and_clear();
        }
    }

    fn draw(&self) {
        let (Some(course), Some(area)) = (&self.course, room()) else { return };
        let picture = Picture {
            course,
            step: self.bar.position(),
            steps: self.bar.length().unwrap_or_default(),
            checkpoint: self.checkpoint,
            elapsed: self.bar.elapsed(),
            left: self.bar.eta(),
        };
        let mut buffer = Buffer::empty(area);
        picture.render(area, &mut buffer);
        self.bar.set_message(text(&buffer));
    }
}

/// Where a picture has room in the terminal of standard error; `None` where it has none.
fn room() -> Option<Rect> {
    let (lines, columns) = Term::stderr().size();
    let enough = columns >= LEAST.0 && lines >= LEAST.1;
    // A line that fills the terminal to its edge is followed by an empty one on some.
    enough.then(|| Rect::new(0, 0, columns - 1, (lines - 1).min(MOST_LINES)))
}

/// The lines of a picture, with the colours that the terminal is to show.
fn text(buffer: &Buffer) -> String {
    let style = |color: Color| {
        let style = console::Style::new().for_stderr();
        match color {
            Color::Cyan => style.cyan(),
            Color::Yellow => style.yellow(),
            Color::Green => style.green(),
            Color::Magenta => style.magenta(),
            _ => style,
        }
    };
    let area = buffer.area;
    let mut lines = Vec::new();
    for y in area.top()..area.bottom() {
        // Runs of one colour.
        let mut runs: Vec<(Color, String)> = Vec::new();
        let mut x = area.left();
        while let Some(cell) = buffer.cell((x, y)).filter(|_| x < area.right()) {
            match runs.last_mut() {
                Some((color, run)) if *color == cell.fg => run.push_str(cell.symbol()),
                _ => runs.push((cell.fg, cell.symbol().to_owned())),
            }
            // A wide character lies over the cell behind it.
            x += u16::try_from(console::measure_text_width(cell.symbol())).unwrap_or(1).max(1);
        }
        lines.push(
            runs.iter().map(|(color, run)| style(*color).apply_to(run).to_string()).collect::<String>(),
        );
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use ratatui::style::Style;

    use super::*;

    #[test]
    fn lines_keep_their_cells_and_wide_characters_their_width() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 8, 2));
        buffer.set_string(0, 0, "ab\u{6f22}\u{5b57}c", Style::new().fg(Color::Cyan));
        buffer.set_string(3, 1, "d", Style::new());
        let text = text(&buffer);
        let lines: Vec<_> = text.lines().map(|line| console::strip_ansi_codes(line).into_owned()).collect();
        assert_eq!(lines, ["ab\u{6f22}\u{5b57}c ", "   d    "]);
        assert!(lines.iter().all(|line| console::measure_text_width(line) == 8));
    }
}
