//! Finds stop strings in a text that arrives in pieces, and holds back what may still become one.

/// The text so far that is not yet certain to be part of the answer.
#[derive(Debug)]
pub(crate) struct StopStrings {
    stops: Vec<String>,
    pending: String,
    found: Option<usize>,
}

/// Bytes held back at most without growing.
const ROOM: usize = 1024;

impl StopStrings {
    /// Watches for these strings; empty ones are ignored.
    pub(crate) fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), pending: String::with_capacity(ROOM), found: None }
    }

    /// Adds text; everything from the first stop string on is dropped.
    pub(crate) fn push(&mut self, text: &str) {
        if self.found.is_some() {
            return;
        }
        self.pending.push_str(text);
        let stops = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        let found = stops.filter_map(|(i, stop)| Some((self.pending.find(stop.as_str())?, i))).min();
        if let Some((at, index)) = found {
            self.pending.truncate(at);
            self.found = Some(index);
        }
    }

    /// Index of the stop string that has come.
    pub(crate) fn found(&self) -> Option<usize> {
        self.found
    }

    /// Moves the text that cannot become part of a stop string any more to the end of `text`.
    pub(crate) fn take_certain(&mut self, text: &mut String) {
        let held = if self.found.is_some() { 0 } else { self.held_back() };
        text.extend(self.pending.drain(..self.pending.len() - held));
    }

    /// Takes all text: nothing more will come.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.pending)
    }

    /// Length of the longest end of the text that is the beginning of a stop string.
    fn held_back(&self) -> usize {
        let starts = |end: &str| self.stops.iter().any(|s| s.starts_with(end));
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let ends = self.pending.char_indices().map(|(i, _)| &self.pending[i..]);
        ends.filter(|end| end.len() < longest && starts(end)).map(str::len).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut watch = StopStrings::new(&stops);
        let mut text = String::new();
        for piece in pieces {
            watch.push(piece);
            watch.take_certain(&mut text);
        }
        text += &watch.finish();
        (text, watch.found().is_some())
    }

    #[test]
    fn a_stop_string_over_pieces_is_cut() {
        assert_eq!(run(&["\n\n"], &["one\n", "\ntwo"]), ("one".to_owned(), true));
        assert_eq!(run(&["END"], &["an E", "N", "d"]), ("an ENd".to_owned(), false));
        assert_eq!(run(&["bc", "abcd"], &["a", "b", "c"]), ("a".to_owned(), true));
        assert_eq!(run(&[""], &["text"]), ("text".to_owned(), false));
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(text in "[ab\u{e9}]{0,24}", stop in "[ab\u{e9}]{1,4}", cut in 1usize..5) {
            let chars: Vec<char> = text.chars().collect();
            let pieces: Vec<String> = chars.chunks(cut).map(|c| c.iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let expected = text.find(&stop).map_or(&text[..], |at| &text[..at]);
            prop_assert_eq!(run(&[&stop], &pieces), (expected.to_owned(), text.contains(&stop)));
        }
    }
}
