//! What is written is read back, and what was read is written again byte for byte.

use formats::gguf::{Gguf, Metadata, TensorSpec, Value, write};
use formats::writer::WriteError;
use formats::{Layout, TensorInfo, TensorType};
use proptest::prelude::*;

use crate::data;
use crate::raw;

/// Writes what `gguf` was read from `bytes`.
pub(crate) fn rewrite(gguf: &Gguf<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut metadata = Metadata::default();
    for entry in &gguf.metadata {
        metadata.put(entry.key, entry.value).unwrap();
    }
    let specs: Vec<_> = gguf.tensors.iter().map(spec).collect();
    let mut tensors = gguf.tensors.iter();
    let mut out = Vec::new();
    write(&mut out, &metadata, &specs, &mut |_, buffer| -> Result<(), WriteError> {
        buffer.extend(&bytes[tensors.next().unwrap().range(bytes.len() as u64)?]);
        Ok(())
    })
    .unwrap();
    out
}

fn spec(tensor: &TensorInfo) -> TensorSpec {
    let Layout::Rows(ty) = tensor.layout else { panic!("{tensor:?}") };
    TensorSpec { name: tensor.name.clone(), shape: tensor.shape.clone(), ty }
}

#[test]
fn a_file_made_by_hand() {
    let bytes = raw::gguf();
    let gguf = Gguf::parse(&bytes).unwrap();
    let again = rewrite(&gguf, &bytes);
    // Padding has no content of its own: zeros on one side, anything on the other.
    assert_eq!(again[..gguf.data_offset as usize], bytes[..gguf.data_offset as usize]);
    let reread = Gguf::parse(&again).unwrap();
    assert_eq!(reread, gguf);
    for tensor in &gguf.tensors {
        let range = tensor.range(bytes.len() as u64).unwrap();
        assert_eq!(again[range.clone()], bytes[range]);
    }
}

#[test]
fn real_files_byte_for_byte() {
    let vocabularies = ["falcon", "gpt-2", "llama-spm", "phi-3"]
        .map(|name| data::path(&format!("vocab/ggml-vocab-{name}.gguf")));
    for path in vocabularies.into_iter().chain([data::model("smollm2.gguf"), data::model("gemma3.gguf")]) {
        let Some(path) = path else { continue };
        let bytes = std::fs::read(&path).unwrap();
        let gguf = Gguf::parse(&bytes).unwrap();
        let again = rewrite(&gguf, &bytes);
        // The vocabularies of llama.cpp are padded behind the metadata, though no tensor follows.
        let len = if gguf.tensors.is_empty() { again.len() } else { bytes.len() };
        assert!(again.len() == len && again == bytes[..len], "{}", path.display());
    }
}

fn tensor_type() -> impl Strategy<Value = TensorType> {
    use TensorType as T;
    prop::sample::select(vec![
        T::F32,
        T::F16,
        T::BF16,
        T::Q4_0,
        T::Q8_0,
        T::Q6_K,
        T::TQ1_0,
        T::TQ2_0,
        T::I2_S,
        T::MXFP4,
        T::I64,
    ])
}

/// `(type, blocks in a row, outer dimensions)`.
fn tensor() -> impl Strategy<Value = (TensorType, u64, Vec<u64>)> {
    (tensor_type(), 1u64..4, prop::collection::vec(1u64..5, 0..3))
}

proptest! {
    #[test]
    fn anything(
        strings in prop::collection::vec(".{0,8}", 0..20),
        floats in prop::collection::vec(any::<f32>(), 0..20),
        ints in prop::collection::vec(any::<i32>(), 0..20),
        scalars in (any::<u8>(), any::<i16>(), any::<u64>(), any::<f64>(), any::<bool>(), ".{0,20}"),
        tensors in prop::collection::vec(tensor(), 0..8),
        alignment in 0u32..9,
        seed in any::<u64>(),
    ) {
        let mut metadata = Metadata::default();
        metadata.put("general.alignment", Value::U32(1 << alignment)).unwrap();
        metadata.put_strings("strings", &strings).unwrap();
        metadata.put_f32s("floats", &floats).unwrap();
        metadata.put_i32s("ints", &ints).unwrap();
        let (u8_, i16_, u64_, f64_, bool_, text) = &scalars;
        let values = [
            ("u8", Value::U8(*u8_)), ("i16", Value::I16(*i16_)), ("u64", Value::U64(*u64_)),
            ("f64", Value::F64(*f64_)), ("bool", Value::Bool(*bool_)), ("text", Value::String(text)),
        ];
        for (key, value) in values {
            metadata.put(key, value).unwrap();
        }
        let specs: Vec<TensorSpec> = tensors.iter().enumerate().map(|(i, (ty, blocks, outer))| {
            let shape = outer.iter().copied().chain([blocks * ty.block().0]).collect();
            TensorSpec { name: format!("tensor.{i}"), shape, ty: *ty }
        }).collect();
        let mut random = raw::Random(seed);
        let mut given = Vec::new();
        let mut out = Vec::new();
        write(&mut out, &metadata, &specs, &mut |info, buffer| -> Result<(), WriteError> {
            buffer.extend((0..info.bytes).map(|_| random.below(256) as u8));
            given.push((info.clone(), buffer.clone()));
            Ok(())
        }).unwrap();

        let gguf = Gguf::parse(&out).unwrap();
        prop_assert_eq!((gguf.version, gguf.alignment), (3, 1 << alignment));
        prop_assert_eq!(gguf.array("strings").unwrap().unwrap().strings().unwrap().collect::<Vec<_>>(), strings);
        let bits = |v: f32| v.to_bits();
        prop_assert_eq!(
            gguf.array("floats").unwrap().unwrap().f32s().unwrap().map(bits).collect::<Vec<_>>(),
            floats.into_iter().map(bits).collect::<Vec<_>>()
        );
        prop_assert_eq!(gguf.array("ints").unwrap().unwrap().i32s().unwrap().collect::<Vec<_>>(), ints);
        for (key, value) in values {
            prop_assert!(gguf.get(key) == Some(&value) || matches!(value, Value::F64(v) if v.is_nan()));
        }
        prop_assert_eq!(gguf.tensors.len(), given.len());
        for (tensor, (info, bytes)) in gguf.tensors.iter().zip(&given) {
            prop_assert_eq!(tensor, info);
            prop_assert_eq!(&out[tensor.range(out.len() as u64).unwrap()], bytes);
            prop_assert_eq!(tensor.offset % gguf.alignment, gguf.data_offset % gguf.alignment);
        }
        prop_assert_eq!(rewrite(&gguf, &out), out);
    }
}
