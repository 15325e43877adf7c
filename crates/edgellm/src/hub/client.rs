//! The hub's HTTP interface: what a repository holds, what a file is, the bytes of a file from an offset.

use std::env;
use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};

use super::cache::{hf_home, is_commit, path_variable};
use super::digest::Checksum;
use super::location::is_plain_path;
use super::{HubError, Location};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// Redirects that one request may take: the hub needs one for a renamed repository and one to its storage.
const MAX_REDIRECTS: usize = 5;
/// Longest description of a repository, in bytes.
const MAX_INFO_BYTES: u64 = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest silence of the server before the connection counts as broken.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to the hub or to a mirror of it.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// What a repository holds at one commit.
#[derive(Debug)]
pub(super) struct RepoInfo {
    /// The commit.
    pub(super) commit: String,
    /// Paths of all files.
    pub(super) files: Vec<String>,
}

/// What the hub says about a file before it sends it.
#[derive(Debug)]
pub(super) struct FileInfo {
    /// The commit that the revision stands for.
    pub(super) commit: String,
    /// Checksum of the whole file.
    pub(super) checksum: Checksum,
    /// Bytes of the whole file.
    pub(super) size: u64,
}

/// The bytes of a file, from `offset` on.
pub(super) struct Content {
    /// 0 when the server does not send parts of files, else the offset that was asked for.
    pub(super) offset: u64,
    /// The bytes.
    pub(super) reader: ureq::BodyReader<'static>,
}

