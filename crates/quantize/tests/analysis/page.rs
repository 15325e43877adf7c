//! The page as text; `edgellm`'s tests open it in a browser.

use proptest::prelude::*;
use quantize::analysis::{CurvePoint, page::render, parse_curve};

use super::{compare, exact};
use crate::helpers::ours;

fn point(bits: f64, perplexity: f64, method: &str) -> CurvePoint {
    CurvePoint { bits, perplexity, method: method.to_owned(), mean_kl: None }
}

#[test]
fn a_page_needs_nothing_else_and_names_cannot_become_tags() {
    let model = ours("qwen2-tiny");
    let mut analysis = compare(&model, &[&model, &model], exact(None), None).unwrap();
    analysis.quantized[0].size.name = "<img src=x onerror=alert(1)>\"".to_owned();
    analysis.quantized[0].only_in_original.push("</script><b>".to_owned());
    let points = [point(2.0, 1e9, "<b>"), point(1.6, 2e9, "<b>"), point(4.5, f64::MIN_POSITIVE, "int4")];
    let page = render(Some(&analysis), &points).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for outside in ["http://", "https://", "src=\"", "url(", "@import", "<img", "<b>"] {
        let inside = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!inside.contains(outside), "{outside}");
    }
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(page.contains("&lt;img src=x"));
    for tag in ["table", "figure", "details", "svg", "div", "ul"] {
        let open = page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
        assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn a_curve_stands_alone() {
    let page = render(None, &[point(2.2, 300.0, "gptq"), point(4.5, 24.0, "gptq"), point(2.0, 1e4, "round")]);
    let page = page.unwrap();
    assert_eq!(page.matches("<svg").count(), 1);
    assert!(page.contains("gptq") && page.contains("round") && page.contains(">10000<"), "{page}");
}

proptest! {
    /// Whatever is read as a curve can be drawn.
    #[test]
    fn any_points_can_be_drawn(
        points in prop::collection::vec(
            (1e-300..1e300f64, f64::MIN_POSITIVE..1e300, "\\PC{0,3}", prop::option::of(0.0..1e300f64)),
            1..12,
        ),
    ) {
        let of = |(bits, perplexity, method, mean_kl)| CurvePoint { bits, perplexity, method, mean_kl };
        let points: Vec<CurvePoint> = points.into_iter().map(of).collect();
        let json = serde_json::to_vec(&points).unwrap();
        prop_assert_eq!(&parse_curve(&json).unwrap(), &points);
        let page = render(None, &points).unwrap();
        let drawn = page.split("<h2>").nth(1).unwrap().split("<details>").next().unwrap();
        prop_assert!(drawn.contains("<circle") && !drawn.contains("NaN") && !drawn.contains(">inf"));
    }
}
