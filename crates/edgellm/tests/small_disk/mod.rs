//! A disk that is soon full.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own, in memory.
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Of `kib` KiB at `path`; `None`, and why is printed, where this may not be done.
    pub(crate) fn mount(path: &Path, kib: usize) -> Option<Self> {
        std::fs::create_dir(path).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]).arg(path);
        match command.output() {
            Ok(done) if done.status.success() => Some(Self { path: path.to_owned() }),
            Ok(done) => {
                println!("skipped: a small disk needs root: {}", String::from_utf8_lossy(&done.stderr));
                None
            }
            Err(e) => {
                println!("skipped: a small disk needs mount: {e}");
                None
            }
        }
    }

    /// Makes it larger.
    pub(crate) fn grow(&self, kib: usize) {
        let mut command = Command::new("mount");
        let done = command.args(["-o", &format!("remount,size={kib}k")]).arg(&self.path).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nothing is left to do where it cannot be taken away.
        let _ = Command::new("umount").arg(&self.path).status();
    }
}
