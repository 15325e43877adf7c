//! A hub on this machine: the paths and headers of the real one, and the accidents that downloads meet.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// The commit that every file of the server belongs to.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as the server saw it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) token: Option<String>,
}

/// What the server does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behaviour {
    /// `owner/name` of the only repository.
    pub(crate) repo: String,
    /// Path -> bytes.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Close the connection after this many bytes of a body, this many times.
    pub(crate) cut: Option<(usize, usize)>,
    /// Flip a bit of byte N of each body, this many times.
    pub(crate) spoil: Option<(usize, usize)>,
    /// Answer `Range` requests with the whole file.
    pub(crate) no_ranges: bool,
    /// Refuse requests without this token.
    pub(crate) token: Option<String>,
    /// Send files from another host, as the hub does with large ones.
    pub(crate) storage: bool,
    /// Send more bytes than announced.
    pub(crate) too_long: bool,
    /// Answer this status to requests for bytes, this many times.
    pub(crate) status: Option<(u16, usize)>,
    /// Another ETag than the right one.
    pub(crate) etag: Option<String>,
    /// Another commit than the right one, as the hub's description gives it.
    pub(crate) commit: Option<String>,
}

/// The server; it ends when dropped.
pub(crate) struct HubServer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    behaviour: Arc<Mutex<Behaviour>>,
    thread: Option<JoinHandle<()>>,
}

impl HubServer {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let behaviour = Arc::new(Mutex::new(behaviour));
        let thread = thread::spawn({
            let (seen, behaviour) = (Arc::clone(&seen), Arc::clone(&behaviour));
            move || {
                for stream in listener.incoming() {
                    let stream = stream.unwrap();
                    if !serve(stream, &seen, &behaviour, address) {
                        break;
                    }
                }
            }
        });
        Self { address, seen, behaviour, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Requests for bytes so far, with their `Range`.
    pub(crate) fn ranges(&self) -> Vec<Option<String>> {
        self.seen().into_iter().filter(is_bytes).map(|seen| seen.range).collect()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }
}

fn is_bytes(seen: &Seen) -> bool {
    seen.method == "GET" && (seen.path.contains("/resolve/") || seen.path.starts_with("/storage/"))
}

impl Drop for HubServer {
    fn drop(&mut self) {
        if let Ok(mut stream) = TcpStream::connect(self.address) {
            let _ = stream.write_all(b"QUIT / HTTP/1.1\r\n\r\n");
        }
        let _ = self.thread.take().unwrap().join();
    }
}

/// Answers one request; false ends the server. A client that goes away in the middle is not our concern.
fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Seen>>,
    behaviour: &Mutex<Behaviour>,
    address: SocketAddr,
) -> bool {
    let Some(request) = read_request(&stream) else {
        return true;
    };
    if request.method == "QUIT" {
        return false;
    }
    seen.lock().unwrap().push(request.clone());
    let mut behaviour = behaviour.lock().unwrap();
    let _ = answer(&mut stream, &request, &mut behaviour, address);
    true
}

fn read_request(stream: &TcpStream) -> Option<Seen> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let mut seen =
        Seen { method: words.next()?.to_owned(), path: words.next()?.to_owned(), range: None, token: None };
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => seen.range = Some(value.to_owned()),
            "authorization" => seen.token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    Some(seen)
}

