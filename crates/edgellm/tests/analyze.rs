//! `edgellm analyze`: its figures, its refusals, and its page in a browser.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod browser;
mod data;

use std::fs;
use std::path::{Path, PathBuf};

use data::{edgellm, json, own, shared, stdout};
use predicates::str::contains;
use tempfile::TempDir;

/// A text that the tiny models' tokenizer knows.
fn text(folder: &TempDir) -> String {
    let file = folder.path().join("text.txt");
    fs::write(&file, "The engine reads the file. Where is the boat? ".repeat(16)).unwrap();
    file.to_str().unwrap().to_owned()
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A report of stories260K in three formats where the shared data is, else of a tiny model beside itself.
fn report(folder: &TempDir) -> PathBuf {
    let page = folder.path().join("report.html");
    let stories = shared("llama2c/stories260K.bin").zip(shared("golden/stories260K-quantized"));
    let mut args: Vec<String> = vec!["analyze".to_owned()];
    match stories.zip(shared("llama2c/tok512.bin").zip(shared("golden/stories260K-hf/runc_t0_n256.txt"))) {
        Some(((original, quantized), (tokenizer, text))) => {
            args.push(original);
            args.extend(["q4", "tmac2", "tmac"].map(|kind| format!("{quantized}/stories260K.{kind}.bin")));
            args.extend(["-z".to_owned(), tokenizer, "--text".to_owned(), text]);
        }
        None => {
            args.extend([own("models/qwen2-tiny"), own("models/tiny-gguf/qwen2-tiny.gguf")]);
            args.extend(["--text".to_owned(), text(folder)]);
        }
    }
    let more = ["--context", "64", "--threads", "1", "--html", page.to_str().unwrap()];
    args.extend(more.map(str::to_owned));
    stdout(&args.iter().map(String::as_str).collect::<Vec<_>>());
    page
}

#[test]
fn figures_are_those_of_eval() {
    let (Some(original), Some(quantized), Some(tokenizer), Some(text)) = (
        shared("llama2c/stories260K.bin"),
        shared("golden/stories260K-quantized/stories260K.q4.bin"),
        shared("llama2c/tok512.bin"),
        shared("golden/stories260K-hf/runc_t0_n256.txt"),
    ) else {
        return;
    };
    let common = ["-z", &tokenizer, "--context", "64", "--threads", "1"];
    let with_text = ["analyze", &original, &quantized, "--text", &text];
    let found = json(&[&with_text, &common[..], &["--json"]].concat());
    let args = ["eval", "kl", &quantized, "--reference", &original, "--file", &text, "--json"];
    let kl = json(&[&args, &common[..]].concat());
    let report = &found["quantized"][0];
    for field in ["mean_kl", "p99_kl", "max_kl", "top1_agreement", "tokens", "perplexity"] {
        assert_eq!(report["text"][field], kl[field], "{field}");
    }
    assert_eq!(found["perplexity"], kl["reference_perplexity"]);
    assert_eq!(report["layers"].as_array().unwrap().len(), 5);
    assert_eq!((&report["linear_bits"], &found["original"]["linear_bits"]), (&4.5.into(), &32.0.into()));
    let fewer = json(&[&with_text, &common[..], &["--chunks", "1", "--json"]].concat());
    assert_eq!(fewer["quantized"][0]["text"]["tokens"], 31);
    let table = stdout(&[&with_text, &common[..]].concat());
    assert!(table.contains("stories260K.q4.bin: 6.40 times smaller than the original"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 110), "{table}");
}

#[test]
fn tensors_are_compared_without_a_text() {
    let (original, other) = (own("models/qwen3-tiny"), own("models/qwen3-tiny-bf16"));
    let found = json(&["analyze", &original, &other, "--threads", "1", "--json"]);
    let report = &found["quantized"][0];
    assert_eq!((&report["linear_bits"], &found["original"]["linear_bits"]), (&16.0.into(), &32.0.into()));
    assert!(report["text"].is_null() && found["perplexity"].is_null());
    let tensors = report["tensors"].as_array().unwrap();
    // bf16 has 8 bits of mantissa.
    assert!(tensors.iter().all(|tensor| tensor["relative_error"].as_f64().unwrap() < 1.0 / 256.0));
    let table = stdout(&["analyze", &original, &other, "--threads", "1"]);
    assert!(table.contains("qwen3-tiny-bf16: 1.9"), "{table}");
    let larger = stdout(&["analyze", &other, &original, "--threads", "1"]);
    assert!(larger.contains("times larger than the original"), "{larger}");
    let same = stdout(&["analyze", &original, &original, "--threads", "1"]);
    assert!(same.contains("  none of 25 tensors has changed"), "{same}");
    assert!(table.contains("qwen3-tiny-bf16: ") && !table.contains("perplexity"), "{table}");
}

#[test]
fn what_is_refused_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let (page, qwen2) = (page.to_str().unwrap(), own("models/qwen2-tiny"));
    let short = folder.path().join("short.txt");
    fs::write(&short, "Where is the boat?").unwrap();
    let points = folder.path().join("points.json");
    fs::write(&points, "[{\"bits\": 2, \"perplexity\": 0, \"method\": \"m\"}]").unwrap();
    let before = names(&folder);
    for (args, want) in [
        (vec![&qwen2[..], &own("models/qwen3-tiny")], "architecture is qwen3, the original's is qwen2"),
        (vec![&qwen2, "none.gguf"], "none.gguf"),
        (vec![&qwen2, &qwen2, "--text", "none.txt"], "none.txt: cannot read"),
        (vec![&qwen2, &qwen2, "--text", short.to_str().unwrap()], "two chunks of the context"),
        (vec!["--curve", points.to_str().unwrap()], "points.json: point 1: perplexity: must be above 0"),
    ] {
        let all = [&["analyze", "--html", page][..], &args].concat();
        edgellm(&all).assert().code(1).stderr(contains(want));
        let mut now = names(&folder);
        now.sort();
        let mut then = before.clone();
        then.sort();
        assert_eq!(now, then, "{args:?}");
    }
    let nowhere = folder.path().join("none/page.html");
    let args = ["analyze", &qwen2, &qwen2, "--html", nowhere.to_str().unwrap()];
    edgellm(&args).assert().code(1).stderr(contains("none/page.html"));
    edgellm(&["analyze"]).assert().code(2);
    edgellm(&["analyze", &qwen2]).assert().code(2);
    edgellm(&["analyze", "--curve", "points.json"]).assert().code(2).stderr(contains("--html"));
}

