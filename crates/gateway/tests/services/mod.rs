//! A real Redis and a real PostgreSQL of the test's own, where they are installed.
#![allow(dead_code, reason = "each test uses its own part")]
#![allow(clippy::print_stdout, reason = "says why a test skips")]
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a service may take to start.
const START: Duration = Duration::from_secs(30);

/// A port that nobody uses.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16) {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < START, "the service does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Redis in memory.
pub(crate) struct Redis {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl Redis {
    /// `None`, after saying so, where Redis is not installed.
    pub(crate) fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let Some(process) = Self::spawn(port, folder.path()) else {
            println!("skipped: redis-server is not installed");
            return None;
        };
        wait_for(port);
        Some(Self { process, port, folder })
    }

    fn spawn(port: u16, folder: &Path) -> Option<Child> {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it, as an outage does.
    pub(crate) fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Begins anew, with nothing remembered.
    pub(crate) fn again(&mut self) {
        self.process = Self::spawn(self.port, self.folder.path()).unwrap();
        wait_for(self.port);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A cluster of PostgreSQL in a folder.
pub(crate) struct Postgres {
    folder: TempDir,
    port: u16,
    programs: PathBuf,
    /// PostgreSQL does not run as root: then it runs as this user.
    as_user: Option<&'static str>,
}

impl Postgres {
    /// `None`, after saying so, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = Self::programs() else {
            println!("skipped: PostgreSQL is not installed");
            return None;
        };
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        let as_user = is_root.then_some("postgres");
        let folder = tempfile::tempdir().unwrap();
        if let Some(user) = as_user {
            let done = Command::new("chown").arg(user).arg(folder.path()).status();
            if !done.is_ok_and(|status| status.success()) {
                println!("skipped: PostgreSQL does not run as root, and there is no user {user}");
                return None;
            }
        }
        let this = Self { folder, port: free_port(), programs, as_user };
        let data = this.data();
        this.run(
            "initdb",
            &["-D", &data, "-U", "test", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
        );
        this.again();
        Some(this)
    }

    fn programs() -> Option<PathBuf> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = versions
            .map(|version| version.path().join("bin"))
            .filter(|bin| bin.join("initdb").exists())
            .collect();
        found.sort();
        found.pop()
    }

    fn data(&self) -> String {
        self.folder.path().join("data").to_str().unwrap().to_owned()
    }

    fn run(&self, program: &str, args: &[&str]) {
        let program = self.programs.join(program);
        let mut command = match self.as_user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let status = command.args(args).current_dir("/").stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "{args:?}");
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://test@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends it, as an outage does.
    pub(crate) fn stop(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-w", "stop"]);
    }

    /// Begins anew with what it has kept.
    pub(crate) fn again(&self) {
        let options = format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories=", self.port);
        self.run("pg_ctl", &["-D", &self.data(), "-o", &options, "-w", "-l", "/dev/null", "start"]);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut command = Command::new(self.programs.join("pg_ctl"));
        if let Some(user) = self.as_user {
            let program = self.programs.join("pg_ctl");
            command = Command::new("setpriv");
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(program);
        }
        let _ = command.args(["-D", &self.data(), "-m", "immediate", "stop"]).stdout(Stdio::null()).status();
    }
}
