//! Hugging Face directories: `config.json`, safetensors in one file or several, a tokenizer beside them.

use std::collections::HashMap;
use std::path::Path;

use formats::hf::{HfConfig, QuantizationConfig, ShardIndex, generation_eos_ids};
use formats::{FormatError, safetensors_file};

use super::directory::Directory;
use super::names::Naming;
use super::{BitLinear, Opened, TokenizerSource};
use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::source::SourceFile;

/// Opens a directory.
pub(super) fn open(directory: &Path) -> Result<Opened, EngineError> {
    let config_path = directory.join("config.json");
    let config = read(&config_path, HfConfig::parse)?;
    let mut tensors = Directory::new(Naming::HuggingFace);
    let index_path = directory.join("model.safetensors.index.json");
    if index_path.is_file() {
        add_shards(directory, &read(&index_path, ShardIndex::parse)?, &mut tensors)?;
    } else {
        let file = SourceFile::open(&directory.join("model.safetensors"))?;
        let infos = safetensors_file::parse(file.bytes()).map_err(|e| format_error(file.path(), e))?;
        tensors.add(file, infos);
    }
    let generation_path = directory.join("generation_config.json");
    let mut eos = config.eos_token_id.clone();
    if generation_path.is_file() {
        eos.extend(read(&generation_path, generation_eos_ids)?);
    }
    Ok(Opened {
        format: "safetensors".to_owned(),
        config: ModelConfig::from_hf(&config_path, &config)?,
        directory: tensors,
        bit_linear: bit_linear(&config_path, config.quantization_config.as_ref())?,
        tied: config.tie_word_embeddings,
        eos,
        tokenizer: TokenizerSource::of_directory(directory)?,
        chat_template: chat_template(directory)?,
        scales: HashMap::new(),
    })
}

fn format_error(path: &Path, source: FormatError) -> EngineError {
    EngineError::Format { path: path.to_owned(), source }
}

fn read<T>(path: &Path, parse: fn(&[u8]) -> Result<T, FormatError>) -> Result<T, EngineError> {
    parse(SourceFile::open(path)?.bytes()).map_err(|e| format_error(path, e))
}

/// Every tensor from the file that the index names for it.
fn add_shards(directory: &Path, index: &ShardIndex, tensors: &mut Directory) -> Result<(), EngineError> {
    for name in index.files() {
        let file = SourceFile::open(&directory.join(name))?;
        let mut infos = safetensors_file::parse(file.bytes()).map_err(|e| format_error(file.path(), e))?;
        infos.retain(|info| index.weight_map.get(&info.name).is_some_and(|shard| shard == name));
        tensors.add(file, infos);
    }
    match index.weight_map.keys().find(|tensor| tensors.find(tensor).is_none()) {
        Some(tensor) => {
            Err(format_error(tensors.path(), FormatError::MissingTensor { tensor: tensor.clone() }))
        }
        None => Ok(()),
    }
}

fn bit_linear(path: &Path, config: Option<&QuantizationConfig>) -> Result<BitLinear, EngineError> {
    let Some(config) = config else { return Ok(BitLinear::Plain) };
    let wrong = |field: &str, problem: String| EngineError::Config {
        path: path.to_owned(),
        field: format!("quantization_config.{field}"),
        problem,
    };
    if config.quant_method != "bitnet" {
        return Err(wrong(
            "quant_method",
            format!(
                "{:?} is not supported; known is bitnet (and GGUF files of other models)",
                config.quant_method
            ),
        ));
    }
    // transformers' defaults: class bitlinear, mode offline.
    match (config.quantization_mode.as_deref().unwrap_or("offline"), config.linear_class.as_deref()) {
        ("online", _) => Ok(BitLinear::Online),
        ("offline", Some("autobitlinear")) => Ok(BitLinear::Packed { divides: false }),
        ("offline", None | Some("bitlinear")) => Ok(BitLinear::Packed { divides: true }),
        ("offline", Some(class)) => Err(wrong("linear_class", format!("{class:?} is not supported"))),
        (mode, _) => Err(wrong("quantization_mode", format!("{mode:?} is not supported"))),
    }
}

/// `chat_template.jinja`, or the one in `tokenizer_config.json`.
fn chat_template(directory: &Path) -> Result<Option<String>, EngineError> {
    let path = directory.join("chat_template.jinja");
    if path.is_file() {
        let file = SourceFile::open(&path)?;
        return Ok(Some(String::from_utf8_lossy(file.bytes()).into_owned()));
    }
    let path = directory.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let file = SourceFile::open(&path)?;
    let config: serde_json::Value = serde_json::from_slice(file.bytes()).map_err(|e| {
        format_error(
            &path,
            FormatError::Json { what: "tokenizer_config.json".to_owned(), problem: e.to_string() },
        )
    })?;
    let template = config.get("chat_template");
    // One template, or a list of named ones of which "default" is for plain chats.
    let named = |list: &Vec<serde_json::Value>| {
        let default = list.iter().find(|t| t.get("name").and_then(|n| n.as_str()) == Some("default"))?;
        default.get("template")?.as_str().map(str::to_owned)
    };
    Ok(template.and_then(|t| t.as_str().map(str::to_owned).or_else(|| t.as_array().and_then(named))))
}
