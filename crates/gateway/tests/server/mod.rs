//! A server on a free port, and a client that sees every byte.
#![allow(dead_code, reason = "each test uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside #[test] functions")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use engine::LoadOptions;
use gateway::{Config, ModelSource, Origin, ServeError};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServeError>>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The data of all events.
    pub(crate) fn events(&self) -> Vec<String> {
        self.text().lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    }
}

/// A tiny model with a tokenizer, made for more positions than its file says.
fn tiny() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models/qwen2-tiny");
        // Test programs may run at the same time.
        let program = std::env::current_exe().unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(program.file_name().unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(from.join(file), folder.join(file)).unwrap();
        }
        let config = std::fs::read_to_string(from.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["max_position_embeddings"] = 2048.into();
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        folder
    };
    FOLDER.get_or_init(make).clone()
}

/// ChatML without tools.
const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
     {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The tiny model under the name `tiny`.
pub(crate) fn tiny_source() -> ModelSource {
    let chat_template = Some(TEMPLATE.to_owned());
    let options = LoadOptions { threads: Some(2), chat_template, ..LoadOptions::default() };
    ModelSource { name: "tiny".to_owned(), origin: Origin::Path(tiny(), Box::new(options)) }
}

/// Random weights with a context that takes a while to fill.
pub(crate) fn slow_source() -> ModelSource {
    use engine::StoredType;
    use engine::synthetic::{Shape, Synthetic};
    let what = Synthetic { shape: Shape::Stories110m, layers: StoredType::Ternary, head: StoredType::Int4 };
    let options = LoadOptions { threads: Some(2), ..LoadOptions::default() };
    ModelSource { name: "slow".to_owned(), origin: Origin::Synthetic(what, Box::new(options)) }
}

pub(crate) fn null_source() -> ModelSource {
    ModelSource { name: "null".to_owned(), origin: Origin::Null }
}

impl Server {
    pub(crate) async fn start(config: Config) -> Self {
        let server = Self::start_loading(config).await;
        while server.get("/ready").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server
    }

    /// Does not wait for the model.
    pub(crate) async fn start_loading(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(gateway::run(listener, config, async move {
            stopped.await.ok();
        }));
        Self { address, stop: Some(stop), task }
    }

    pub(crate) async fn tiny() -> Self {
        Self::start(Config { models: vec![tiny_source()], ..Config::default() }).await
    }

    /// Gives the signal to stop.
    pub(crate) fn signal(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits for the end.
    pub(crate) async fn ended(self) -> Result<(), ServeError> {
        self.task.await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"), b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, body.to_string().as_bytes()).await
    }

    pub(crate) async fn post_bytes(&self, path: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n"
        );
        self.send(&head, body).await
    }

    /// Begins a request and does not wait for its answer.
    pub(crate) async fn begin(&self, path: &str, body: &Value) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let body = body.to_string();
        let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        stream
    }

    pub(crate) async fn send(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses early may have closed already.
        let _ = stream.write_all(body).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        answer(&bytes)
    }

    /// The value of a metric of the only model.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        let line = text.lines().find(|line| line.starts_with(&format!("edgellm_{name}{{")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }
}

/// Head and body, chunks joined.
pub(crate) fn answer(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let rest = bytes.get(end + 4..).unwrap_or_default();
    let body = if head.contains("transfer-encoding: chunked") { joined(rest) } else { rest.to_vec() };
    Answer { status, head, body }
}

fn joined(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 2 + length + 2..];
    }
    body
}
