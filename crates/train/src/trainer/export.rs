//! The trained model as a folder that the engine, and Hugging Face's transformers, read.

use std::path::Path;

use serde_json::json;

use crate::data::write_text;
use crate::error::TrainError;
use crate::model::round_codes;
use crate::model::{Activation, Kind, Layout, Shape};
use crate::tensors::{Data, Tensor, write};

/// Writes `config.json` and `model.safetensors`: ternary linear layers packed, 2 bits a weight, with the mean magnitude as
/// scale (`quantization_mode: offline`, `autobitlinear`), all else in f32. `bos`: the token that begins and ends a text.
///
/// # Errors
/// Files that cannot be written; a ternary model whose rows are no multiple of 4.
pub fn export(
    folder: &Path,
    shape: &Shape,
    layout: &Layout,
    parameters: &[f32],
    bos: u32,
) -> Result<(), TrainError> {
    std::fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
    let mut tensors = Vec::new();
    for tensor in &layout.tensors {
        let values = &parameters[tensor.range.clone()];
        let shape_of = |rows: usize| match tensor.kind {
            Kind::Norm => vec![tensor.cols],
            _ => vec![rows, tensor.cols],
        };
        if !(shape.ternary && tensor.kind == Kind::Linear) {
            let data = Data::F32(values);
            tensors.push(Tensor { name: tensor.name.clone(), shape: shape_of(tensor.rows), data });
            continue;
        }
        if !tensor.rows.is_multiple_of(4) {
            let problem = format!("{} rows are no multiple of 4: they cannot be packed", tensor.rows);
            return Err(TrainError::input(tensor.name.clone(), problem));
        }
        let (codes, scale) = round_codes(values);
        // Rows of a byte lie a quarter of the matrix apart.
        let quarter = values.len() / 4;
        let packed = (0..quarter)
            .map(|at| (0..4).fold(0, |byte, i| byte | ((codes[i * quarter + at] + 1) as u8) << (2 * i)));
        let data = Data::U8(packed.collect());
        tensors.push(Tensor { name: tensor.name.clone(), shape: shape_of(tensor.rows / 4), data });
        let (name, data) = (format!("{}_scale", tensor.name), Data::Scalar(scale));
        tensors.push(Tensor { name, shape: vec![1], data });
    }
    write(&folder.join("model.safetensors"), &tensors)?;
    let (architecture, model_type) = match shape.ternary {
        true => ("BitNetForCausalLM", "bitnet"),
        false => ("LlamaForCausalLM", "llama"),
    };
    let activation = match shape.activation {
        Activation::Silu => "silu",
        Activation::Relu2 => "relu2",
    };
    let mut config = json!({
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_act": activation,
        "hidden_size": shape.dim,
        "intermediate_size": shape.hidden_dim,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.seq_len,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tied,
        "attention_bias": false,
        "bos_token_id": bos,
        "eos_token_id": bos,
        "dtype": "float32",
    });
    if shape.ternary {
        config["quantization_config"] = json!({
            "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline",
        });
    }
    write_text(&folder.join("config.json"), &config.to_string())
}
