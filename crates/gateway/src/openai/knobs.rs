//! The parameters that chat and completions share, and their bounds.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use engine::sampler::Sampling;

use super::types::OneOrMany;
use crate::engine_thread::Handle;
use crate::error::ApiError;
use crate::{ids, limits};

/// OpenAI's temperature where nobody says one.
pub(crate) const TEMPERATURE: f32 = 1.0;

/// OpenAI's `top_p` where nobody says one.
pub(crate) const TOP_P: f32 = 1.0;

/// How tokens are chosen, as a request says it.
#[derive(Debug, Default)]
pub(crate) struct Knobs {
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<usize>,
    pub(crate) min_p: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) logit_bias: Option<HashMap<String, f32>>,
    pub(crate) seed: Option<i64>,
}

impl Knobs {
    /// Sampling with OpenAI's bounds, and its defaults where the server has none of its own.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub(crate) fn sampling(&self, handle: &Handle) -> Result<Sampling, ApiError> {
        let bounded = |name: &str, value: Option<f32>, low: f32, high: f32| match value {
            Some(value) if !(low..=high).contains(&value) => {
                Err(ApiError::param(name, format!("{value} is not in {low}..={high}")))
            }
            value => Ok(value),
        };
        let server = handle.defaults;
        let temperature = bounded("temperature", self.temperature, 0.0, 2.0)?;
        let top_p = bounded("top_p", self.top_p, 0.0, 1.0)?;
        let min_p = bounded("min_p", self.min_p, 0.0, 1.0)?;
        let repetition = bounded("repetition_penalty", self.repetition_penalty, 0.01, 100.0)?;
        let frequency = bounded("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        let presence = bounded("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        Ok(Sampling {
            temperature: temperature.or(server.temperature).unwrap_or(TEMPERATURE),
            top_p: top_p.or(server.top_p).unwrap_or(TOP_P),
            top_k: self.top_k.or(server.top_k).unwrap_or(0),
            min_p: min_p.or(server.min_p).unwrap_or(0.0),
            repetition_penalty: repetition.or(server.repetition_penalty).unwrap_or(1.0),
            frequency_penalty: frequency.or(server.frequency_penalty).unwrap_or(0.0),
            presence_penalty: presence.or(server.presence_penalty).unwrap_or(0.0),
            penalty_window: usize::MAX,
            logit_bias: self.bias(handle.card.vocab_size)?,
            seed: self.seed.map(|seed| seed as u64).or(server.seed).unwrap_or_else(ids::seed),
        })
    }

    fn bias(&self, vocab_size: usize) -> Result<Vec<(u32, f32)>, ApiError> {
        let Some(bias) = &self.logit_bias else { return Ok(Vec::new()) };
        if bias.len() > limits::LOGIT_BIAS {
            return Err(ApiError::param(
                "logit_bias",
                format!("at most {} tokens can be biased", limits::LOGIT_BIAS),
            ));
        }
        let entry = |(token, bias): (&String, &f32)| {
            let id = token.parse::<u32>().ok().filter(|id| (*id as usize) < vocab_size);
            let id = id.ok_or_else(|| {
                ApiError::param(
                    "logit_bias",
                    format!("{token:?} is no token of a vocabulary of {vocab_size}"),
                )
            })?;
            if !(-100.0..=100.0).contains(bias) {
                return Err(ApiError::param("logit_bias", format!("{bias} is not in -100..=100")));
            }
            Ok((id, *bias))
        };
        let mut entries = bias.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        entries.sort_unstable_by_key(|(id, _)| *id);
        Ok(entries)
    }
}

/// The stop strings of a request.
pub(crate) fn stops(stop: Option<OneOrMany>, name: &str) -> Result<Vec<String>, ApiError> {
    let stops = stop.map(OneOrMany::all).unwrap_or_default();
    if stops.len() > limits::STOPS {
        return Err(ApiError::param(name, format!("at most {} stop strings", limits::STOPS)));
    }
    if stops.iter().any(|stop| stop.is_empty() || stop.len() > limits::STOP_BYTES) {
        return Err(ApiError::param(name, format!("a stop string has 1 to {} bytes", limits::STOP_BYTES)));
    }
    Ok(stops)
}

/// How many choices are wanted.
pub(crate) fn choices(n: Option<usize>, name: &str) -> Result<usize, ApiError> {
    match n.unwrap_or(1) {
        n @ 1..=limits::CHOICES => Ok(n),
        n => Err(ApiError::param(name, format!("{n} is not in 1..={}", limits::CHOICES))),
    }
}

/// How many of the likeliest tokens are told.
pub(crate) fn top(n: Option<usize>, name: &str) -> Result<usize, ApiError> {
    match n.unwrap_or(0) {
        n @ 0..=limits::TOP_LOGPROBS => Ok(n),
        n => Err(ApiError::param(name, format!("{n} is not in 0..={}", limits::TOP_LOGPROBS))),
    }
}

/// Whether log-probabilities are told, and those of how many of the likeliest tokens.
pub(crate) fn logprobs(
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
) -> Result<Option<usize>, ApiError> {
    let is_wanted = logprobs.unwrap_or(false);
    if top_logprobs.is_some() && !is_wanted {
        return Err(ApiError::param("top_logprobs", "only allowed when 'logprobs' is true"));
    }
    Ok(is_wanted.then_some(top(top_logprobs, "top_logprobs")?))
}

/// The number by which the scheduler tells users apart.
pub(crate) fn user(name: Option<&str>) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(name)
}
