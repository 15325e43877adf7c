//! T-MAC v2 (`.tmac2.bin`): ternary rows, each with an f16 scale, in a Llama and a BitNet variant.
//!
//! Each record begins with a flag: 1 for ternary rows (then rows and columns), 0 for f32. The header does not
//! name the variant; [`parse`] says how it is told. The byte tables are in `docs/src/formats/tmac-v2.md`.

use std::io::{self, Write};

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::detect::FileKind;
use crate::error::FormatError;
use crate::header::{Classifier, Header};
use crate::int4::flag;
use crate::layout::{Directory, Encoding, Spec, legacy_order};
use crate::reader::Reader;
use crate::tensor::TensorInfo;
use crate::trailer;
use crate::writer::TensorData;

/// First bytes of the file.
pub(crate) const MAGIC: [u8; 4] = *b"TM2\0";

/// Which tensors a file holds and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The tensors of llama2.c v0, the layers stacked into the rows.
    Llama,
    /// Layer by layer with `attn_sub_norm` and `ffn_sub_norm`, no RoPE tables, always with `wcls`.
    BitNet,
}

/// Reads a file and checks every ternary code.
///
/// A file with a positive vocab_size is of the Llama variant. With a negative one both are tried, record by
/// record with flags and dimensions, up to the end of the file: that decides, since the first f32 record has
/// n_layers * dim floats in one variant and dim in the other. A file that fits neither is reported as the
/// variant that explains more of it; one that would fit both is refused.
pub fn parse(bytes: &[u8]) -> Result<Checkpoint, FormatError> {
    let mut reader = Reader::new(bytes);
    if reader.array::<4>("magic")? != MAGIC {
        return Err(FormatError::field("magic", 0, "is not TM2"));
    }
    let header = Header::read(&mut reader, Classifier::Sign)?;
    let llama = attempt(bytes, &header, Variant::Llama);
    let (variant, attempt) = if header.shared_classifier {
        (Variant::Llama, llama)
    } else {
        let bitnet = attempt(bytes, &header, Variant::BitNet);
        match (&llama.result, &bitnet.result) {
            (Ok(_), Ok(_)) => {
                let problem = "the file fits the Llama and the BitNet variant".to_owned();
                return Err(FormatError::Unknown { problem });
            }
            (Ok(_), Err(_)) => (Variant::Llama, llama),
            (Err(_), Ok(_)) => (Variant::BitNet, bitnet),
            (Err(_), Err(_)) if llama.directory.end() >= bitnet.directory.end() => (Variant::Llama, llama),
            (Err(_), Err(_)) => (Variant::BitNet, bitnet),
        }
    };
    let trailer = attempt.result?;
    attempt.directory.check_codes()?;
    Ok(Checkpoint {
        bitnet: variant == Variant::BitNet,
        trailer,
        ..Checkpoint::new(FileKind::TmacV2, header, attempt.directory.into_tensors())
    })
}

/// How far a file goes as one variant, and its trailer or what stops it.
struct Attempt<'a> {
    directory: Directory<'a>,
    result: Result<Option<Value>, FormatError>,
}

fn attempt<'a>(bytes: &'a [u8], header: &Header, variant: Variant) -> Attempt<'a> {
    let mut directory = Directory::over(bytes);
    let result = layout(&mut directory, header, variant, &|_| false)
        .and_then(|()| trailer::parse(bytes, directory.end()));
    Attempt { directory, result }
}

/// Every tensor in file order, one a layer. `keep_f32` says by stem (`token_embedding`, `wq`, …) which
/// matrices are not quantized.
pub fn tensors(
    header: &Header,
    variant: Variant,
    keep_f32: &dyn Fn(&str) -> bool,
) -> Result<Vec<TensorInfo>, FormatError> {
    Ok(plan(header, variant, keep_f32)?.into_tensors())
}

/// Writes a file, with a trailer when there is metadata. `data` appends the encoded bytes of the tensor that
/// it is asked for, one after another in the order of [`tensors`].
pub fn write<E: From<io::Error> + From<FormatError>>(
    out: &mut dyn Write,
    header: &Header,
    variant: Variant,
    keep_f32: &dyn Fn(&str) -> bool,
    metadata: Option<&Value>,
    data: &mut TensorData<'_, E>,
) -> Result<(), E> {
    plan(header, variant, keep_f32)?.write(out, data)?;
    Ok(metadata.map_or(Ok(()), |metadata| trailer::write(out, metadata))?)
}

fn plan(
    header: &Header,
    variant: Variant,
    keep_f32: &dyn Fn(&str) -> bool,
) -> Result<Directory<'static>, FormatError> {
    header.check()?;
    if variant == Variant::BitNet && header.shared_classifier {
        let problem = "the BitNet variant always stores wcls: shared_classifier must be false";
        return Err(FormatError::field("vocab_size", 24, problem));
    }
    let mut directory = Directory::planned();
    layout(&mut directory, header, variant, keep_f32)?;
    Ok(directory)
}

fn layout(
    directory: &mut Directory<'_>,
    header: &Header,
    variant: Variant,
    keep_f32: &dyn Fn(&str) -> bool,
) -> Result<(), FormatError> {
    directory.mark("magic", &MAGIC)?;
    directory.mark("header", &header.to_bytes(Classifier::Sign))?;
    let mut record = |spec: &Spec| {
        let ternary = flag(directory, spec, keep_f32)?;
        directory.mark("flag", &[u8::from(ternary)])?;
        if !ternary {
            return directory.push(spec, Encoding::F32);
        }
        let int = |value: u64| {
            i32::try_from(value).map(i32::to_le_bytes).map_err(|_| {
                FormatError::tensor(
                    spec.stem,
                    directory.end(),
                    format!("{value} rows or columns do not fit an i32"),
                )
            })
        };
        let (rows, cols) = (int(spec.stacked_rows())?, int(spec.cols())?);
        directory.mark(&format!("rows of tensor {}", spec.stem), &rows)?;
        directory.mark(&format!("columns of tensor {}", spec.stem), &cols)?;
        directory.push(spec, Encoding::TernaryRows)
    };
    match variant {
        Variant::Llama => legacy_order(header).iter().try_for_each(record),
        Variant::BitNet => {
            let &Header { dim, vocab_size, .. } = header;
            record(&Spec::matrix("token_embedding", vocab_size, dim))?;
            for layer in 0..header.n_layers {
                for spec in bitnet_layer(header) {
                    record(&spec.in_layers(layer..layer + 1))?;
                }
            }
            record(&Spec::vector("rms_final", dim))?;
            record(&Spec::matrix("wcls", vocab_size, dim))
        }
    }
}

/// One layer of the BitNet variant: `rms_att` is its input_layernorm, `rms_ffn` its
/// post_attention_layernorm, w1 gate, w3 up and w2 down.
fn bitnet_layer(header: &Header) -> [Spec; 11] {
    let &Header { dim, hidden_dim, .. } = header;
    let kv_dim = header.kv_dim();
    [
        Spec::vector("rms_att", dim),
        Spec::matrix("wq", dim, dim),
        Spec::matrix("wk", kv_dim, dim),
        Spec::matrix("wv", kv_dim, dim),
        Spec::matrix("wo", dim, dim),
        Spec::vector("attn_sub_norm", dim),
        Spec::vector("rms_ffn", dim),
        Spec::matrix("w1", hidden_dim, dim),
        Spec::matrix("w3", hidden_dim, dim),
        Spec::matrix("w2", dim, hidden_dim),
        Spec::vector("ffn_sub_norm", hidden_dim),
    ]
}
