//! `edgellm chat` at a terminal, which `script` (util-linux) plays.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers stand outside #[test] functions")]

mod data;

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use data::own;

/// The prompt as the line editor draws it.
const PROMPT: &str = "\x1b[K> ";

/// The program on a terminal of its own.
struct Terminal {
    child: Child,
    screen: Vec<u8>,
}

impl Terminal {
    fn start(state: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_edgellm");
        let command = format!("{program} chat {} -t 0 --threads 1", own("models/qwen2-tiny"));
        // A program that waits for ever is ended after a minute.
        let child = Command::new("timeout")
            .args(["60", "script", "--quiet", "--flush", "--return", "--command", &command, "/dev/null"])
            .env("XDG_STATE_HOME", state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, screen: Vec::new() }
    }

    fn type_keys(&mut self, keys: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(keys.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Reads until `text` has appeared, `times` in all; the end of the program ends the wait too.
    fn wait_for(&mut self, text: &str, times: usize) {
        let mut byte = [0];
        while String::from_utf8_lossy(&self.screen).matches(text).count() < times {
            let n = self.child.stdout.as_mut().unwrap().read(&mut byte).unwrap();
            assert!(n > 0, "no {text:?} in {}", String::from_utf8_lossy(&self.screen));
            self.screen.push(byte[0]);
        }
    }
}

#[test]
fn ctrl_c_does_not_end_a_conversation_and_questions_are_remembered() {
    if Command::new("script").arg("--version").output().is_err() {
        println!("skipped: there is no `script` (util-linux) here");
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(state.path().to_str().unwrap());
    // What is typed while the terminal changes its mode is lost, so every step waits for the prompt.
    terminal.wait_for(PROMPT, 1);
    terminal.type_keys("\x03");
    terminal.wait_for("Ctrl-D or /exit leaves", 1);
    terminal.wait_for(PROMPT, 2);
    terminal.type_keys("Where is the boat?\r");
    terminal.wait_for("Where is the boat?\x1b[?2004l", 1);
    // While the model reads and answers; on a fast machine behind the answer.
    terminal.type_keys("\x03");
    terminal.wait_for(PROMPT, 3);
    terminal.type_keys("/help\r");
    terminal.wait_for("forget the conversation", 1);
    terminal.wait_for(PROMPT, 4);
    terminal.type_keys("/exit\r");
    let mut rest = Vec::new();
    terminal.child.stdout.as_mut().unwrap().read_to_end(&mut rest).unwrap();
    assert!(terminal.child.wait().unwrap().success());
    let history = std::fs::read_to_string(state.path().join("edgellm/history")).unwrap();
    assert!(history.contains("Where is the boat?\n"), "{history}");
}
