//! A server that asks for keys, as a process.
#![allow(clippy::unwrap_used, dead_code, reason = "helpers of tests; no test uses all")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The command without anything of this machine's environment.
pub(crate) fn edgellm(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgellm"));
    command.env_clear().env("DATABASE_URL", folder.join("gateway.db")).env("HOME", folder);
    command
}

/// A server.
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) url: String,
    pub(crate) log: Arc<Mutex<String>>,
}

impl Server {
    /// With the null model.
    pub(crate) fn start(folder: &Path, env: &[(&str, &str)]) -> Self {
        Self::start_with(folder, &["--model", "null"], env)
    }

    pub(crate) fn start_with(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = edgellm(folder);
        command.args(["serve", "--port", "0"]).args(args).envs(env.iter().copied());
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap());
        let (mut line, log) = (String::new(), Arc::new(Mutex::new(String::new())));
        let url = loop {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "{}", log.lock().unwrap());
            log.lock().unwrap().push_str(&line);
            if let Some((_, url)) = line.split_once(" at ") {
                break url.trim().to_owned();
            }
        };
        let rest = log.clone();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = lines.read_to_string(&mut text);
            rest.lock().unwrap().push_str(&text);
        });
        let server = Self { process, url, log };
        let start = Instant::now();
        while server.ask("", "GET", "/ready", None).is_none_or(|(status, _)| status != 200) {
            assert!(start.elapsed() < Duration::from_secs(60), "{}", server.log.lock().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    pub(crate) fn ask(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Option<(u16, String)> {
        ask(&self.url, key, method, path, body)
    }

    /// SIGKILL.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

/// A test that fails leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Status and body; `None` when the connection broke.
pub(crate) fn ask(
    url: &str,
    key: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Option<(u16, String)> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)));
    let agent = ureq::Agent::new_with_config(config.build());
    let request = ureq::http::Request::builder().method(method).uri(format!("{url}{path}"));
    let request =
        request.header("authorization", format!("Bearer {key}")).header("content-type", "application/json");
    let answer = match body {
        Some(body) => agent.run(request.body(body.to_string()).unwrap()),
        None => agent.run(request.body(()).unwrap()),
    };
    let mut answer = answer.ok()?;
    Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
}

pub(crate) fn new_key(folder: &Path, args: &[&str]) -> String {
    let output = edgellm(folder).args(["keys", "create"]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn chat() -> Value {
    json!({ "messages": [{ "role": "user", "content": "a very private prompt" }], "max_tokens": 3 })
}
