//! Files as bytes: the one place of the engine that maps memory.
#![allow(unsafe_code, reason = "a memory map is unsafe to make; nothing else here is")]

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use memmap2::Mmap;

use crate::error::EngineError;

/// A model file that is compiled into the program.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn {
    /// What stands for its path; no file is looked for there.
    pub path: &'static str,
    /// The file, at an address that is a multiple of 64.
    pub bytes: &'static [u8],
}

static BUILT_IN: OnceLock<BuiltIn> = OnceLock::new();

impl BuiltIn {
    /// Makes it known to [`SourceFile::open`], and so to all that loads models by their paths. There can be one; the first
    /// stays.
    pub fn provide(self) {
        BUILT_IN.get_or_init(|| self);
    }
}

/// A file's bytes, mapped and shared by all the tensors that lie in it.
#[derive(Debug, Clone)]
pub struct SourceFile {
    path: Arc<PathBuf>,
    content: Content,
}

/// Where the bytes are.
#[derive(Debug, Clone)]
enum Content {
    Mapped(Arc<Mmap>),
    BuiltIn(&'static [u8]),
}

impl SourceFile {
    /// Maps the whole file read-only, or takes the one that is compiled in where `path` is what it goes by.
    ///
    /// # Errors
    /// What the system says of the path.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        if let Some(built_in) = BUILT_IN.get().filter(|built_in| Path::new(built_in.path) == path) {
            return Ok(Self { path: Arc::new(path.to_owned()), content: Content::BuiltIn(built_in.bytes) });
        }
        let error = |source| EngineError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(error)?;
        if file.metadata().map_err(error)?.is_dir() {
            return Err(error(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
        }
        // SAFETY: a map is sound while nobody changes the file under it. We open it read-only, keep no
        // reference beyond the map's life, and document that model files must not be written while they are
        // in use (writers of ours replace files by renaming, which leaves an old map intact).
        let map = unsafe { Mmap::map(&file) }.map_err(error)?;
        Ok(Self { path: Arc::new(path.to_owned()), content: Content::Mapped(Arc::new(map)) })
    }

    /// Where the bytes come from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(map) => map,
            Content::BuiltIn(bytes) => bytes,
        }
    }

    /// All bytes, to be kept.
    pub(crate) fn whole(&self) -> Bytes {
        Bytes::Mapped(self.clone(), 0..self.bytes().len())
    }
}

/// Bytes of a weight or a tokenizer: a part of a mapped file, or our own.
#[derive(Debug, Clone)]
pub(crate) enum Bytes {
    /// As the file has them.
    Mapped(SourceFile, Range<usize>),
    /// Repacked when the file was loaded.
    Owned(Vec<u8>),
}

impl Bytes {
    /// Says that a part of these bytes is not needed for now: the system may take back the memory that holds it.
    pub(crate) fn release(&self, part: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(file, range) = self
            && let Content::Mapped(map) = &file.content
        {
            let end = range.end.min(range.start.saturating_add(part.end));
            let start = range.start.saturating_add(part.start);
            // Whole pages inside the range; what neighbours use stays.
            const PAGE: usize = 4096;
            let (start, end) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
            if start < end {
                // SAFETY: the map is read-only and backed by a file that nobody writes (see `open`), so dropped pages
                // come back with the same content when they are read again. A refusal costs memory and nothing else.
                let _ = unsafe {
                    map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
                };
            }
        }
    }

    /// The bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(file, range) => file.bytes().get(range.clone()).unwrap_or(&[]),
            Self::Owned(bytes) => bytes,
        }
    }
}
