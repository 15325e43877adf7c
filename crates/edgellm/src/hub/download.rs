//! From the hub into the cache: resumed, verified, then named.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;

use super::cache::{Cache, create_parent};
use super::client::{Client, FileInfo};
use super::digest::{Checksum, Hasher};
use super::select::{self, Choice};
use super::{HubError, Location};

/// Attempts without noteworthy progress before a download is given up.
const ATTEMPTS: u32 = 5;
/// An attempt that brings this many bytes was worth it, and is not counted.
const WORTHWHILE_BYTES: u64 = 1 << 20;
/// Pause before the second attempt; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// A model in the cache.
#[derive(Debug, Serialize)]
pub(crate) struct Pulled {
    /// The file, or the folder of a model with many files.
    pub(crate) path: PathBuf,
    /// The commit that it is from.
    pub(crate) commit: String,
    /// Its files.
    pub(crate) files: Vec<PulledFile>,
}

/// A verified file of a model.
#[derive(Debug, Serialize)]
pub(crate) struct PulledFile {
    /// Path in the repository.
    pub(crate) file: String,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// sha256 (64 digits) or git's sha1 (40 digits).
    pub(crate) checksum: String,
}

/// The hub and the cache.
pub(crate) struct Hub {
    cache: Cache,
    /// `None` offline.
    client: Option<Client>,
}

impl Hub {
    /// Reads the environment; see [`super`].
    pub(crate) fn from_env() -> Result<Self, HubError> {
        let cache = Cache::from_env()?;
        let client = if is_offline() { None } else { Some(Client::from_env()?) };
        Ok(Self { cache, client })
    }

    /// The path of a model that was pulled before; the network is not used.
    pub(crate) fn cached(cache: &Cache, location: &Location) -> Option<PathBuf> {
        let commit = cache.commit(location)?;
        let folder = cache.snapshot(&location.repo, &commit);
        if let Some(file) = &location.file {
            return Some(folder.join(file)).filter(|path| path.exists());
        }
        if select::is_whole(&folder) {
            return Some(folder);
        }
        let mut gguf = fs::read_dir(&folder).ok()?.filter_map(|entry| {
            let path = entry.ok()?.path();
            (path.extension()? == "gguf" && path.exists()).then_some(path)
        });
        gguf.next().filter(|_| gguf.next().is_none())
    }

    /// Brings a model into the cache, or finds it there. With `verify`, files that are there are hashed again
    /// and fetched anew when they have changed.
    pub(crate) fn pull(
        &self,
        location: &Location,
        verify: bool,
        progress: &ProgressBar,
    ) -> Result<Pulled, HubError> {
        let Some(client) = &self.client else {
            return self.pull_offline(location);
        };
        let (commit, wanted, is_folder) = match &location.file {
            Some(file) => {
                let info = client.file_info(&location.repo, &location.revision, file)?;
                (info.commit, vec![file.clone()], false)
            }
            None => {
                let info = client.repo_info(location)?;
                match select::choose(&location.repo, &info.files)? {
                    Choice::File(file) => (info.commit, vec![file], false),
                    Choice::Folder(files) => (info.commit, files, true),
                }
            }
        };
        // Every file is asked for by its commit: a push between two files cannot mix two versions of a model.
        let mut path = self.cache.snapshot(&location.repo, &commit);
        let mut files = Vec::with_capacity(wanted.len());
        for file in wanted {
            let info = client.file_info(&location.repo, &commit, &file)?;
            if info.commit != commit {
                let problem = format!("asked for commit {commit}, got {}", info.commit);
                return Err(HubError::Answer { url: format!("{}/{file}", location.repo), problem });
            }
            self.fetch(client, &location.repo, &file, &info, verify, progress)?;
            let link = self.cache.link(&location.repo, &commit, &file, &info.checksum)?;
            if !is_folder {
                path = link;
            }
            files.push(PulledFile { file, bytes: info.size, checksum: info.checksum.hex().to_owned() });
        }
        self.cache.set_commit(location, &commit)?;
        Ok(Pulled { path, commit, files })
    }

    fn pull_offline(&self, location: &Location) -> Result<Pulled, HubError> {
        let offline =
            || HubError::Offline { what: location.to_string(), cache: self.cache.root().to_owned() };
        let path = Self::cached(&self.cache, location).ok_or_else(offline)?;
        let commit = self.cache.commit(location).ok_or_else(offline)?;
        Ok(Pulled { path, commit, files: Vec::new() })
    }

