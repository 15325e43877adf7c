//! Server-sent events, read back: what a stream becomes when it goes on in another form.

/// Cuts a stream of bytes into the data of its events.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The data of the events that are whole with these bytes. Our own streams have one line of data an event.
    pub(crate) fn events(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let lines = whole.split(|byte| *byte == b'\n');
        lines
            .filter_map(|line| line.strip_prefix(b"data: "))
            .map(|data| String::from_utf8_lossy(data).into_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let stream = "event: a\ndata: {\"t\":\"ü\"}\n\n: keep-alive\n\ndata: [DONE]\n\n".as_bytes();
        for size in 1..=stream.len() {
            let mut lines = Lines::default();
            let found: Vec<String> = stream.chunks(size).flat_map(|bytes| lines.events(bytes)).collect();
            assert_eq!(found, ["{\"t\":\"ü\"}", "[DONE]"]);
        }
    }
}
