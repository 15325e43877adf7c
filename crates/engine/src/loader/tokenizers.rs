//! Tokenizers: inside a model file, beside it, or named by the user.

use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use formats::FormatError;
use formats::checkpoint::Checkpoint;
use formats::detect::{FileKind, detect};
use formats::gguf::Gguf;
use formats::tokenizer_file;

use crate::error::EngineError;
use crate::model::LoadOptions;
use crate::source::{Bytes, SourceFile};
use crate::tokenizer::Tokenizer;

/// What kind of file a tokenizer is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerFormat {
    /// llama2.c's `tokenizer.bin`.
    Llama2c,
    /// GGUF metadata.
    Gguf,
    /// Hugging Face's `tokenizer.json`.
    HuggingFace,
}

/// The bytes of a tokenizer as they were found: to build it from, or to put it into another container.
#[derive(Debug, Clone)]
pub struct TokenizerSource {
    path: PathBuf,
    format: TokenizerFormat,
    bytes: Bytes,
    config: Option<Bytes>,
}

impl TokenizerSource {
    /// The tokenizer that [`crate::Model::load`] would take for the model at `path`, if there is one.
    pub fn find(path: &Path, options: &LoadOptions) -> Result<Option<Self>, EngineError> {
        if let Some(file) = &options.tokenizer {
            return Self::of_file(file).map(Some);
        }
        if path.is_dir() {
            return Self::of_directory(path);
        }
        let file = SourceFile::open(path)?;
        let format = |source| EngineError::Format { path: path.to_owned(), source };
        match detect(file.bytes()).map_err(format)? {
            FileKind::Gguf => Self::of_gguf(&file, &Gguf::parse(file.bytes()).map_err(format)?),
            FileKind::Safetensors => Self::of_directory(super::folder(path)),
            _ => Self::of_checkpoint(path, &Checkpoint::parse(file.bytes()).map_err(format)?),
        }
    }

    /// A `tokenizer.bin`, a `tokenizer.json` (with the `tokenizer_config.json` beside it), the directory of
    /// one, or the tokenizer of a GGUF file.
    pub(super) fn of_file(path: &Path) -> Result<Self, EngineError> {
        if path.is_dir() {
            return Self::of_directory(path)?.ok_or_else(|| EngineError::Io {
                path: path.join("tokenizer.json"),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        let file = SourceFile::open(path)?;
        if file.bytes().iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
            return Self::of_json(path);
        }
        let format = |source| EngineError::Format { path: path.to_owned(), source };
        match detect(file.bytes()).map_err(format)? {
            FileKind::Tokenizer => Ok(Self::whole(TokenizerFormat::Llama2c, &file)),
            FileKind::Gguf => Ok(Self::whole(TokenizerFormat::Gguf, &file)),
            other => {
                Err(EngineError::Request(format!("{}: a {other} file is not a tokenizer", path.display())))
            }
        }
    }

    /// The `tokenizer.json` of a directory, if there is one.
    pub(super) fn of_directory(directory: &Path) -> Result<Option<Self>, EngineError> {
        let path = directory.join("tokenizer.json");
        if path.is_file() { Self::of_json(&path).map(Some) } else { Ok(None) }
    }

    /// That of a GGUF model file.
    pub(super) fn of_gguf(file: &SourceFile, gguf: &Gguf<'_>) -> Result<Option<Self>, EngineError> {
        let kind = gguf.str("tokenizer.ggml.model");
        let kind = kind.map_err(|source| EngineError::Format { path: file.path().to_owned(), source })?;
        let has_tokenizer = !matches!(kind, None | Some("none" | "no_vocab"));
        Ok(has_tokenizer.then(|| Self::whole(TokenizerFormat::Gguf, file)))
    }

    /// That of a file of the llama2.c family: the one in its metadata trailer, or a `tokenizer.bin` or
    /// `tokenizer.json` beside it that has as many tokens as the model.
    pub(super) fn of_checkpoint(path: &Path, checkpoint: &Checkpoint) -> Result<Option<Self>, EngineError> {
        let text = |key: &str| checkpoint.trailer.as_ref()?.get(key)?.as_str();
        let owned = |text: &str| Bytes::Owned(text.as_bytes().to_vec());
        if let Some(json) = text("tokenizer_json") {
            return Ok(Some(Self {
                path: path.to_owned(),
                format: TokenizerFormat::HuggingFace,
                bytes: owned(json),
                config: text("tokenizer_config_json").map(owned),
            }));
        }
        if let Some(encoded) = text("tokenizer_gguf") {
            let bytes = BASE64_STANDARD.decode(encoded).map_err(|e| EngineError::Format {
                path: path.to_owned(),
                source: FormatError::Json {
                    what: "trailer: tokenizer_gguf".to_owned(),
                    problem: e.to_string(),
                },
            })?;
            let (format, bytes) = (TokenizerFormat::Gguf, Bytes::Owned(bytes));
            return Ok(Some(Self { path: path.to_owned(), format, bytes, config: None }));
        }
        for name in ["tokenizer.bin", "tokenizer.json"] {
            let beside = path.with_file_name(name);
            if beside.is_file()
                && let Ok(source) = Self::of_file(&beside)
                && source.build().is_ok_and(|t| t.vocab_size() == checkpoint.header.vocab_size)
            {
                return Ok(Some(source));
            }
        }
        Ok(None)
    }

    fn of_json(path: &Path) -> Result<Self, EngineError> {
        let config = path.with_file_name("tokenizer_config.json");
        let config = if config.is_file() { Some(SourceFile::open(&config)?.whole()) } else { None };
        Ok(Self { config, ..Self::whole(TokenizerFormat::HuggingFace, &SourceFile::open(path)?) })
    }

    fn whole(format: TokenizerFormat, file: &SourceFile) -> Self {
        Self { path: file.path().to_owned(), format, bytes: file.whole(), config: None }
    }

    /// What kind of file it is in.
    pub fn format(&self) -> TokenizerFormat {
        self.format
    }

    /// The bytes of that file.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The bytes of the `tokenizer_config.json` beside a `tokenizer.json`.
    pub fn config(&self) -> Option<&[u8]> {
        self.config.as_ref().map(Bytes::as_slice)
    }

    /// Builds the tokenizer.
    pub fn build(&self) -> Result<Tokenizer, EngineError> {
        let format = |source| EngineError::Format { path: self.path.clone(), source };
        let tokenizer = match self.format {
            TokenizerFormat::Llama2c => {
                Tokenizer::from_llama2c(&tokenizer_file::parse(self.bytes()).map_err(format)?)
            }
            TokenizerFormat::Gguf => Tokenizer::from_gguf(&Gguf::parse(self.bytes()).map_err(format)?),
            TokenizerFormat::HuggingFace => Tokenizer::from_hf(self.bytes(), self.config()),
        };
        tokenizer.map_err(|source| EngineError::Tokenizer { path: self.path.clone(), source })
    }
}
