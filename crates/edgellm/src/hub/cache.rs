//! Where pulled files lie: the layout of Python's `huggingface_hub`.
//!
//! ```text
//! models--owner--name/blobs/CHECKSUM              the bytes of a file
//! models--owner--name/blobs/CHECKSUM.incomplete   a download that was cut
//! models--owner--name/snapshots/COMMIT/PATH       a link to its blob
//! models--owner--name/refs/REVISION               the commit that a branch or tag stands for
//! ```

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::digest::Checksum;
use super::{HubError, Location};

/// The cache folder.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `HF_HUB_CACHE`, else `HF_HOME/hub`, else `huggingface/hub` in the user's cache folder.
    pub(crate) fn from_env() -> Result<Self, HubError> {
        if let Some(root) = path_variable("HF_HUB_CACHE") {
            return Ok(Self { root });
        }
        Ok(Self { root: hf_home()?.join("hub") })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The whole file of this checksum.
    pub(crate) fn blob(&self, repo: &str, checksum: &Checksum) -> PathBuf {
        self.repo(repo).join("blobs").join(checksum.hex())
    }

    /// The part of it that has been received.
    pub(crate) fn partial(&self, repo: &str, checksum: &Checksum) -> PathBuf {
        self.repo(repo).join("blobs").join(format!("{}.incomplete", checksum.hex()))
    }

    /// The folder with the links of one commit.
    pub(crate) fn snapshot(&self, repo: &str, commit: &str) -> PathBuf {
        self.repo(repo).join("snapshots").join(commit)
    }

    /// The commit that a revision stood for when it was pulled.
    pub(crate) fn commit(&self, location: &Location) -> Option<String> {
        if is_commit(&location.revision) {
            return Some(location.revision.clone());
        }
        let commit = fs::read_to_string(self.reference(location)).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }

    /// Remembers the commit that a revision stands for.
    pub(crate) fn set_commit(&self, location: &Location, commit: &str) -> Result<(), HubError> {
        if location.revision == commit {
            return Ok(());
        }
        let path = self.reference(location);
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        create_parent(&path)?;
        fs::write(&temporary, commit)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(HubError::io(path, "cannot write the revision"))
    }

    /// Gives a blob its name in the snapshot. An existing name is replaced.
    pub(crate) fn link(
        &self,
        repo: &str,
        commit: &str,
        file: &str,
        checksum: &Checksum,
    ) -> Result<PathBuf, HubError> {
        let path = self.snapshot(repo, commit).join(file);
        create_parent(&path)?;
        let up = "../".repeat(2 + file.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{}", checksum.hex()));
        if fs::read_link(&path).is_ok_and(|old| old == target) {
            return Ok(path);
        }
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        make_link(&target, &self.blob(repo, checksum), &temporary)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(HubError::io(&path, "cannot link to the downloaded file"))?;
        Ok(path)
    }

    fn repo(&self, repo: &str) -> PathBuf {
        self.root.join(format!("models--{}", repo.replace('/', "--")))
    }

    fn reference(&self, location: &Location) -> PathBuf {
        self.repo(&location.repo).join("refs").join(&location.revision)
    }
}

/// Whether this is a git commit's full name.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Creates the folder that a file is to lie in.
pub(super) fn create_parent(path: &Path) -> Result<(), HubError> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(HubError::io(parent, "cannot create the folder")),
        None => Ok(()),
    }
}

/// `HF_HOME`, else `huggingface` in the user's cache folder.
pub(super) fn hf_home() -> Result<PathBuf, HubError> {
    path_variable("HF_HOME")
        .or_else(|| path_variable("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| env::home_dir().map(|home| home.join(".cache").join("huggingface")))
        .ok_or_else(|| HubError::Environment {
            variable: "HF_HOME",
            problem: "not set, and there is no home folder for the cache".to_owned(),
        })
}

/// The value of a variable that names a path; empty counts as not set.
pub(super) fn path_variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(unix)]
fn make_link(relative: &Path, _blob: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, link)
}

/// Symbolic links need a privilege on Windows; a hard link does not.
#[cfg(not(unix))]
fn make_link(_relative: &Path, blob: &Path, link: &Path) -> io::Result<()> {
    fs::hard_link(blob, link)
}
