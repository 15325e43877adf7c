//! Parquet: chunks lie in the file, pages in their chunks, and all values that are read in their page or its dictionary.

#![no_main]

use formats::parquet::pages::{Dictionary, PageKind, Values, next_page};
use formats::parquet::Parquet;

/// A run may say that a value comes two thousand million times.
const MOST: usize = 10_000;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Parquet::parse(bytes) else { return };
    for group in &file.row_groups {
        for (column, chunk) in file.columns.iter().zip(&group.chunks) {
            let mut rest = &bytes[chunk.range.clone()];
            let mut dictionary = None;
            while let Ok(Some(page)) = next_page(&mut rest) {
                assert!(page.levels <= page.body.len());
                match page.kind {
                    PageKind::Other => {}
                    PageKind::Dictionary => dictionary = Dictionary::new(&page, page.body.to_vec()).ok(),
                    PageKind::Data | PageKind::DataV2 => {
                        let values = Values::new(&page, page.body, column.optional, dictionary.as_ref());
                        let Ok(values) = values else { continue };
                        assert!(values.take(MOST).flatten().flatten().all(|text| text.len() <= bytes.len()));
                    }
                }
            }
        }
    }
});