/// The page with this before its end.
fn with(folder: &TempDir, page: &Path, script: &str) -> PathBuf {
    let changed = folder.path().join("changed.html");
    let html = fs::read_to_string(page).unwrap();
    fs::write(&changed, html.replace("</body>", &format!("{script}</body>"))).unwrap();
    changed
}

#[test]
fn the_page_opens_without_a_word_on_the_console() {
    let Some(browser) = browser::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = report(&folder);
    let opened = browser::open(&browser, &page);
    assert_eq!(opened.console, Vec::<String>::new());
    assert!(opened.dom.contains("<svg") && opened.dom.contains("tabindex=\"0\""), "its script has run");
    // That a wrong page would be noticed: a script that fails, and something from outside.
    for wrong in ["<script>nothing.at(all)</script>", "<img src=\"https://edgellm.invalid/x.png\">"] {
        let console = browser::open(&browser, &with(&folder, &page, wrong)).console;
        assert_eq!(console.len(), 1, "{wrong}: {console:?}");
    }
    let points = folder.path().join("points.json");
    fs::write(&points, r#"[{"bits": 2, "perplexity": 90, "method": "<gptq>", "mean_kl": 0.5}]"#).unwrap();
    let curve = folder.path().join("curve.html");
    stdout(&["analyze", "--curve", points.to_str().unwrap(), "--html", curve.to_str().unwrap()]);
    let opened = browser::open(&browser, &curve);
    assert_eq!(opened.console, Vec::<String>::new());
    assert!(opened.dom.contains("&lt;gptq&gt;"));
}

#[test]
fn a_heading_sorts_its_table() {
    let Some(browser) = browser::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = report(&folder);
    let click = "<script>
        const table = document.querySelector('table.sort'), cell = (row, i) => Number(row.cells[i].dataset.v);
        const size = [...table.tHead.rows[0].cells].findIndex((heading) => heading.textContent === 'MB');
        const order = () => [...table.tBodies[0].rows].map((row) => cell(row, size));
        const sorted = (a, sign) => a.every((x, i) => i === 0 || sign * (x - a[i - 1]) >= 0);
        const heading = table.tHead.rows[0].cells[size];
        heading.click();
        const up = sorted(order(), 1);
        heading.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' }));
        document.title = `rows ${order().length} up ${up} down ${sorted(order(), -1)} ${heading.ariaSort}`;
        </script>";
    let opened = browser::open(&browser, &with(&folder, &page, click));
    assert_eq!(opened.console, Vec::<String>::new());
    let title = opened.dom.split("<title>").nth(1).unwrap().split("</title>").next().unwrap();
    assert!(title.ends_with(" up true down true descending"), "{title}");
}

/// `EDGELLM_SCREENSHOTS=docs/src/images` makes the one of the book anew.
#[test]
fn the_page_can_be_seen() {
    let Some(browser) = browser::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = report(&folder);
    let png = folder.path().join("analyze.png");
    let bytes = browser::screenshot(&browser, &page, &png, (1000, 1200));
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    assert_eq!([&bytes[16..20], &bytes[20..24]], [&1000u32.to_be_bytes(), &1200u32.to_be_bytes()]);
    // A page of one colour would be a few kilobytes.
    assert!((20_000..150_000).contains(&bytes.len()), "{} bytes", bytes.len());
    if let Some(book) = std::env::var_os("EDGELLM_SCREENSHOTS") {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        fs::copy(&png, root.join(book).join("analyze.png")).unwrap();
    }
}
