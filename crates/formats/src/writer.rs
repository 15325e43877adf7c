//! Files that are whole or not there.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use thiserror::Error;

use crate::error::FormatError;
use crate::tensor::TensorInfo;

/// Gives a tensor's encoded bytes: they are appended to an empty buffer, as many as the directory says.
pub type TensorData<'a, E> = dyn FnMut(&TensorInfo, &mut Vec<u8>) -> Result<(), E> + 'a;

/// What can go wrong while a model is written: the ready-made error type for the `write` functions.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The plan or the tensors' bytes are wrong.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The file could not be written: no space, no permission.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file under construction. It is written beside its target under a temporary name and takes the target's
/// place on [`AtomicFile::commit`]; dropped before that it disappears and the target is as it was.
#[derive(Debug)]
pub struct AtomicFile {
    out: BufWriter<NamedTempFile>,
    target: PathBuf,
}

impl AtomicFile {
    /// Creates the temporary file in the directory of `target`.
    ///
    /// # Errors
    /// The directory does not exist or cannot be written; the message names the target.
    pub fn create(target: &Path) -> io::Result<Self> {
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".edgellm-").suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As for any new file; the umask takes away what it should. The default would be 0600.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(directory).map_err(|error| at(target, error))?;
        Ok(Self { out: BufWriter::with_capacity(1 << 16, file), target: target.to_owned() })
    }

    /// Flushes, syncs to disk and renames to the target, replacing what is there.
    ///
    /// # Errors
    /// Any of the three failed; the target is as it was and the temporary file is gone.
    pub fn commit(self) -> io::Result<()> {
        let Self { out, target } = self;
        let file = out.into_inner().map_err(|error| at(&target, error.into_error()))?;
        file.as_file().sync_all().map_err(|error| at(&target, error))?;
        file.persist(&target).map_err(|error| at(&target, error.error))?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| at(&self.target, error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(|error| at(&self.target, error))
    }
}

/// The same error with the target's name. The kind stays: `Interrupted` must be retried, not reported.
fn at(target: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write {}: {error}", target.display()))
}
