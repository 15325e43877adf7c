//! What can go wrong between the hub and the cache.

use std::path::PathBuf;

use thiserror::Error;

/// A failed pull. Each variant names the repository, file or variable that it is about.
#[derive(Debug, Error)]
pub(crate) enum HubError {
    /// The text after `hf:` is not `owner/repo[@revision][/file]`.
    #[error("hf:{text}: {problem}")]
    Location { text: String, problem: &'static str },
    /// An environment variable holds something that cannot be used.
    #[error("{variable}: {problem}")]
    Environment { variable: &'static str, problem: String },
    /// The server could not be reached, or the connection broke too often.
    #[error("{url}: {problem}")]
    Network { url: String, problem: String },
    /// The server wants a token, or a better one.
    #[error("{url}: access refused ({status})")]
    Refused { url: String, status: u16, with_token: bool },
    /// No such repository, revision or file.
    #[error("{url}: not found{}", detail(.code))]
    NotFound { url: String, code: Option<String> },
    /// Any other answer that is not what was asked for.
    #[error("{url}: the server answered {status}")]
    Status { url: String, status: u16 },
    /// A header or a body is not what the hub sends.
    #[error("{url}: {problem}")]
    Answer { url: String, problem: String },
    /// The bytes are not those that the hub's checksum names.
    #[error("{file}: checksum mismatch: the hub says {expected}, the {bytes} bytes received give {actual}")]
    Checksum { file: String, expected: String, actual: String, bytes: u64 },
    /// A repository holds nothing that can be run, or more than one thing.
    #[error("{repo}: {problem}")]
    Choice { repo: String, problem: String, hint: Option<String> },
    /// `HF_HUB_OFFLINE` is set and the file is not in the cache.
    #[error("{what} is not in the cache {cache}, and HF_HUB_OFFLINE forbids the network")]
    Offline { what: String, cache: PathBuf },
    /// A file of the cache could not be read or written.
    #[error("{path}: {action}")]
    Io {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
}

fn detail(code: &Option<String>) -> String {
    code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default()
}

impl HubError {
    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Location { .. } => {
                Some("write hf:owner/repo, hf:owner/repo@revision or hf:owner/repo/file.gguf".to_owned())
            }
            Self::Refused { with_token: false, .. } => Some(
                "the repository is private, gated or does not exist; set HF_TOKEN to a token that may read it"
                    .to_owned(),
            ),
            Self::Refused { with_token: true, .. } => {
                Some("the token was sent: accept the model's terms on its page, or use another token".to_owned())
            }
            Self::Network { .. } => Some(
                "what was received is kept: run the same command again to resume (HF_ENDPOINT names a mirror)"
                    .to_owned(),
            ),
            Self::Checksum { .. } => {
                Some("the received bytes were deleted; try again, or try without the mirror".to_owned())
            }
            Self::Offline { .. } => Some("pull it once with the network, or unset HF_HUB_OFFLINE".to_owned()),
            Self::Choice { hint, .. } => hint.clone(),
            _ => None,
        }
    }

    /// Attaches the path and what was being done to it.
    pub(crate) fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, action, source }
    }
}
