//! Points of a curve: what is read can be drawn, and no name becomes a tag.

#![no_main]

use quantize::analysis::{page::render, parse_curve};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Drawing is slow: few points show what many would.
    if let Ok(points) = parse_curve(bytes)
        && points.len() <= 64
    {
        let page = render(None, &points).unwrap();
        assert!(page.ends_with("</html>\n"));
        assert_eq!(page.matches("<script").count(), 1);
    }
});
