//! `edgellm chat` at a terminal of its own.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers stand outside #[test] functions")]

mod data;

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use data::own;
use rexpect::process::WaitStatus;
use rexpect::session::{PtySession, spawn_command};

/// The prompt as the line editor draws it.
const PROMPT: &str = "\x1b[K> ";
/// What ends a test that waits for something that does not come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one try of [`insist`] waits.
const TRY: Duration = Duration::from_secs(3);

/// Types `keys` until `done` says that they arrived: what is typed while a terminal changes its mode is lost.
fn insist(terminal: &mut PtySession, keys: &str, mut done: impl FnMut(&mut PtySession) -> bool) {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        // The program may be gone already, when an earlier try arrived late.
        let _ = terminal.send(keys).and_then(|_| terminal.flush());
        let typed = Instant::now();
        while typed.elapsed() < TRY {
            if done(terminal) {
                return;
            }
            sleep(Duration::from_millis(2));
        }
    }
    panic!("{keys:?} did not arrive");
}

#[test]
fn ctrl_c_does_not_end_a_conversation_and_questions_are_remembered() {
    let state = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgellm"));
    command.args(["chat", &own("models/qwen2-tiny"), "-t", "0", "--threads", "1"]);
    command.env("XDG_STATE_HOME", state.path()).env("TERM", "xterm");
    let mut terminal = spawn_command(command, Some(PATIENCE.as_millis().try_into().unwrap())).unwrap();

    terminal.exp_string(PROMPT).unwrap();
    terminal.send_control('c').unwrap();
    terminal.exp_string("Ctrl-D or /exit leaves").unwrap();
    terminal.exp_string(PROMPT).unwrap();
    terminal.send("Where is the boat?\r").unwrap();
    terminal.flush().unwrap();
    terminal.exp_string("Where is the boat?\x1b[?2004l").unwrap();
    // While the model reads and answers; on a fast machine behind the answer.
    terminal.send_control('c').unwrap();
    terminal.exp_string(PROMPT).unwrap();

    let mut screen = String::new();
    insist(&mut terminal, "/help\r", |terminal| {
        screen.extend(std::iter::from_fn(|| terminal.try_read()));
        screen.contains("forget the conversation")
    });
    let mut ended = None;
    insist(&mut terminal, "/exit\r", |terminal| {
        screen.extend(std::iter::from_fn(|| terminal.try_read()));
        ended = terminal.process().status().filter(|status| *status != WaitStatus::StillAlive);
        ended.is_some()
    });
    assert!(matches!(ended, Some(WaitStatus::Exited(_, 0))), "{ended:?} after {screen}");
    let history = std::fs::read_to_string(state.path().join("edgellm/history")).unwrap();
    assert!(history.contains("Where is the boat?\n"), "{history}");
}
