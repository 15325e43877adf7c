//! Pages that people look at: one file that needs no other.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use formats::writer::AtomicFile;

/// How tables and text look.
pub(super) const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}td,th{border-bottom:1px solid #ddd;padding:.25em 1em .25em 0;text-align:left}\
td.n{text-align:right;font-variant-numeric:tabular-nums}svg{max-width:100%;height:auto}";

/// Writes the page; it appears when it is whole.
pub(super) fn write(path: &Path, page: &str) -> Result<()> {
    let cannot_write = || format!("{}: cannot write", path.display());
    let mut file = AtomicFile::create(path).with_context(cannot_write)?;
    file.write_all(page.as_bytes()).with_context(cannot_write)?;
    file.commit().with_context(cannot_write)
}

/// Text that may stand between tags.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_tags() {
        assert_eq!(escaped("<b> & co"), "&lt;b&gt; &amp; co");
    }
}
