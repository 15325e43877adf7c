//! The RoPE tables that llama2.c v0 and what follows its order store and nobody reads. Kept, so that a file that
//! goes through another container comes back byte for byte.

use engine::ModelConfig;
use formats::checkpoint::Checkpoint;
use formats::detect::{FileKind, detect};
use formats::gguf::Gguf;

use super::Source;
use super::error::ConvertError;

/// Names of the cosines and sines in the llama2.c family.
pub(super) const NAMES: [&str; 2] = ["freq_cis_real", "freq_cis_imag"];
/// Keys of the same tables in our GGUF files.
pub(super) const KEYS: [&str; 2] = ["edgellm.llama2c.freq_cis_real", "edgellm.llama2c.freq_cis_imag"];

/// Cosines and sines, each `[seq_len, head_dim / 2]`: those of the input, else computed.
pub(super) fn of(source: &Source<'_>) -> Result<[Vec<f32>; 2], ConvertError> {
    let config = &source.model.config;
    let len = config.seq_len.checked_mul(config.head_dim / 2);
    match stored(source)? {
        Some(tables) if tables.iter().all(|table| Some(table.len()) == len) => Ok(tables),
        _ => Ok([computed(config, f64::cos), computed(config, f64::sin)]),
    }
}

/// The tables of the input, if it has them.
pub(super) fn stored(source: &Source<'_>) -> Result<Option<[Vec<f32>; 2]>, ConvertError> {
    let Some(bytes) = source.file.as_ref().map(|file| file.bytes()) else { return Ok(None) };
    match detect(bytes)? {
        FileKind::Gguf => {
            let gguf = Gguf::parse(bytes)?;
            let [Some(real), Some(imag)] = [gguf.array(KEYS[0])?, gguf.array(KEYS[1])?] else {
                return Ok(None);
            };
            Ok(Some([real.f32s()?.collect(), imag.f32s()?.collect()]))
        }
        FileKind::Safetensors | FileKind::Tokenizer => Ok(None),
        _ => {
            let checkpoint = Checkpoint::parse(bytes)?;
            let [Ok(real), Ok(imag)] = NAMES.map(|name| checkpoint.tensor(name)) else { return Ok(None) };
            let table = |info: &formats::TensorInfo| -> Result<Vec<f32>, ConvertError> {
                let (floats, _) = bytes[info.range(bytes.len() as u64)?].as_chunks::<4>();
                Ok(floats.iter().map(|b| f32::from_le_bytes(*b)).collect())
            };
            Ok(Some([table(real)?, table(imag)?]))
        }
    }
}

fn computed(config: &ModelConfig, function: fn(f64) -> f64) -> Vec<f32> {
    let frequencies = config.rope.inverse_frequencies(config.head_dim);
    let angles = (0..config.seq_len).flat_map(|pos| frequencies.iter().map(move |f| pos as f32 * f));
    angles.map(|angle| function(f64::from(angle)) as f32).collect()
}
