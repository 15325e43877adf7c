//! The repository keeps the promises of ARCHITECTURE.md: crate graph, short files, a book without loose pages.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines that are read in one sitting.
const MAX_LINES: usize = 400;
/// No reason makes a file longer than this.
const HARD_MAX_LINES: usize = 700;
/// Longer files, and why each is one.
const LONG_FILES: &[(&str, &str)] = &[(
    "crates/engine/src/loader/matrix.rs",
    "one short function for each layout that a file's matrices can have, side by side",
)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All files under `folder` with this extension, but nothing that is built or hidden.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "book", "corpus", "artifacts"].contains(&name) {
                found.extend(files(&path, extension));
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

/// crate -> crates of ours that it uses, from `cargo metadata`.
fn actual_graph() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    let edges = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let ours = dependencies.filter(|d| d["path"].is_string() && d["kind"].is_null());
        ours.map(|d| text(&d["name"])).collect()
    };
    packages.iter().map(|package| (text(&package["name"]), edges(package))).collect()
}

/// The same from the block of ARCHITECTURE.md.
fn stated_graph() -> BTreeMap<String, BTreeSet<String>> {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let block = page.split("```crate-graph\n").nth(1).unwrap().split("```").next().unwrap();
    let lines = block.lines().map(|line| line.split_once("->").unwrap());
    lines
        .map(|(from, to)| (from.trim().to_owned(), to.split_whitespace().map(str::to_owned).collect()))
        .collect()
}

#[test]
fn crate_graph_is_that_of_architecture_md() {
    assert_eq!(actual_graph(), stated_graph());
}

#[test]
fn source_files_are_short_or_have_a_reason() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for path in files(&root(), "rs") {
        let name = relative(&path);
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        let reason = LONG_FILES.iter().find(|(long, _)| *long == name);
        if reason.is_some() {
            used.insert(name.clone());
        }
        if lines > HARD_MAX_LINES || (lines > MAX_LINES) != reason.is_some() {
            wrong.push(format!("{name}: {lines} lines, reason: {reason:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(used.len(), LONG_FILES.len(), "an entry of LONG_FILES names no file");
}

#[test]
fn every_page_of_the_book_stands_in_its_summary() {
    let book = root().join("docs/src");
    let summary = fs::read_to_string(book.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<String> = links(&summary).into_iter().collect();
    let pages: BTreeSet<String> = files(&book, "md")
        .iter()
        .map(|page| page.strip_prefix(&book).unwrap().to_str().unwrap().to_owned())
        .filter(|page| page != "SUMMARY.md")
        .collect();
    assert_eq!(listed, pages);
}

#[test]
fn links_inside_the_repository_lead_somewhere() {
    let mut broken = Vec::new();
    for page in files(&root(), "md") {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let path = link.split('#').next().unwrap();
            if !link.contains("://") && !path.is_empty() && !page.parent().unwrap().join(path).exists() {
                broken.push(format!("{}: {link}", relative(&page)));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// Targets of `[text](target)`, code blocks aside.
fn links(markdown: &str) -> Vec<String> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let targets = line.split("](").skip(1);
            found.extend(targets.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
        }
    }
    found
}
