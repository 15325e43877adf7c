//! The parameters that chat and completions share, and their bounds.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use engine::sampler::Sampling;

use super::types::OneOrMany;
use crate::error::ApiError;
use crate::{ids, limits};

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
    /// Sampling with OpenAI's defaults and bounds.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub(crate) fn sampling(&self, vocab_size: usize) -> Result<Sampling, ApiError> {
        let bounded = |name: &str, value: Option<f32>, default: f32, low: f32, high: f32| {
            let value = value.unwrap_or(default);
            if (low..=high).contains(&value) {
                return Ok(value);
            }
            Err(ApiError::param(name, format!("{value} is not in {low}..={high}")))
        };
        Ok(Sampling {
            temperature: bounded("temperature", self.temperature, 1.0, 0.0, 2.0)?,
            top_p: bounded("top_p", self.top_p, 1.0, 0.0, 1.0)?,
            top_k: self.top_k.unwrap_or(0),
            min_p: bounded("min_p", self.min_p, 0.0, 0.0, 1.0)?,
            repetition_penalty: bounded("repetition_penalty", self.repetition_penalty, 1.0, 0.01, 100.0)?,
            frequency_penalty: bounded("frequency_penalty", self.frequency_penalty, 0.0, -2.0, 2.0)?,
            presence_penalty: bounded("presence_penalty", self.presence_penalty, 0.0, -2.0, 2.0)?,
            penalty_window: usize::MAX,
            logit_bias: self.bias(vocab_size)?,
            seed: self.seed.map_or_else(ids::seed, |seed| seed as u64),
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

/// The number by which the scheduler tells users apart.
pub(crate) fn user(name: Option<&str>) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(name)
}
