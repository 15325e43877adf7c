//! Files and batches on the disk: for each a description in JSON, and beside it what it describes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::secret::Hash;
use crate::{ids, limits};

/// Folder with a part for each owner of keys.
const OWNERS: &str = "owners";

/// A file.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct FileObject {
    pub(crate) id: String,
    object: String,
    pub(crate) bytes: u64,
    pub(crate) created_at: u64,
    pub(crate) filename: String,
    pub(crate) purpose: String,
    status: String,
}

impl FileObject {
    pub(crate) fn new(filename: &str, purpose: &str, bytes: u64) -> Self {
        Self {
            id: ids::new("file-"),
            object: "file".to_owned(),
            bytes,
            created_at: ids::now(),
            filename: filename.to_owned(),
            purpose: purpose.to_owned(),
            status: "processed".to_owned(),
        }
    }
}

/// Something that is kept under a name of ours.
pub(crate) trait Kept: Serialize + DeserializeOwned {
    /// The folder of its kind.
    const FOLDER: &'static str;

    /// Its name and when it was made.
    fn key(&self) -> (&str, u64);
}

impl Kept for FileObject {
    const FOLDER: &'static str = "files";

    fn key(&self) -> (&str, u64) {
        (&self.id, self.created_at)
    }
}

/// The folder of a server.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        for folder in [FileObject::FOLDER, "batches"] {
            fs::create_dir_all(root.join(folder))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// The part of it that belongs to one owner of keys; nobody else sees what lies there.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn of_owner(&self, owner: &str) -> io::Result<Self> {
        // An owner's name may be anything; its hash is a name for a folder.
        let folder = self.root.join(OWNERS).join(&Hash::of(owner).to_hex()[..32]);
        let store = Self::open(&folder)?;
        let name = folder.join("owner");
        if !name.exists() {
            fs::write(name, owner)?;
        }
        Ok(store)
    }

    /// The parts of all owners.
    pub(crate) fn of_owners(&self) -> Vec<Self> {
        let folders = fs::read_dir(self.root.join(OWNERS)).into_iter().flatten().flatten();
        folders.map(|folder| Self { root: folder.path() }).collect()
    }

    /// Writes down on whose behalf something is done.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn put_subject<T: Kept>(&self, id: &str, subject: &str) -> io::Result<()> {
        fs::write(self.path::<T>(id, "subject")?, subject)
    }

    /// On whose behalf something is done, if it was written down.
    pub(crate) fn subject<T: Kept>(&self, id: &str) -> Option<String> {
        fs::read_to_string(self.path::<T>(id, "subject").ok()?).ok()
    }

    fn path<T: Kept>(&self, id: &str, extension: &str) -> io::Result<PathBuf> {
        // Names come from clients: only those that we could have given lead anywhere.
        let is_ours = !id.is_empty()
            && id.len() < 64
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !is_ours {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(self.root.join(T::FOLDER).join(id).with_extension(extension))
    }

    /// Where the content of a file lies.
    ///
    /// # Errors
    /// A name that is none.
    pub(crate) fn content(&self, id: &str) -> io::Result<PathBuf> {
        self.path::<FileObject>(id, "content")
    }

    /// Keeps a description: it is there whole or not at all.
    ///
    /// # Errors
    /// The system's; too many of its kind.
    pub(crate) fn put<T: Kept>(&self, value: &T) -> io::Result<()> {
        let path = self.path::<T>(value.key().0, "json")?;
        if !path.exists() && fs::read_dir(self.root.join(T::FOLDER))?.count() >= 2 * limits::FILES {
            return Err(io::Error::other("there are too many already: delete some"));
        }
        let part = path.with_extension("writing");
        let mut file = fs::File::create(&part)?;
        io::Write::write_all(&mut file, &serde_json::to_vec_pretty(value)?)?;
        file.sync_all()?;
        fs::rename(part, path)
    }

    /// The description of this name.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn get<T: Kept>(&self, id: &str) -> io::Result<T> {
        Ok(serde_json::from_slice(&fs::read(self.path::<T>(id, "json")?)?)?)
    }

    /// All of a kind, the newest first. One that cannot be read is left out.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn list<T: Kept>(&self) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join(T::FOLDER))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json")
                && let Ok(bytes) = fs::read(&path)
                && let Ok(value) = serde_json::from_slice::<T>(&bytes)
            {
                found.push(value);
            }
        }
        found.sort_by(|a, b| (b.key().1, b.key().0).cmp(&(a.key().1, a.key().0)));
        Ok(found)
    }

    /// Takes a file away.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn delete_file(&self, id: &str) -> io::Result<()> {
        fs::remove_file(self.path::<FileObject>(id, "json")?)?;
        fs::remove_file(self.content(id)?)
    }

    /// Where the results of a batch lie until it has ended.
    ///
    /// # Errors
    /// A name that is none.
    pub(crate) fn journal<T: Kept>(&self, id: &str) -> io::Result<PathBuf> {
        self.path::<T>(id, "journal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_there_and_no_name_leads_outside() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let file = FileObject::new("a.jsonl", "batch", 3);
        fs::write(store.content(&file.id).unwrap(), "abc").unwrap();
        store.put(&file).unwrap();
        assert_eq!(store.get::<FileObject>(&file.id).unwrap().filename, "a.jsonl");
        assert_eq!(store.list::<FileObject>().unwrap().len(), 1);
        for id in ["../files/a", "..", "a/b", "a.b", "", "\0", &"a".repeat(100)] {
            assert!(store.get::<FileObject>(id).is_err() && store.content(id).is_err(), "{id:?}");
        }
        store.delete_file(&file.id).unwrap();
        assert!(store.list::<FileObject>().unwrap().is_empty() && !store.content(&file.id).unwrap().exists());
    }
}
