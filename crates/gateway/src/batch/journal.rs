//! Results on their way to the disk: one line each, in the order in which they came, so that a batch can go on after the
//! process has died.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::line::{Line, Outcome};

/// A result, its place in the batch, and the digest of its request.
#[derive(Serialize, Deserialize)]
struct Entry {
    place: usize,
    request: u32,
    outcome: Outcome,
}

/// The results of a batch so far.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Places whose results are there, and whether they are answers.
    pub(crate) done: Vec<(usize, bool)>,
}

impl Journal {
    /// Opens the journal of a batch, or begins one. A last line that was being written when the process died is taken away.
    ///
    /// # Errors
    /// The system's; results of other requests than these.
    pub(crate) fn open(path: &Path, requests: &[Line]) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let (mut done, mut whole) = (Vec::new(), 0);
        let mut reader = BufReader::new(&mut file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            let entry = serde_json::from_slice::<Entry>(&line).ok().filter(|_| line.ends_with(b"\n"));
            let Some(entry) = entry else { break };
            if requests.get(entry.place).is_none_or(|line| line.digest() != entry.request) {
                return Err(io::Error::other("it has results of other requests: take it away to begin anew"));
            }
            done.push((entry.place, entry.outcome.is_success()));
            whole += line.len() as u64;
            line.clear();
        }
        file.set_len(whole)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { path: path.to_owned(), file, done })
    }

    /// Adds a result.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn add(&mut self, place: usize, request: u32, outcome: Outcome) -> io::Result<()> {
        self.done.push((place, outcome.is_success()));
        let mut line = serde_json::to_vec(&Entry { place, request, outcome })?;
        line.push(b'\n');
        // One write: a process that dies leaves a whole line or a piece of one, never two mixed.
        self.file.write_all(&line)
    }

    /// Writes all results that `wanted` names to a file, in the order of the batch. The file appears when it is whole.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write_sorted(&self, to: &Path, wanted: impl Fn(bool) -> bool) -> io::Result<u64> {
        // Where each result lies; the results themselves stay on the disk.
        let mut places = Vec::new();
        let mut reader = BufReader::new(File::open(&self.path)?);
        let (mut offset, mut line) = (0, Vec::new());
        for &(place, is_success) in &self.done {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)? as u64;
            if wanted(is_success) {
                places.push((place, offset));
            }
            offset += length;
        }
        places.sort_unstable();
        let part = to.with_extension("writing");
        let mut out = BufWriter::new(File::create(&part)?);
        let mut written = 0;
        for (_, offset) in places {
            reader.seek(SeekFrom::Start(offset))?;
            line.clear();
            reader.read_until(b'\n', &mut line)?;
            let entry: Entry = serde_json::from_slice(&line)?;
            let mut result = serde_json::to_vec(&entry.outcome)?;
            result.push(b'\n');
            out.write_all(&result)?;
            written += result.len() as u64;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(part, to)?;
        Ok(written)
    }

    /// Takes the journal away, once its results lie elsewhere.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, status: u16) -> Outcome {
        let value = serde_json::json!({
            "id": "i", "custom_id": name, "error": null,
            "response": { "status_code": status, "request_id": "r", "body": { "text": "a\nb" } }
        });
        serde_json::from_value(value).unwrap()
    }

    fn requests<const N: usize>(names: [&str; N]) -> Vec<Line> {
        let line = |name: &str| {
            let line = serde_json::json!({ "custom_id": name, "method": "POST", "url": "/v1/completions", "body": {} });
            serde_json::from_str(&line.to_string()).unwrap()
        };
        names.into_iter().map(line).collect()
    }

    #[test]
    fn a_journal_goes_on_after_any_cut_and_sorts_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (path, out) = (folder.path().join("j"), folder.path().join("out.jsonl"));
        let requests = requests(["a", "b", "c"]);
        let add = |journal: &mut Journal, place: usize, name, status| {
            journal.add(place, requests[place].digest(), outcome(name, status)).unwrap();
        };
        let mut journal = Journal::open(&path, &requests).unwrap();
        for (place, name, status) in [(2, "c", 200), (0, "a", 400), (1, "b", 200)] {
            add(&mut journal, place, name, status);
        }
        let bytes = std::fs::read(&path).unwrap();
        let ends: Vec<usize> = (1..=bytes.len()).filter(|end| bytes[end - 1] == b'\n').collect();
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let mut journal = Journal::open(&path, &requests).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(journal.done.len(), whole, "cut at {cut}");
            // The rest waits for the disk: it is done for some of the cuts.
            if cut % 16 != 0 && !ends.contains(&cut) {
                continue;
            }
            for (place, name, status) in [(2, "c", 200), (0, "a", 400), (1, "b", 200)].into_iter().skip(whole)
            {
                add(&mut journal, place, name, status);
            }
            journal.write_sorted(&out, |_| true).unwrap();
            let names = |path: &Path| {
                let text = std::fs::read_to_string(path).unwrap();
                text.lines()
                    .map(|line| serde_json::from_str::<Outcome>(line).unwrap().custom_id)
                    .collect::<String>()
            };
            assert_eq!(names(&out), "abc");
            journal.write_sorted(&out, |is_success| is_success).unwrap();
            assert_eq!(names(&out), "bc");
        }
    }

    #[test]
    fn results_of_other_requests_are_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let of = requests(["a", "b"]);
        let mut journal = Journal::open(&path, &of).unwrap();
        journal.add(1, of[1].digest(), outcome("b", 200)).unwrap();
        assert_eq!(Journal::open(&path, &of).unwrap().done, [(1, true)]);
        for other in [&requests(["a", "c"])[..], &requests(["b", "a"]), &of[..1]] {
            assert!(Journal::open(&path, other).is_err());
        }
    }
}
