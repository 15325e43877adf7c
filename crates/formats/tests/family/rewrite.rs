//! How a checkpoint is written again with its format's own writer. The fuzz targets use it too.

use formats::checkpoint::Checkpoint;
use formats::detect::FileKind;
use formats::llama2c::{self, Version};
use formats::tmac_v2::{self, Variant};
use formats::writer::WriteError;
use formats::{Layout, TensorInfo, TensorType, int4, tmac_v1};

/// Writes what `checkpoint` was read from `bytes` with the writer of its format, tensor by tensor.
pub(crate) fn rewrite(checkpoint: &Checkpoint, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let header = &checkpoint.header;
    let metadata = checkpoint.trailer.as_ref();
    let float = |stem: &str| {
        let found = checkpoint.tensors.iter().find(|tensor| tensor.name.rsplit('.').next() == Some(stem));
        found.is_some_and(|tensor| tensor.layout == Layout::Rows(TensorType::F32))
    };
    // Asked by offset: the writer's directory and the reader's must agree on every place.
    let mut data = |info: &TensorInfo, buffer: &mut Vec<u8>| -> Result<(), WriteError> {
        let tensor = checkpoint.tensors.iter().find(|tensor| tensor.offset == info.offset).unwrap();
        assert_eq!((tensor.layout, tensor.bytes), (info.layout, info.bytes), "{}", info.name);
        buffer.extend(&bytes[tensor.range(bytes.len() as u64)?]);
        Ok(())
    };
    let written = match checkpoint.kind {
        FileKind::Llama2cV0 => llama2c::write(&mut out, header, Version::V0, &mut data),
        FileKind::Llama2cV1 => llama2c::write(&mut out, header, Version::V1, &mut data),
        FileKind::Llama2cV2 => {
            let group = checkpoint.tensors.iter().find_map(|tensor| match tensor.layout {
                Layout::Int8Groups { group } => Some(group as u32),
                _ => None,
            });
            llama2c::write(&mut out, header, Version::V2 { group: group.unwrap() }, &mut data)
        }
        FileKind::TmacV1 => tmac_v1::write(&mut out, header, metadata, &mut data),
        FileKind::TmacV2 => {
            let variant = if checkpoint.bitnet { Variant::BitNet } else { Variant::Llama };
            tmac_v2::write(&mut out, header, variant, &float, metadata, &mut data)
        }
        FileKind::Int4 => int4::write(&mut out, header, &float, metadata, &mut data),
        other => panic!("no writer for {other}"),
    };
    written.unwrap();
    out
}
