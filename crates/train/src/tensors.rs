//! Tensors to and from safetensors files.

use std::io::Write;
use std::path::Path;

use engine::SourceFile;
use formats::writer::AtomicFile;
use formats::{FormatError, Layout, TensorType, safetensors_file};
use serde_json::{Map, json};

use crate::error::TrainError;
use crate::model::{Kind, Layout as ModelLayout};

/// A tensor to be written.
pub(crate) struct Tensor<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data<'a>,
}

/// Its elements.
pub(crate) enum Data<'a> {
    F32(&'a [f32]),
    U8(Vec<u8>),
    Scalar(f32),
}

impl Data<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(x) => 4 * x.len(),
            Self::U8(x) => x.len(),
            Self::Scalar(_) => 4,
        }
    }
}

impl ModelLayout {
    /// All parameters under their names.
    pub(crate) fn views<'a>(&self, parameters: &'a [f32]) -> Vec<Tensor<'a>> {
        let view = |tensor: &crate::model::Tensor| Tensor {
            name: tensor.name.clone(),
            shape: if tensor.kind == Kind::Norm { vec![tensor.cols] } else { vec![tensor.rows, tensor.cols] },
            data: Data::F32(&parameters[tensor.range.clone()]),
        };
        self.tensors.iter().map(view).collect()
    }
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, tensors: &[Tensor<'_>]) -> Result<(), TrainError> {
    let io = TrainError::io(path);
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for tensor in tensors {
        let dtype = match tensor.data {
            Data::F32(_) | Data::Scalar(_) => "F32",
            Data::U8(_) => "U8",
        };
        let end = offset + tensor.data.len();
        let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end] });
        header.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    // The data begins at a multiple of 8.
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut out = AtomicFile::create(path).map_err(&io)?;
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(&io)?;
    out.write_all(header.as_bytes()).map_err(&io)?;
    for tensor in tensors {
        match &tensor.data {
            Data::F32(x) => x.iter().try_for_each(|x| out.write_all(&x.to_le_bytes())),
            Data::U8(x) => out.write_all(x),
            Data::Scalar(x) => out.write_all(&x.to_le_bytes()),
        }
        .map_err(&io)?;
    }
    out.commit().map_err(&io)
}

/// A file of f32 tensors.
pub(crate) struct File {
    source: SourceFile,
    tensors: Vec<formats::TensorInfo>,
}

impl File {
    pub(crate) fn open(path: &Path) -> Result<Self, TrainError> {
        let source = SourceFile::open(path)?;
        let tensors = safetensors_file::parse(source.bytes())
            .map_err(|source| TrainError::Format { path: path.to_owned(), source })?;
        Ok(Self { source, tensors })
    }

    /// Copies a tensor of as many f32 values as `out` has.
    pub(crate) fn read(&self, name: &str, out: &mut [f32]) -> Result<(), TrainError> {
        let wrong = |source| TrainError::Format { path: self.source.path().to_owned(), source };
        let info = self.tensors.iter().find(|t| t.name == name);
        let info = info.ok_or_else(|| wrong(FormatError::MissingTensor { tensor: name.to_owned() }))?;
        let start = usize::try_from(info.offset).unwrap_or(usize::MAX);
        let bytes = self.source.bytes().get(start..).unwrap_or(&[]);
        let bytes = bytes.get(..usize::try_from(info.bytes).unwrap_or(usize::MAX)).unwrap_or(&[]);
        let values = bytes.as_chunks::<4>().0;
        if info.layout != Layout::Rows(TensorType::F32) || values.len() != out.len() {
            let problem = format!("not {} values of f32", out.len());
            return Err(wrong(FormatError::tensor(name, info.offset, problem)));
        }
        out.iter_mut().zip(values).for_each(|(out, &x)| *out = f32::from_le_bytes(x));
        Ok(())
    }
}
