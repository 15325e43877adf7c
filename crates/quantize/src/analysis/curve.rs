//! Perplexity against bits a weight: the points of one curve or of several.

use serde::{Deserialize, Serialize};

use super::error::AnalysisError;
use super::{Analysis, QuantizedReport};

/// Points of a curve at most.
const MAX_POINTS: usize = 10_000;

/// A quantized model as a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Bits a weight in the matrices of the layers.
    pub bits: f64,
    /// Its perplexity.
    pub perplexity: f64,
    /// How it was made: points of one method make one line.
    pub method: String,
    /// Mean KL divergence from the original in nats, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_kl: Option<f64>,
}

/// Reads a JSON list of `{"bits": …, "perplexity": …, "method": …}`, with `mean_kl` if it is known. Other fields are ignored.
///
/// # Errors
/// What is no such list, named by place or by the number of the point and its field; points where a logarithm is not.
pub fn parse_curve(json: &[u8]) -> Result<Vec<CurvePoint>, AnalysisError> {
    let points: Vec<CurvePoint> = serde_json::from_slice(json).map_err(|err| {
        AnalysisError::Points(format!("not a list of points with bits, perplexity and method: {err}"))
    })?;
    if points.is_empty() || points.len() > MAX_POINTS {
        let problem = format!("{} points: take 1 to {MAX_POINTS}", points.len());
        return Err(AnalysisError::Points(problem));
    }
    for (i, point) in points.iter().enumerate() {
        for (field, value) in
            [("bits", Some(point.bits)), ("perplexity", Some(point.perplexity)), ("mean_kl", point.mean_kl)]
        {
            let positive = value.is_none_or(|x| x.is_finite() && (x > 0.0 || field == "mean_kl" && x == 0.0));
            if !positive {
                let problem = format!("point {}: {field}: must be above 0", i + 1);
                return Err(AnalysisError::Points(problem));
            }
        }
    }
    Ok(points)
}

impl QuantizedReport {
    /// The model as a point, if its perplexity was measured.
    pub fn point(&self) -> Option<CurvePoint> {
        let text = self.text?;
        Some(CurvePoint {
            bits: self.size.linear_bits,
            perplexity: text.perplexity,
            method: self.size.name.clone(),
            mean_kl: Some(text.mean_kl),
        })
    }
}

impl Analysis {
    /// All quantized models as points.
    pub fn points(&self) -> Vec<CurvePoint> {
        self.quantized.iter().filter_map(QuantizedReport::point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_or_named() {
        let good = br#"[{"bits": 2, "perplexity": 30.5, "method": "gptq", "more": 1}]"#;
        let points = parse_curve(good).unwrap();
        assert_eq!((points[0].bits, points[0].perplexity, points[0].mean_kl), (2.0, 30.5, None));
        for (json, want) in [
            (r#"{"bits": 2}"#, "not a list of points"),
            (r#"[{"bits": 2, "method": "a"}]"#, "missing field `perplexity`"),
            ("[]", "0 points"),
            (r#"[{"bits": 0, "perplexity": 3, "method": "a"}]"#, "point 1: bits: must be above 0"),
            (r#"[{"bits": 2, "perplexity": -3, "method": "a"}]"#, "point 1: perplexity: must be above 0"),
            (r#"[{"bits": 2, "perplexity": 3, "method": "a", "mean_kl": -1}]"#, "point 1: mean_kl: must"),
        ] {
            let err = parse_curve(json.as_bytes()).unwrap_err().to_string();
            assert!(err.contains(want), "{json}: {err}");
        }
    }
}
