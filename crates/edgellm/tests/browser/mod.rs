//! A page in headless Chromium.
#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, reason = "helpers of tests; no test uses all")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a page has become, and what it said on the console.
pub(crate) struct Opened {
    pub(crate) dom: String,
    pub(crate) console: Vec<String>,
}

/// `EDGELLM_BROWSER`, or the first of Chromium's names on the path; says why a test skips.
pub(crate) fn find() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("EDGELLM_BROWSER") {
        return Some(given.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    let found = found.into_iter().find(|file| file.is_file());
    if found.is_none() {
        println!("skipped: no Chromium on the path (EDGELLM_BROWSER names one; .ci/browser.sh installs it)");
    }
    found
}

/// Runs the browser on a page with a profile of its own and nothing from outside.
fn run(browser: &Path, page: &Path, what: &[String]) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        .args(["--hide-scrollbars", "--enable-logging=stderr", "--no-first-run"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(what)
        .arg(format!("file://{}", page.canonicalize().unwrap().display()))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {err}", browser.display());
    (out.into_owned(), err.into_owned())
}

/// Opens a page and waits until its scripts have run.
pub(crate) fn open(browser: &Path, page: &Path) -> Opened {
    let (dom, err) = run(browser, page, &["--dump-dom".to_owned()]);
    let console = err.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    Opened { dom, console }
}

/// A PNG of the page's top; returns its bytes.
pub(crate) fn screenshot(browser: &Path, page: &Path, png: &Path, (width, height): (u32, u32)) -> Vec<u8> {
    run(
        browser,
        page,
        &[format!("--screenshot={}", png.display()), format!("--window-size={width},{height}")],
    );
    std::fs::read(png).unwrap()
}
