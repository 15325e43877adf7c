//! The figures as `--json` gives them, made from the measurements.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::profile::{Operation, Profile};
use engine::{Model, ModelInfo};
use serde::{Deserialize, Serialize};

use super::measure::{Measured, Plan};

/// The object of `--json`. Lengths and batch sizes are keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) model: String,
    #[serde(rename = "type")]
    pub(super) weight_type: String,
    pub(super) isa: String,
    pub(super) kernel: String,
    pub(super) threads: usize,
    pub(super) prefill_tok_s: BTreeMap<usize, f64>,
    pub(super) decode_tok_s: BTreeMap<usize, f64>,
    pub(super) batch_tok_s: BTreeMap<usize, f64>,
    pub(super) ttft_ms: f64,
    pub(super) inter_token_ms: InterToken,
    pub(super) bytes_per_token: u64,
    pub(super) read_bandwidth_gb_s: f64,
    pub(super) bandwidth_fraction: f64,
    /// Not known on every system.
    pub(super) peak_rss_mb: Option<f64>,
    pub(super) load_ms: f64,
    /// Bytes of the model's tensors as a file holds them; where types are compared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) size_mb: Option<f64>,
    /// Where a text was given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) perplexity: Option<f64>,
    /// Where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) profile: Option<ProfileReport>,
}

/// Where the time of a forward pass goes, in milliseconds: a batch of a prompt, and one generated token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ProfileReport {
    pub(super) prefill: Times,
    pub(super) decode: Times,
}

/// The mean forward pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Times {
    /// Over all layers.
    pub(super) operations: Vec<(String, f64)>,
    /// Over all operations of each layer.
    pub(super) layers: Vec<f64>,
}

impl ProfileReport {
    /// If the operations were measured.
    pub(super) fn new(measured: &Measured) -> Option<Self> {
        let prefill = Times::new(measured.prefill_profile.as_ref()?);
        Some(Self { prefill, decode: Times::new(measured.decode_profile.as_ref()?) })
    }
}

impl Times {
    fn new(profile: &Profile) -> Self {
        let milliseconds = |time: Duration| rounded(time.as_secs_f64() * 1e3);
        let of =
            |operation: Operation| (operation.name().to_owned(), milliseconds(profile.operation(operation)));
        Self {
            operations: Operation::ALL.map(of).to_vec(),
            layers: profile.layers().map(milliseconds).collect(),
        }
    }
}

/// Time between tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct InterToken {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Report {
    /// Medians of what was measured.
    pub(super) fn new(model: &Model, plan: &Plan, measured: &Measured, load: Duration) -> Self {
        let speeds = |lengths: &[usize], values: &[Vec<f64>]| -> BTreeMap<usize, f64> {
            lengths.iter().zip(values).map(|(&n, values)| (n, rounded(median(values)))).collect()
        };
        let decode_tok_s = speeds(&plan.decode_lengths, &measured.decode);
        // The fraction is that of the longest decode: the mean token of it stands in its middle.
        let (longest, speed) = decode_tok_s.last_key_value().map_or((0, 0.0), |(&n, &speed)| (n, speed));
        let bytes_per_token = model.bytes_per_token(plan.depth + longest / 2);
        let bandwidth = median(&measured.bandwidth);
        Self {
            model: name(&model.info),
            weight_type: weight_type(&model.info),
            isa: engine::machine::isa().to_owned(),
            kernel: model.kernel_family().to_owned(),
            threads: model.threads(),
            prefill_tok_s: speeds(&plan.prompt_lengths, &measured.prefill),
            batch_tok_s: speeds(&plan.batch_sizes, &measured.batch),
            decode_tok_s,
            ttft_ms: rounded(median(&measured.ttft) * 1e3),
            inter_token_ms: InterToken::new(&measured.gaps),
            bytes_per_token,
            read_bandwidth_gb_s: rounded(bandwidth / 1e9),
            bandwidth_fraction: rounded(bytes_per_token as f64 * speed / bandwidth),
            peak_rss_mb: measured.peak_memory.map(|bytes| rounded(bytes as f64 / 1e6)),
            load_ms: rounded(load.as_secs_f64() * 1e3),
            size_mb: None,
            perplexity: None,
            profile: None,
        }
    }
}

impl InterToken {
    fn new(gaps: &[f64]) -> Self {
        let mut sorted = gaps.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |fraction| rounded(quantile(&sorted, fraction) * 1e3);
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// The file's name, or what stands for it.
fn name(info: &ModelInfo) -> String {
    info.path.file_name().unwrap_or(info.path.as_os_str()).to_string_lossy().into_owned()
}

/// The type that most weights of the file have.
fn weight_type(info: &ModelInfo) -> String {
    let mut weights: BTreeMap<&str, u64> = BTreeMap::new();
    for tensor in &info.tensors {
        *weights.entry(&tensor.type_name).or_default() += tensor.shape.iter().product::<u64>();
    }
    weights.into_iter().max_by_key(|(_, n)| *n).map_or_else(String::new, |(name, _)| name.to_owned())
}

/// The middle value; of an even number the mean of the two; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len().is_multiple_of(2), sorted.get(middle)) {
        (_, None) => 0.0,
        (false, Some(value)) => *value,
        (true, Some(value)) => f64::midpoint(sorted[middle - 1], *value),
    }
}

/// The smallest of the sorted values that at least this fraction of them does not exceed; 0 of none.
fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let rank = (fraction * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Three decimals.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        let of = |fraction| quantile(&values, fraction);
        assert_eq!([of(0.5), of(0.99), of(0.999), of(1.0)], [50.0, 99.0, 100.0, 100.0]);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn an_earlier_report_can_be_read() {
        let report = Report {
            model: "m".to_owned(),
            weight_type: "ternary".to_owned(),
            isa: "avx2".to_owned(),
            kernel: "multiply".to_owned(),
            threads: 2,
            prefill_tok_s: BTreeMap::from([(128, 1.5), (512, 2.5)]),
            decode_tok_s: BTreeMap::from([(128, 3.5)]),
            batch_tok_s: BTreeMap::from([(1, 3.5)]),
            ttft_ms: 4.5,
            inter_token_ms: InterToken { p50: 1.0, p99: 2.0, p999: 3.0, max: 4.0 },
            bytes_per_token: 5,
            read_bandwidth_gb_s: 6.5,
            bandwidth_fraction: 0.5,
            peak_rss_mb: None,
            load_ms: 7.5,
            size_mb: None,
            perplexity: None,
            profile: None,
        };
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains(r#""prefill_tok_s":{"128":1.5,"512":2.5}"#), "{json}");
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
