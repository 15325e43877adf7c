//! Files appear whole or not at all.

use std::fs;
use std::io::{self, Write};

use formats::llama2c::{self, Version};
use formats::writer::{AtomicFile, WriteError};
use formats::{FormatError, TensorInfo, tmac_v1};

use crate::sample::tiny;

fn names(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn commit_replaces_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.bin");
    fs::write(&target, "old").unwrap();
    let mut file = AtomicFile::create(&target).unwrap();
    file.write_all(b"new").unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"old");
    file.commit().unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["model.bin"]);
}

#[test]
fn dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.bin");
    let mut file = AtomicFile::create(&target).unwrap();
    file.write_all(&[0; 1 << 20]).unwrap();
    assert_eq!(names(folder.path()).len(), 1);
    drop(file);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_failing_source_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.bin");
    let mut asked = 0;
    let mut file = AtomicFile::create(&target).unwrap();
    let written = llama2c::write(&mut file, &tiny(true), Version::V0, &mut |info: &TensorInfo, out| {
        asked += 1;
        if asked == 3 {
            return Err(WriteError::Io(io::Error::other("the source is gone")));
        }
        out.resize(info.bytes as usize, 0);
        Ok(())
    });
    assert!(matches!(written, Err(WriteError::Io(_))));
    drop(file);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn errors_name_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("absent").join("model.bin");
    let error = AtomicFile::create(&target).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("model.bin"), "{error}");
    // A folder stands where the file should go: the rename fails, and the temporary file goes away.
    let target = folder.path().join("taken");
    fs::create_dir(&target).unwrap();
    let error = AtomicFile::create(&target).unwrap().commit().unwrap_err();
    assert!(error.to_string().contains("taken"), "{error}");
    assert_eq!(names(folder.path()), ["taken"]);
}

#[cfg(unix)]
#[test]
fn the_file_is_as_readable_as_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
    AtomicFile::create(&ours).unwrap().commit().unwrap();
    fs::write(&plain, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&ours), mode(&plain));
}

#[test]
fn wrong_bytes_from_the_source_are_refused() {
    let mut out = Vec::new();
    let short = |info: &TensorInfo, out: &mut Vec<u8>| -> Result<(), WriteError> {
        out.resize(info.bytes as usize - usize::from(info.name == "layers.1.wk"), 0);
        Ok(())
    };
    match llama2c::write(&mut out, &tiny(true), Version::V1, &mut { short }) {
        Err(WriteError::Format(FormatError::Tensor { tensor, .. })) => assert_eq!(tensor, "layers.1.wk"),
        other => panic!("{other:?}"),
    }
    let invalid = |info: &TensorInfo, out: &mut Vec<u8>| -> Result<(), WriteError> {
        out.resize(info.bytes as usize, if info.name == "w2" { 0b10 } else { 0 });
        Ok(())
    };
    match tmac_v1::write(&mut out, &tiny(true), None, &mut { invalid }) {
        Err(WriteError::Format(FormatError::Tensor { tensor, .. })) => assert_eq!(tensor, "w2"),
        other => panic!("{other:?}"),
    }
}
