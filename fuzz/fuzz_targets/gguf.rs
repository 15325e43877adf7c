//! GGUF: tensors lie inside the file, every array can be walked to its end, and what the writer takes of it is read
//! again as the same. The writer is stricter than the reader: it makes only files that ggml reads.

#![no_main]

use formats::gguf::{Gguf, Metadata, TensorSpec, Value, write};
use formats::writer::WriteError;
use formats::{Layout, TensorInfo};

/// Padding beyond this would be most of the written file.
const MAX_ALIGNMENT: u64 = 4096;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::parse(bytes) else { return };
    edgellm_fuzz::check_ranges(bytes, &gguf.tensors);
    gguf.metadata.iter().for_each(|entry| walk(&entry.value));
    let Some(again) = rewrite(&gguf, bytes) else { return };
    let reread = Gguf::parse(&again).unwrap();
    assert_eq!(
        reread.tensors.iter().map(spec).collect::<Vec<_>>(),
        gguf.tensors.iter().map(spec).collect::<Vec<_>>()
    );
    assert_eq!(rewrite(&reread, &again).unwrap(), again);
});

/// The file as the writer makes it; `None` where it refuses.
fn rewrite(gguf: &Gguf<'_>, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut metadata = Metadata::default();
    let taken = gguf.metadata.iter().all(|entry| metadata.put(entry.key, entry.value).is_ok());
    if !taken || gguf.alignment > MAX_ALIGNMENT {
        return None;
    }
    let specs: Vec<_> = gguf.tensors.iter().map(spec).collect();
    let mut out = Vec::new();
    let mut data = |info: &TensorInfo, out: &mut Vec<u8>| -> Result<(), WriteError> {
        out.extend(&bytes[gguf.tensor(&info.name).unwrap().range(bytes.len() as u64)?]);
        Ok(())
    };
    write(&mut out, &metadata, &specs, &mut data).ok()?;
    Some(out)
}

fn walk(value: &Value<'_>) {
    if let Value::Array(array) = value {
        assert_eq!(array.values().map(|value| walk(&value)).count(), array.len());
    }
}

fn spec(tensor: &TensorInfo) -> TensorSpec {
    let Layout::Rows(ty) = tensor.layout else { panic!("{tensor:?}") };
    TensorSpec { name: tensor.name.clone(), shape: tensor.shape.clone(), ty }
}