fn answer(
    stream: &mut TcpStream,
    request: &Seen,
    behaviour: &mut Behaviour,
    address: SocketAddr,
) -> std::io::Result<()> {
    let repo = behaviour.repo.clone();
    if let Some(path) = request.path.strip_prefix("/storage/") {
        return send_bytes(stream, request, path, behaviour, "");
    }
    if behaviour.token.is_some() && behaviour.token != request.token {
        return send(stream, "401 Unauthorized", "x-error-code: GatedRepo\r\n", b"");
    }
    let info = format!("/api/models/{repo}");
    if request.path == info || request.path == format!("{info}/revision/{COMMIT}") {
        let files: Vec<_> =
            behaviour.files.keys().map(|file| serde_json::json!({"rfilename": file})).collect();
        let sha = behaviour.commit.as_deref().unwrap_or(COMMIT);
        let body = serde_json::json!({"id": repo, "sha": sha, "siblings": files}).to_string();
        return send(stream, "200 OK", "content-type: application/json\r\n", body.as_bytes());
    }
    let file = ["main", COMMIT].iter().find_map(|revision| {
        request.path.strip_prefix(&format!("/{repo}/resolve/{revision}/")).map(str::to_owned)
    });
    let Some(file) = file.filter(|file| behaviour.files.contains_key(file)) else {
        let code = if request.path.contains(&repo) { "EntryNotFound" } else { "RepoNotFound" };
        return send(stream, "404 Not Found", &format!("x-error-code: {code}\r\n"), b"");
    };
    let bytes = &behaviour.files[&file];
    let etag = behaviour.etag.clone().unwrap_or_else(|| etag(&file, bytes));
    let about = format!("x-repo-commit: {COMMIT}\r\n");
    if behaviour.storage {
        let linked = format!(
            "{about}x-linked-etag: \"{etag}\"\r\nx-linked-size: {}\r\nlocation: http://localhost:{}/storage/{file}\r\n",
            bytes.len(),
            address.port()
        );
        return send(stream, "302 Found", &linked, b"");
    }
    send_bytes(stream, request, &file, behaviour, &format!("{about}etag: \"{etag}\"\r\n"))
}

fn send_bytes(
    stream: &mut TcpStream,
    request: &Seen,
    file: &str,
    behaviour: &mut Behaviour,
    headers: &str,
) -> std::io::Result<()> {
    if request.method == "GET" && take(&mut behaviour.status.as_mut().map(|(_, times)| times)) {
        let status = behaviour.status.unwrap().0;
        return send(stream, &format!("{status} Accident"), "", b"");
    }
    let whole = &behaviour.files[file];
    let start = request
        .range
        .as_deref()
        .filter(|_| !behaviour.no_ranges)
        .map_or(0, |range| range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap());
    if start > 0 && start >= whole.len() {
        return send(stream, "416 Range Not Satisfiable", headers, b"");
    }
    let mut body = whole[start..].to_vec();
    let mut head = if start > 0 {
        let range = format!("content-range: bytes {start}-{}/{}\r\n", whole.len() - 1, whole.len());
        format!("HTTP/1.1 206 Partial Content\r\nconnection: close\r\n{headers}{range}")
    } else {
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{headers}")
    };
    if request.method == "HEAD" {
        head += &format!("content-length: {}\r\n\r\n", whole.len());
        return stream.write_all(head.as_bytes());
    }
    if behaviour.too_long {
        body.extend_from_slice(b"and more");
    }
    if take(&mut behaviour.spoil.as_mut().map(|(_, times)| times)) {
        body[behaviour.spoil.unwrap().0] ^= 0x10;
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    if take(&mut behaviour.cut.as_mut().map(|(_, times)| times)) {
        body.truncate(behaviour.cut.unwrap().0);
    }
    stream.write_all(&body)
}

/// Whether an accident still is to happen; counts it.
fn take(times: &mut Option<&mut usize>) -> bool {
    match times {
        Some(times) if **times > 0 => {
            **times -= 1;
            true
        }
        _ => false,
    }
}

fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// As the hub: sha256 of the weights, git's sha1 of everything else.
pub(crate) fn etag(file: &str, bytes: &[u8]) -> String {
    if file.ends_with(".gguf") || file.ends_with(".safetensors") {
        return hex(&Sha256::digest(bytes));
    }
    let mut sha1 = Sha1::new();
    sha1.update(format!("blob {}\0", bytes.len()));
    sha1.update(bytes);
    hex(&sha1.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
