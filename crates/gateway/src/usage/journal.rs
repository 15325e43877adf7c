//! Records on their way to the database: a file that is appended to, so that a process that is killed loses none.
//!
//! Each process has files of its own, `PROCESS-NUMBER.usage`, a record a line, and holds a lock on a file beside them. At a
//! start the files of processes that have died are taken over. A line that was cut off in the middle was never
//! acknowledged and is left out.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::record::UsageRecord;
use crate::ids;

const RECORDS: &str = "usage";
const LOCK: &str = "lock";
/// Records that are held in memory. When the database is gone for so long that there are more, the rest waits on the disk.
const IN_MEMORY: usize = 100_000;

/// The journal of a process.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    process: String,
    /// Held as long as the process lives.
    _lock: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    path: PathBuf,
    next: u64,
    /// What is in the file; `None` when it is too much.
    records: Option<Vec<UsageRecord>>,
    line: Vec<u8>,
    /// Files that wait for the database, the oldest first.
    waiting: VecDeque<Part>,
    /// Records that the disk did not take.
    lost: u64,
}

/// Records that wait for the database.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    records: Option<Vec<UsageRecord>>,
}

impl Journal {
    /// Opens the folder, takes over what dead processes have left, and begins.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let process = ids::new("");
        let lock_path = folder.join(&process).with_extension(LOCK);
        let lock = File::create(lock_path)?;
        lock.lock()?;
        let waiting =
            orphans(folder, &process)?.into_iter().map(|path| Part { path, records: None }).collect();
        let (file, path) = begin(folder, &process, 0)?;
        let state =
            State { file, path, next: 1, records: Some(Vec::new()), line: Vec::new(), waiting, lost: 0 };
        Ok(Self { folder: folder.to_owned(), process, _lock: lock, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record. When this returns, the record outlives the process.
    pub(crate) fn append(&self, record: UsageRecord) {
        let mut state = self.state();
        let State { file, records, line, lost, .. } = &mut *state;
        line.clear();
        let written = serde_json::to_writer(&mut *line, &record).map_err(io::Error::from).and_then(|()| {
            line.push(b'\n');
            file.write_all(line)
        });
        if written.is_err() {
            // The disk is full: the record still reaches the database, if the process lives that long.
            *lost += 1;
        }
        match records {
            Some(all) if all.len() < IN_MEMORY => all.push(record),
            Some(_) if written.is_ok() => *records = None,
            _ => {}
        }
    }

    /// How many records could not be written to the disk.
    pub(crate) fn lost(&self) -> u64 {
        self.state().lost
    }

    /// How many records wait for the database, as far as they are in memory.
    pub(crate) fn pending(&self) -> usize {
        let state = self.state();
        let waiting = state.waiting.iter().map(|part| part.records.as_ref().map_or(0, Vec::len));
        waiting.sum::<usize>() + state.records.as_ref().map_or(0, Vec::len)
    }

    /// What was appended so far is to come into the database; what comes from now on goes into another file.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn rotate(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.records.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let (file, path) = begin(&self.folder, &self.process, state.next)?;
        state.next += 1;
        state.file = file;
        let path = std::mem::replace(&mut state.path, path);
        let held: usize = state.waiting.iter().map(|part| part.records.as_ref().map_or(0, Vec::len)).sum();
        let records = state.records.replace(Vec::new()).filter(|records| held + records.len() <= IN_MEMORY);
        state.waiting.push_back(Part { path, records });
        Ok(())
    }

    /// The oldest records that wait for the database. They wait on until [`Self::done`] is called.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn oldest(&self) -> io::Result<Option<Vec<UsageRecord>>> {
        let state = self.state();
        let Some(part) = state.waiting.front() else { return Ok(None) };
        match &part.records {
            Some(records) => Ok(Some(records.clone())),
            None => {
                let path = part.path.clone();
                drop(state);
                read(&path).map(Some)
            }
        }
    }

    /// The oldest records are in the database.
    pub(crate) fn done(&self) {
        let part = self.state().waiting.pop_front();
        if let Some(part) = part {
            // A file that stays is written again at the next start, which changes nothing.
            let _ = fs::remove_file(part.path);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let state = self.state();
        if state.records.as_ref().is_some_and(Vec::is_empty) {
            let _ = fs::remove_file(&state.path);
        }
        let _ = fs::remove_file(self.folder.join(&self.process).with_extension(LOCK));
    }
}

/// A new file.
fn begin(folder: &Path, process: &str, number: u64) -> io::Result<(File, PathBuf)> {
    let path = folder.join(format!("{process}-{number:012}.{RECORDS}"));
    let mut options = OpenOptions::new();
    options.create_new(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    Ok((options.open(&path)?, path))
}

/// Files of processes that have died, in their order.
fn orphans(folder: &Path, own: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let process = stem.split('-').next().unwrap_or_default();
        if process == own || ![RECORDS, LOCK].contains(&extension) {
            continue;
        }
        let lock = folder.join(process).with_extension(LOCK);
        // Whoever lives holds the lock; whoever has died holds none, whether its file is there or not.
        let is_dead = File::open(&lock).map_or(true, |file| file.try_lock().is_ok());
        match is_dead {
            true if extension == RECORDS => found.push(path),
            // One that cannot be removed does no harm.
            true => drop(fs::remove_file(path)),
            false => {}
        }
    }
    found.sort();
    Ok(found)
}

/// The whole lines of a file.
fn read(path: &Path) -> io::Result<Vec<UsageRecord>> {
    let bytes = match fs::read(path) {
        // Another instance that has taken it over as well was faster.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes?,
    };
    Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u64) -> UsageRecord {
        UsageRecord {
            id: format!("r{n}"),
            at: 1_000 * n as i64,
            subject: "key".into(),
            owner: "owner".into(),
            model: "model".into(),
            endpoint: "/v1/chat/completions".into(),
            status: 200,
            prompt_tokens: n,
            cached_tokens: 0,
            completion_tokens: 1,
            micros: 10,
        }
    }

    fn all(journal: &Journal) -> Vec<UsageRecord> {
        let mut found = Vec::new();
        journal.rotate().unwrap();
        while let Some(records) = journal.oldest().unwrap() {
            found.extend(records);
            journal.done();
        }
        found
    }

    #[test]
    fn what_is_appended_comes_out_once_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        (0..5).for_each(|n| journal.append(record(n)));
        assert_eq!(journal.pending(), 5);
        journal.rotate().unwrap();
        assert_eq!(journal.oldest().unwrap(), journal.oldest().unwrap(), "until it is done");
        assert_eq!(journal.oldest().unwrap().unwrap().len(), 5);
        (5..7).for_each(|n| journal.append(record(n)));
        assert_eq!(all(&journal), (0..7).map(record).collect::<Vec<_>>());
        drop(journal);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_dead_process_has_left_is_taken_over_and_a_cut_line_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        journal.append(record(1));
        let second = Journal::open(folder.path()).unwrap();
        second.rotate().unwrap();
        assert!(second.oldest().unwrap().is_none(), "the first one lives");
        // As after a kill: the files are there, the lock is not held.
        let path = journal.state().path.clone();
        fs::copy(&path, folder.path().join("dead-000000000000.usage")).unwrap();
        let mut file =
            OpenOptions::new().append(true).open(folder.path().join("dead-000000000000.usage")).unwrap();
        file.write_all(b"{\"id\":\"r2\",\"at\":2").unwrap();
        let third = Journal::open(folder.path()).unwrap();
        assert_eq!(all(&third), [record(1)]);
        assert_eq!(all(&journal), [record(1)]);
    }
}