    /// Makes the blob of a file whole.
    fn fetch(
        &self,
        client: &Client,
        repo: &str,
        file: &str,
        info: &FileInfo,
        verify: bool,
        progress: &ProgressBar,
    ) -> Result<(), HubError> {
        let blob = self.cache.blob(repo, &info.checksum);
        if is_intact(&blob, info, verify)? {
            return Ok(());
        }
        progress.set_message(file.to_owned());
        let path = self.cache.partial(repo, &info.checksum);
        create_parent(&path)?;
        let mut partial = Partial::open(&path, info)?;
        if blob.exists() && is_intact(&blob, info, verify)? {
            // Another process fetched it while this one waited for the lock.
            return Ok(());
        }
        progress.set_length(info.size);
        let mut attempts = 0;
        let mut pause = FIRST_PAUSE;
        loop {
            let resumed_at = partial.received;
            progress.set_position(resumed_at);
            let result = partial.receive(client, repo, file, info, progress);
            let done = match result {
                Ok(()) => partial.verify(file, &info.checksum),
                Err(err) => Err(err),
            };
            match done {
                Ok(()) => break,
                // What an earlier run left may be spoiled: begin again once, from the first byte.
                Err(HubError::Checksum { .. }) if resumed_at > 0 => partial.restart(info)?,
                Err(err @ HubError::Checksum { .. }) => {
                    fs::remove_file(&path).map_err(HubError::io(&path, "cannot remove"))?;
                    return Err(err);
                }
                Err(err @ (HubError::Network { .. } | HubError::Status { status: 429 | 500.., .. })) => {
                    attempts =
                        if partial.received >= resumed_at + WORTHWHILE_BYTES { 1 } else { attempts + 1 };
                    if attempts >= ATTEMPTS {
                        return Err(err);
                    }
                    thread::sleep(pause);
                    pause *= 2;
                }
                Err(err) => return Err(err),
            }
        }
        partial.file.sync_all().map_err(HubError::io(&path, "cannot write"))?;
        fs::rename(&path, &blob).map_err(HubError::io(&blob, "cannot name the downloaded file"))
    }
}

fn is_offline() -> bool {
    let value = env::var("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_lowercase();
    matches!(value.as_str(), "1" | "on" | "yes" | "true")
}

fn is_intact(blob: &Path, info: &FileInfo, verify: bool) -> Result<bool, HubError> {
    let Ok(metadata) = fs::metadata(blob) else {
        return Ok(false);
    };
    if metadata.len() != info.size {
        return Ok(false);
    }
    if !verify {
        return Ok(true);
    }
    let mut file = File::open(blob).map_err(HubError::io(blob, "cannot open"))?;
    let mut hasher = info.checksum.hasher(info.size);
    hash_all(&mut file, &mut hasher).map_err(HubError::io(blob, "cannot read"))?;
    Ok(hasher.finish() == info.checksum.hex())
}

fn hash_all(file: &mut File, hasher: &mut Hasher) -> std::io::Result<u64> {
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(total),
            n => {
                hasher.update(&buffer[..n]);
                total += n as u64;
            }
        }
    }
}

/// The received part of a file, locked against other processes as long as it is open.
struct Partial {
    path: PathBuf,
    file: File,
    received: u64,
    hasher: Hasher,
}

impl Partial {
    /// Opens what an earlier attempt left, or an empty file. Waits while another process works on it.
    fn open(path: &Path, info: &FileInfo) -> Result<Self, HubError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(HubError::io(path, "cannot open"))?;
        file.lock().map_err(HubError::io(path, "cannot lock"))?;
        let mut hasher = info.checksum.hasher(info.size);
        let received = hash_all(&mut file, &mut hasher).map_err(HubError::io(path, "cannot read"))?;
        let mut partial = Self { path: path.to_owned(), file, received, hasher };
        if received > info.size {
            partial.restart(info)?;
        }
        Ok(partial)
    }

    fn restart(&mut self, info: &FileInfo) -> Result<(), HubError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(HubError::io(&self.path, "cannot truncate"))?;
        self.received = 0;
        self.hasher = info.checksum.hasher(info.size);
        Ok(())
    }

    /// Receives what is missing. A server that sends more than it announced is refused, one that sends less is
    /// a broken connection.
    fn receive(
        &mut self,
        client: &Client,
        repo: &str,
        file: &str,
        info: &FileInfo,
        progress: &ProgressBar,
    ) -> Result<(), HubError> {
        if self.received == info.size {
            return Ok(());
        }
        let mut content = client.content(repo, &info.commit, file, self.received)?;
        if content.offset != self.received {
            self.restart(info)?;
            progress.set_position(0);
        }
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = content.reader.read(&mut buffer).map_err(|err| HubError::Network {
                url: format!("{repo}/{file}"),
                problem: format!("{err} (after {} of {} bytes)", self.received, info.size),
            })?;
            if n == 0 {
                break;
            }
            if n as u64 > info.size - self.received {
                let problem = format!("more than the announced {} bytes", info.size);
                return Err(HubError::Answer { url: format!("{repo}/{file}"), problem });
            }
            self.file.write_all(&buffer[..n]).map_err(HubError::io(&self.path, "cannot write"))?;
            self.hasher.update(&buffer[..n]);
            self.received += n as u64;
            progress.inc(n as u64);
        }
        if self.received < info.size {
            let problem = format!("the connection ended after {} of {} bytes", self.received, info.size);
            return Err(HubError::Network { url: format!("{repo}/{file}"), problem });
        }
        Ok(())
    }

    /// Compares the checksum of the whole file.
    fn verify(&mut self, file: &str, checksum: &Checksum) -> Result<(), HubError> {
        let hasher = std::mem::replace(&mut self.hasher, checksum.hasher(self.received));
        let actual = hasher.finish();
        if actual == checksum.hex() {
            return Ok(());
        }
        let expected = checksum.hex().to_owned();
        Err(HubError::Checksum { file: file.to_owned(), expected, actual, bytes: self.received })
    }
}