impl Client {
    /// `HF_ENDPOINT`, and a token from `HF_TOKEN`, `HF_TOKEN_PATH` or the file that the hub's login command writes.
    pub(super) fn from_env() -> Result<Self, HubError> {
        let endpoint = match env::var("HF_ENDPOINT") {
            Ok(endpoint) if !endpoint.is_empty() => endpoint.trim_end_matches('/').to_owned(),
            _ => DEFAULT_ENDPOINT.to_owned(),
        };
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let problem = format!("'{endpoint}' does not begin with https:// or http://");
            return Err(HubError::Environment { variable: "HF_ENDPOINT", problem });
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .user_agent(concat!("edgellm/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { agent, endpoint, token: token_from_env()? })
    }

    /// The commit and the files of a repository.
    pub(super) fn repo_info(&self, location: &Location) -> Result<RepoInfo, HubError> {
        #[derive(Deserialize)]
        struct Info {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }

        let url = match location.revision.as_str() {
            "main" => format!("{}/api/models/{}", self.endpoint, location.repo),
            revision => format!("{}/api/models/{}/revision/{revision}", self.endpoint, location.repo),
        };
        let (_, response) = self.follow(Method::GET, &url, None)?;
        let response = self.check_status(&url, response)?;
        let answer = |problem: String| HubError::Answer { url: url.clone(), problem };
        let mut body = Vec::new();
        let reader = response.into_body().into_reader();
        reader.take(MAX_INFO_BYTES + 1).read_to_end(&mut body).map_err(|err| network(&url, &err))?;
        if body.len() as u64 > MAX_INFO_BYTES {
            return Err(answer(format!("the description is longer than {MAX_INFO_BYTES} bytes")));
        }
        let info: Info = serde_json::from_slice(&body)
            .map_err(|err| answer(format!("not the hub's description of a repository: {err}")))?;
        if !is_commit(&info.sha) {
            return Err(answer(format!("sha '{}' is not a commit", info.sha.escape_default())));
        }
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename);
        Ok(RepoInfo { commit: info.sha, files: files.filter(|file| is_plain_path(file)).collect() })
    }

    /// Commit, checksum and size of a file.
    pub(super) fn file_info(&self, repo: &str, revision: &str, file: &str) -> Result<FileInfo, HubError> {
        let url = self.file_url(repo, revision, file);
        let (headers, response) = self.follow(Method::HEAD, &url, None)?;
        self.check_status(&url, response)?;
        let header = |name: &str| {
            let answer =
                || HubError::Answer { url: url.clone(), problem: format!("no usable header {name}") };
            headers.get(name).and_then(|value| value.to_str().ok()).ok_or_else(answer)
        };
        let commit = header("x-repo-commit")?.to_owned();
        if !is_commit(&commit) {
            let problem = format!("x-repo-commit '{}' is not a commit", commit.escape_default());
            return Err(HubError::Answer { url, problem });
        }
        let etag = header("x-linked-etag").or_else(|_| header("etag"))?;
        let Some(checksum) = Checksum::from_etag(etag) else {
            let problem =
                format!("etag {} is no checksum, so the file cannot be verified", etag.escape_default());
            return Err(HubError::Answer { url, problem });
        };
        let size = header("x-linked-size").or_else(|_| header("content-length"))?;
        let Ok(size) = size.parse() else {
            let problem = format!("'{}' is not a size", size.escape_default());
            return Err(HubError::Answer { url, problem });
        };
        Ok(FileInfo { commit, checksum, size })
    }

    /// The bytes of a file from `offset` on, or all of them when the server cannot do that.
    pub(super) fn content(
        &self,
        repo: &str,
        revision: &str,
        file: &str,
        offset: u64,
    ) -> Result<Content, HubError> {
        let url = self.file_url(repo, revision, file);
        let (_, response) = self.follow(Method::GET, &url, Some(offset))?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && offset > 0 {
            return self.content(repo, revision, file, 0);
        }
        let response = self.check_status(&url, response)?;
        let offset = if response.status() == StatusCode::PARTIAL_CONTENT { offset } else { 0 };
        if offset > 0 && range_start(response.headers()) != Some(offset) {
            let problem = format!("content-range does not begin at byte {offset}");
            return Err(HubError::Answer { url, problem });
        }
        Ok(Content { offset, reader: response.into_body().into_reader() })
    }

    fn file_url(&self, repo: &str, revision: &str, file: &str) -> String {
        format!("{}/{repo}/resolve/{revision}/{file}", self.endpoint)
    }

    /// Sends a request and follows redirects. The token goes to the endpoint only, never to the storage that it
    /// redirects to. The headers are the union of those of all answers, the earliest of a name first: the hub
    /// puts a file's checksum and commit beside the redirect to its storage. A HEAD request ends there.
    fn follow(
        &self,
        method: Method,
        url: &str,
        offset: Option<u64>,
    ) -> Result<(HeaderMap, Response<ureq::Body>), HubError> {
        let mut headers = HeaderMap::new();
        let mut current = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let mut request =
                Request::builder().method(&method).uri(&current).header("accept-encoding", "identity");
            if let Some(offset) = offset.filter(|&offset| offset > 0) {
                request = request.header("range", format!("bytes={offset}-"));
            }
            if let Some(token) = self.token.as_ref().filter(|_| self.is_at_endpoint(&current)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let request = request.body(()).map_err(|err| network(&current, &err))?;
            let response = self.agent.run(request).map_err(|err| network(&current, &err))?;
            for (name, value) in response.headers() {
                if !headers.contains_key(name) {
                    headers.insert(name.clone(), value.clone());
                }
            }
            let known = ["x-repo-commit", "x-linked-etag", "x-linked-size"];
            let enough = method == Method::HEAD && known.iter().all(|name| headers.contains_key(*name));
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            match location {
                Some(location) if response.status().is_redirection() && !enough => {
                    current = absolute(&current, location).ok_or_else(|| HubError::Answer {
                        url: current.clone(),
                        problem: format!("cannot follow the redirect to '{}'", location.escape_default()),
                    })?;
                }
                _ => return Ok((headers, response)),
            }
        }
        Err(HubError::Answer { url: url.to_owned(), problem: format!("more than {MAX_REDIRECTS} redirects") })
    }

    fn is_at_endpoint(&self, url: &str) -> bool {
        url.strip_prefix(&self.endpoint).is_some_and(|rest| rest.starts_with('/'))
    }

    fn check_status(
        &self,
        url: &str,
        response: Response<ureq::Body>,
    ) -> Result<Response<ureq::Body>, HubError> {
        let status = response.status();
        let url = url.to_owned();
        match status.as_u16() {
            200..=399 => Ok(response),
            401 | 403 => {
                Err(HubError::Refused { url, status: status.as_u16(), with_token: self.token.is_some() })
            }
            404 => {
                let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
                Err(HubError::NotFound { url, code: code.map(|code| code.escape_default().to_string()) })
            }
            status => Err(HubError::Status { url, status }),
        }
    }
}

fn network(url: &str, err: &dyn std::fmt::Display) -> HubError {
    HubError::Network { url: url.to_owned(), problem: err.to_string() }
}

/// The first byte of `content-range: bytes FIRST-LAST/SIZE`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    headers.get("content-range")?.to_str().ok()?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// The target of a redirect: an absolute URL, or a path on the same server.
fn absolute(current: &str, location: &str) -> Option<String> {
    let target: Uri = location.parse().ok()?;
    match (target.scheme_str(), target.path_and_query()) {
        (Some("https"), _) => Some(location.to_owned()),
        // A secure connection is not given up for an open one.
        (Some("http"), _) => current.starts_with("http://").then(|| location.to_owned()),
        (None, Some(path)) if path.as_str().starts_with('/') => {
            let base: Uri = current.parse().ok()?;
            Some(format!("{}://{}{path}", base.scheme_str()?, base.authority()?))
        }
        _ => None,
    }
}

fn token_from_env() -> Result<Option<String>, HubError> {
    let (variable, token) = match env::var("HF_TOKEN") {
        Ok(token) if !token.trim().is_empty() => ("HF_TOKEN", token),
        _ => {
            let path = match path_variable("HF_TOKEN_PATH") {
                Some(path) => path,
                None => hf_home()?.join("token"),
            };
            ("HF_TOKEN_PATH", std::fs::read_to_string(path).unwrap_or_default())
        }
    };
    let token = token.trim();
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        let problem = "the token holds characters that no token has".to_owned();
        return Err(HubError::Environment { variable, problem });
    }
    Ok((!token.is_empty()).then(|| token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_on_the_server_or_name_another() {
        let at = "https://hub.example/a/b";
        assert_eq!(absolute(at, "/c/d?x=1").as_deref(), Some("https://hub.example/c/d?x=1"));
        assert_eq!(absolute(at, "https://cdn.example/z").as_deref(), Some("https://cdn.example/z"));
        for refused in ["http://cdn.example/z", "ftp://cdn.example/z", "file:///etc/passwd", "d", ""] {
            assert_eq!(absolute(at, refused), None, "{refused}");
        }
    }

    #[test]
    fn the_token_goes_to_the_endpoint_only() {
        let client = Client {
            agent: Agent::new_with_defaults(),
            endpoint: "https://hub.example".to_owned(),
            token: Some("t".to_owned()),
        };
        assert!(client.is_at_endpoint("https://hub.example/a/b"));
        for other in ["https://hub.example.evil.example/a", "https://cdn.example/a", "http://hub.example/a"] {
            assert!(!client.is_at_endpoint(other), "{other}");
        }
    }
}
