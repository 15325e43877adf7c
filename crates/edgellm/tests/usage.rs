//! What the command does before it touches a model: help, usage errors, exit codes, pipes.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

use std::process::{Command as Process, Stdio};

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;

fn edgellm(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("edgellm").unwrap();
    command.args(args);
    command
}

/// Names of all commands, from the program's own help.
fn commands() -> Vec<String> {
    let help = edgellm(&["--help"]).output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    list.map_while(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

#[test]
fn every_command_has_help_with_examples() {
    let commands = commands();
    assert!(commands.iter().any(|name| name == "pull"), "{commands:?}");
    for name in commands {
        edgellm(&[&name, "--help"]).assert().success().stdout(contains("Examples:"));
    }
}

/// The book's page is written by hand; a command or an option that it does not name is missing there.
#[test]
fn the_books_page_names_every_command_and_option() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/command-line.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut helps: Vec<Vec<String>> = commands().into_iter().map(|name| vec![name]).collect();
    helps.extend(["perplexity", "logits", "kl"].map(|measure| vec!["eval".to_owned(), measure.to_owned()]));
    let mut missing = Vec::new();
    for command in helps {
        if !page.contains(&format!("edgellm {}", command.join(" "))) {
            missing.push(command.join(" "));
        }
        let args: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = String::from_utf8(edgellm(&args).output().unwrap().stdout).unwrap();
        let options = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        for option in options.filter_map(|line| line.split([' ', '=']).find(|word| word.starts_with("--"))) {
            if !page.contains(option) {
                missing.push(format!("{} {option}", command.join(" ")));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in
        [&[][..], &["no-such-command"], &["pull"], &["pull", "--no-such-flag"], &["completions", "cobol"]]
    {
        edgellm(args).assert().code(2).stdout("").stderr(contains("Usage:").or(contains("error:")));
    }
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = edgellm(&["completions", shell]).output().unwrap().stdout;
        let script = String::from_utf8(script).unwrap();
        for name in commands() {
            assert!(script.contains(&name), "{shell}: {name}");
        }
    }
}

#[test]
fn the_manual_page_is_roff() {
    edgellm(&["man"]).assert().success().stdout(contains(".TH edgellm 1"));
    edgellm(&["man", "pull"]).assert().success().stdout(contains("HF_ENDPOINT"));
    edgellm(&["man", "no-such-command"]).assert().code(1).stderr(contains("no-such-command"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Process::new(env!("CARGO_BIN_EXE_edgellm"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
