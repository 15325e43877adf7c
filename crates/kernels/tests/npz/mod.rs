//! Arrays out of `.npz` files.
#![allow(clippy::unwrap_used, dead_code, reason = "helpers outside #[test] functions; no test uses all")]

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zip::ZipArchive;

/// An open `.npz` archive.
pub(crate) struct Npz(ZipArchive<File>);

impl Npz {
    /// The archive of that name in the shared data, if that is there.
    pub(crate) fn open(name: &str) -> Option<Self> {
        Some(Self::open_path(&crate::data::path(name)?))
    }

    pub(crate) fn open_path(path: &Path) -> Self {
        Self(ZipArchive::new(File::open(path).unwrap()).unwrap())
    }

    /// Names of the arrays.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.file_names().map(|name| name.unwrap().trim_end_matches(".npy").to_owned()).collect()
    }

    /// The rows of a two-dimensional f32 array.
    pub(crate) fn f32_rows(&mut self, name: &str) -> Vec<Vec<f32>> {
        let floats = |row: &Vec<u8>| row.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        self.byte_rows(name).iter().map(floats).collect()
    }

    /// A one-dimensional array of i32 or i64 that holds token ids.
    pub(crate) fn u32s(&mut self, name: &str) -> Vec<u32> {
        let rows = self.byte_rows(name);
        rows.iter().map(|id| u32::from_le_bytes(*id.first_chunk().unwrap())).collect()
    }

    /// The elements of an f32 or f64 array of any shape.
    pub(crate) fn f32s(&mut self, name: &str) -> Vec<f32> {
        let (header, data) = self.npy(name);
        match header.contains("'<f8'") {
            true => data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
            false => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        }
    }

    /// The elements' bytes of a two-dimensional array in C order, row by row, whatever their type.
    pub(crate) fn byte_rows(&mut self, name: &str) -> Vec<Vec<u8>> {
        let (header, data) = self.npy(name);
        let shape = header.split_once("'shape': (").unwrap().1;
        let rows: usize = shape.split(',').next().unwrap().parse().unwrap();
        data.chunks(data.len() / rows).map(<[u8]>::to_vec).collect()
    }

    /// An array's header (a Python dict) and data: numpy.lib.format, version 1: magic, version, u16 length, dict.
    fn npy(&mut self, name: &str) -> (String, Vec<u8>) {
        let mut npy = Vec::new();
        self.0.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut npy).unwrap();
        assert_eq!(&npy[..8], b"\x93NUMPY\x01\x00", "{name}");
        let (header, data) = npy[10..].split_at(usize::from(u16::from_le_bytes([npy[8], npy[9]])));
        (str::from_utf8(header).unwrap().to_owned(), data.to_vec())
    }
}
