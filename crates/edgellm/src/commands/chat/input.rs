//! Questions from a terminal, with editing and history, or from a file or pipe, one a line.

use std::env;
use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Behavior, Config, Editor};

use crate::output;

/// Lines that the history file keeps.
const HISTORY_LINES: usize = 1000;

/// Where questions come from.
pub(super) enum Input {
    Terminal { editor: Box<Editor<(), FileHistory>>, history: Option<PathBuf> },
    Lines(io::Lines<io::StdinLock<'static>>),
}

/// One question, several lines joined.
pub(super) enum Line {
    Text(String),
    /// Ctrl-C at the prompt.
    Interrupted,
    End,
}

impl Input {
    /// A line editor when standard input is a terminal.
    pub(super) fn from_stdin() -> Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self::Lines(io::stdin().lock().lines()));
        }
        // Standard output carries the answers and nothing else: the editor draws on the terminal itself.
        let config =
            Config::builder().behavior(Behavior::PreferTerm).max_history_size(HISTORY_LINES)?.build();
        let mut editor = Editor::with_config(config).context("cannot open the terminal")?;
        let history = history_file();
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        Ok(Self::Terminal { editor: Box::new(editor), history })
    }

    /// Whether somebody sits there.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// The next question. A line that ends in a backslash goes on in the next.
    pub(super) fn next(&mut self) -> Result<Line> {
        let mut text = String::new();
        loop {
            match self.read_line(if text.is_empty() { "> " } else { ". " })? {
                Line::Text(line) => match line.strip_suffix('\\') {
                    Some(part) => text = format!("{text}{part}\n"),
                    None => {
                        text.push_str(&line);
                        self.remember(&text);
                        return Ok(Line::Text(text));
                    }
                },
                Line::End if !text.is_empty() => return Ok(Line::Text(text)),
                other => return Ok(other),
            }
        }
    }

    fn read_line(&mut self, prompt: &str) -> Result<Line> {
        match self {
            Self::Terminal { editor, .. } => match editor.readline(prompt) {
                Ok(line) => Ok(Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(err) => Err(err).context("cannot read from the terminal"),
            },
            Self::Lines(lines) => match lines.next() {
                Some(line) => Ok(Line::Text(line.context("cannot read standard input")?)),
                None => Ok(Line::End),
            },
        }
    }

    /// Adds a question to the history. A history that cannot be written is told once and then left alone.
    fn remember(&mut self, text: &str) {
        if let Self::Terminal { editor, history } = self
            && !text.trim().is_empty()
            && editor.add_history_entry(text).unwrap_or(false)
            && let Some(path) = history
            && let Err(err) = editor.save_history(path)
        {
            output::note(&format!("{}: cannot write the history: {err}", path.display()));
            *history = None;
        }
    }
}

/// `edgellm/history` in the user's folder of states; `None` when there is no such folder or it cannot be made.
fn history_file() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".local/state")))?;
    let folder = state.join("edgellm");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}
