//! Small pieces of HTML. Writing to a `String` cannot fail, so what `write!` returns is let go.

use std::fmt::Write as _;

/// Text that may stand between tags and in quoted attributes.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A whole number, its digits in groups of three.
fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups = digits.len().div_ceil(3);
    let first = digits.len() - 3 * groups.saturating_sub(1);
    let (head, tail) = digits.split_at(first);
    let tail = (0..tail.len() / 3).map(|i| format!("\u{202f}{}", &tail[3 * i..3 * i + 3]));
    tail.fold(head.to_owned(), |all, group| all + &group)
}

/// Four significant digits, no more zeros than a reader likes.
pub(super) fn number(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !value.is_finite() {
        "-".to_owned()
    } else if !(1e-3..1e7).contains(&magnitude) {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
    } else {
        let digits = 3 - (magnitude.log10().floor() as i32);
        let text = format!("{value:.*}", digits.max(0) as usize);
        let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        short.to_owned()
    }
}

/// A table cell.
pub(super) enum Cell {
    /// Text.
    Text(String),
    /// A number, sorted by its value.
    Number(f64),
    /// How many.
    Count(u64),
    /// A number that is not known or not finite: sorted as the given one, shown as the text.
    Other(f64, &'static str),
    /// Ready-made HTML.
    Html(String),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Cell {
    fn is_number(&self) -> bool {
        matches!(self, Self::Number(_) | Self::Count(_) | Self::Other(..))
    }

    /// `None` is shown as `-` and is the least of all.
    pub(super) fn optional(value: Option<f64>) -> Self {
        value.map_or(Self::Other(f64::MIN, "-"), Self::Number)
    }
}

/// A table that its reader can sort: headings with a sentence of explanation each, and rows.
pub(super) fn table(page: &mut String, headings: &[(&str, &str)], rows: Vec<Vec<Cell>>) {
    page.push_str("<div class=\"scroll\"><table class=\"sort\"><thead><tr>");
    for (i, (heading, what)) in headings.iter().enumerate() {
        let numbers = matches!(rows.first().and_then(|row| row.get(i)), Some(cell) if cell.is_number());
        let class = if numbers { " class=\"n\"" } else { "" };
        let _ = write!(page, "<th{class} title=\"{}\">{}</th>", escaped(what), escaped(heading));
    }
    page.push_str("</tr></thead><tbody>");
    for row in rows {
        page.push_str("<tr>");
        for cell in row {
            let _ = match cell {
                Cell::Text(text) => write!(page, "<td>{}</td>", escaped(&text)),
                Cell::Number(x) => write!(page, "<td class=\"n\" data-v=\"{x}\">{}</td>", number(x)),
                Cell::Count(n) => write!(page, "<td class=\"n\" data-v=\"{n}\">{}</td>", whole(n as f64)),
                Cell::Other(x, text) => write!(page, "<td class=\"n\" data-v=\"{x}\">{text}</td>"),
                Cell::Html(html) => write!(page, "<td>{html}</td>"),
            };
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table></div>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, want) in [
            (0.0, "0"),
            (1.0, "1"),
            (23.703, "23.7"),
            (1234.56, "1235"),
            (645_000.0, "645000"),
            (0.012_345_6, "0.01235"),
            (-0.5, "-0.5"),
            (1e-9, "1e-9"),
            (2.39e11, "2.39e11"),
            (f64::INFINITY, "-"),
        ] {
            assert_eq!(number(value), want);
        }
    }

    #[test]
    fn whole_numbers_are_grouped() {
        for (value, want) in [(0.0, "0"), (999.0, "999"), (1000.0, "1 000"), (134_479_872.0, "134 479 872")] {
            assert_eq!(whole(value), want.replace(' ', "\u{202f}"));
        }
    }

    #[test]
    fn names_cannot_become_tags() {
        let mut page = String::new();
        table(&mut page, &[("a", "\"b\"")], vec![vec![Cell::from("<b> & co"), Cell::Number(f64::NAN)]]);
        assert!(page.contains("&lt;b&gt; &amp; co") && page.contains("title=\"&quot;b&quot;\""), "{page}");
    }
}
