//! `hf:owner/repo[@revision][/file]`.

use std::fmt;

use super::HubError;

/// A repository on the hub, a revision of it, and perhaps one of its files. Each part is made of plain names, so
/// that it can stand in a URL and in a path of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// `owner/name`.
    pub(crate) repo: String,
    /// Branch, tag or commit; `main` when not said.
    pub(crate) revision: String,
    /// Path in the repository.
    pub(crate) file: Option<String>,
}

impl Location {
    /// Parses what follows `hf:`.
    pub(crate) fn parse(text: &str) -> Result<Self, HubError> {
        let refuse = |problem| HubError::Location { text: text.to_owned(), problem };
        let mut parts = text.splitn(3, '/');
        let owner = parts.next().unwrap_or_default();
        let name = parts.next().ok_or_else(|| refuse("the repository's name is missing"))?;
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let file = parts.next();
        if !is_plain_name(owner) || !is_plain_name(name) {
            return Err(refuse("owner and repository are letters, digits, '-', '_' and '.'"));
        }
        if !is_plain_name(revision) {
            return Err(refuse("the revision is letters, digits, '-', '_' and '.'"));
        }
        if file.is_some_and(|file| !is_plain_path(file)) {
            return Err(refuse("the file is a plain path inside the repository"));
        }
        Ok(Self {
            repo: format!("{owner}/{name}"),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repo)?;
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        match &self.file {
            Some(file) => write!(f, "/{file}"),
            None => Ok(()),
        }
    }
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 96
        && !name.starts_with('.')
        && !name.contains("--")
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Whether a path from the user or the server stays inside the repository and needs no escaping.
pub(super) fn is_plain_path(path: &str) -> bool {
    path.len() <= 512
        && path.split('/').all(|part| {
            !part.is_empty()
                && part.bytes().any(|b| b != b'.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+=".contains(&b))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_repository_revision_and_file() {
        for (text, repo, revision, file) in [
            ("a/b", "a/b", "main", None),
            ("a-1/b.c_2@v1.0", "a-1/b.c_2", "v1.0", None),
            ("a/b/q4.gguf", "a/b", "main", Some("q4.gguf")),
            ("a/b@0123/sub/q4.gguf", "a/b", "0123", Some("sub/q4.gguf")),
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!(
                (location.repo.as_str(), location.revision.as_str(), location.file.as_deref()),
                (repo, revision, file)
            );
            assert_eq!(location.to_string(), format!("hf:{text}"));
        }
    }

    #[test]
    fn refuses_what_could_leave_the_cache() {
        for text in [
            "", "a", "a/", "/b", "../b", "a/..", "a/b/../c", "a/b//c", "a/b/c\\d", "a/b@", "a/b@../x",
            "a/b/%2e", "a/b?x=1", "a--b/c", "a/b/.",
        ] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }
}
