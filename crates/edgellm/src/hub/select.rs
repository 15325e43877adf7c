//! Which files of a repository a model needs.

use std::path::Path;

use formats::hf::ShardIndex;

use super::HubError;

/// Small files that stand beside safetensors.
const COMPANIONS: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
];

/// What a repository is pulled as.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// One GGUF file holds everything.
    File(String),
    /// A folder of safetensors with their configuration.
    Folder(Vec<String>),
}

/// Chooses from a repository's files: safetensors with a `config.json` at the top, else the only GGUF file.
pub(super) fn choose(repo: &str, files: &[String]) -> Result<Choice, HubError> {
    let at_top = |file: &&String| !file.contains('/');
    let is_weights = |file: &String| file.ends_with(".safetensors");
    let has_config = files.iter().any(|file| file == "config.json");
    if has_config && files.iter().filter(at_top).any(is_weights) {
        let needed = |file: &&String| is_weights(file) || COMPANIONS.contains(&file.as_str());
        return Ok(Choice::Folder(files.iter().filter(at_top).filter(needed).cloned().collect()));
    }
    let gguf: Vec<&String> = files.iter().filter(|file| file.ends_with(".gguf")).collect();
    let refuse = |problem: String, hint| HubError::Choice { repo: repo.to_owned(), problem, hint };
    match gguf.as_slice() {
        [] => Err(refuse("neither safetensors with a config.json nor a GGUF file".to_owned(), None)),
        [only] => Ok(Choice::File((*only).clone())),
        [first, ..] => {
            let list = gguf.iter().map(|file| file.as_str()).collect::<Vec<_>>().join(", ");
            let hint = Some(format!("name one of them, as in hf:{repo}/{first}"));
            Err(refuse(format!("{} GGUF files: {list}", gguf.len()), hint))
        }
    }
}

/// Whether a folder of the cache holds a whole model: the configuration, and every shard that the index names.
pub(super) fn is_whole(folder: &Path) -> bool {
    if !folder.join("config.json").exists() {
        return false;
    }
    match std::fs::read(folder.join("model.safetensors.index.json")) {
        Ok(index) => ShardIndex::parse(&index)
            .is_ok_and(|index| index.files().iter().all(|shard| folder.join(shard).exists())),
        Err(_) => folder.join("model.safetensors").exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn takes_safetensors_with_their_companions_and_leaves_the_rest() {
        let all = files(&[
            ".gitattributes",
            "README.md",
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "onnx/model.onnx",
            "original/consolidated.safetensors",
            "pytorch_model.bin",
            "tokenizer.json",
        ]);
        let chosen = choose("a/b", &all).unwrap();
        let expected = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
        ];
        assert_eq!(chosen, Choice::Folder(files(&expected)));
    }

    #[test]
    fn takes_the_only_gguf_file_and_asks_among_many() {
        assert_eq!(
            choose("a/b", &files(&["README.md", "x/q4.gguf"])).unwrap(),
            Choice::File("x/q4.gguf".to_owned())
        );
        let err = choose("a/b", &files(&["q4.gguf", "q8.gguf"])).unwrap_err();
        assert!(err.to_string().contains("2 GGUF files: q4.gguf, q8.gguf"), "{err}");
        assert_eq!(err.hint().as_deref(), Some("name one of them, as in hf:a/b/q4.gguf"));
        assert!(choose("a/b", &files(&["README.md"])).is_err());
        assert!(choose("a/b", &files(&["config.json", "pytorch_model.bin"])).is_err());
    }
}
