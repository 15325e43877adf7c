//! `options`, `format` and `keep_alive`.

use std::time::Duration;

use engine::sampler::Sampling;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::engine_thread::Handle;
use crate::error::ApiError;
use crate::grammar::Grammar;
use crate::ids;
use crate::openai::knobs::stops;
use crate::openai::types::OneOrMany;

/// How tokens are chosen, with Ollama's names and defaults.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    #[schema(minimum = 0, maximum = 100)]
    pub(crate) temperature: Option<f32>,
    pub(crate) top_k: Option<usize>,
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) top_p: Option<f32>,
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) min_p: Option<f32>,
    #[schema(minimum = 0.01, maximum = 100)]
    pub(crate) repeat_penalty: Option<f32>,
    /// How many of the last tokens the penalties look at; -1 for all.
    pub(crate) repeat_last_n: Option<i64>,
    #[schema(minimum = -100, maximum = 100)]
    pub(crate) frequency_penalty: Option<f32>,
    #[schema(minimum = -100, maximum = 100)]
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) seed: Option<i64>,
    /// Tokens at most; negative until the context is full.
    pub(crate) num_predict: Option<i64>,
    pub(crate) stop: Option<OneOrMany>,
    /// Positions of prompt and answer; at most the server's own context.
    #[schema(minimum = 1)]
    pub(crate) num_ctx: Option<usize>,
}

impl Options {
    /// Sampling with Ollama's defaults where the server has none of its own.
    ///
    /// # Errors
    /// 400 that names the option.
    pub(crate) fn sampling(&self, handle: &Handle) -> Result<Sampling, ApiError> {
        let server = handle.defaults;
        let sampling = Sampling {
            temperature: self.temperature.or(server.temperature).unwrap_or(0.8),
            top_k: self.top_k.or(server.top_k).unwrap_or(40),
            top_p: self.top_p.or(server.top_p).unwrap_or(0.9),
            min_p: self.min_p.or(server.min_p).unwrap_or(0.0),
            repetition_penalty: self.repeat_penalty.or(server.repetition_penalty).unwrap_or(1.1),
            frequency_penalty: self.frequency_penalty.or(server.frequency_penalty).unwrap_or(0.0),
            presence_penalty: self.presence_penalty.or(server.presence_penalty).unwrap_or(0.0),
            penalty_window: self.repeat_last_n.map_or(64, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            logit_bias: Vec::new(),
            seed: self.seed.map(|seed| seed as u64).or(server.seed).unwrap_or_else(ids::seed),
        };
        let checked = sampling.check(handle.card.vocab_size);
        checked.map_err(|error| ApiError::param("options", error.to_string()))?;
        Ok(sampling)
    }

    /// Tokens of the answer to a prompt of this length at most.
    ///
    /// # Errors
    /// 400 for a `num_ctx` that the server does not have, or that the prompt is too long for.
    pub(crate) fn max_tokens(&self, handle: &Handle, prompt: usize) -> Result<Option<usize>, ApiError> {
        let wanted = match self.num_predict {
            Some(n) => usize::try_from(n).ok(),
            None => handle.defaults.max_tokens,
        };
        let (Some(context), most) = (self.num_ctx, handle.card.context) else { return Ok(wanted) };
        if !(1..=most).contains(&context) {
            let message = format!("{context} is not in 1..={most}, this server's (--context)");
            return Err(ApiError::unsupported("options.num_ctx", message));
        }
        if prompt > context {
            return Err(ApiError::context_length("options.num_ctx", prompt, context));
        }
        // As in the whole context: the last token needs no place of its own.
        let room = context - prompt + 1;
        Ok(Some(wanted.map_or(room, |wanted| wanted.min(room))))
    }

    /// 400 for options that no request could have, whatever its prompt.
    pub(crate) fn check(&self, handle: &Handle) -> Result<(), ApiError> {
        self.sampling(handle)?;
        self.stops()?;
        self.max_tokens(handle, 0).map(drop)
    }

    /// Stop strings.
    pub(crate) fn stops(&self) -> Result<Vec<String>, ApiError> {
        stops(self.stop.clone(), "options.stop")
    }

    /// These, and where they say nothing, those of the request's top level.
    pub(crate) fn or(self, top: Short) -> Self {
        Self {
            temperature: self.temperature.or(top.temperature),
            top_p: self.top_p.or(top.top_p),
            top_k: self.top_k.or(top.top_k),
            seed: self.seed.or(top.seed),
            stop: self.stop.or(top.stop),
            num_predict: self.num_predict.or(top.max_tokens.map(|n| i64::try_from(n).unwrap_or(i64::MAX))),
            ..self
        }
    }
}

/// What EdgeLLM's own shape has at the top level.
#[derive(Debug, Clone, Default)]
pub(crate) struct Short {
    pub(crate) max_tokens: Option<usize>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<usize>,
    pub(crate) seed: Option<i64>,
    pub(crate) stop: Option<OneOrMany>,
}

impl Short {
    /// Whether the request is in EdgeLLM's own shape.
    pub(crate) fn is_used(&self) -> bool {
        let Self { max_tokens, temperature, top_p, top_k, seed, stop } = self;
        max_tokens.is_some()
            || temperature.is_some()
            || top_p.is_some()
            || top_k.is_some()
            || seed.is_some()
            || stop.is_some()
    }
}

/// `json`, or a schema.
///
/// # Errors
/// 400 for anything else.
pub(crate) fn format(format: Option<Value>) -> Result<Option<Grammar>, ApiError> {
    match format {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) if name.is_empty() => Ok(None),
        Some(Value::String(name)) if name == "json" => {
            Grammar::schema(&serde_json::json!({ "type": "object" }), "format").map(Some)
        }
        Some(schema @ Value::Object(_)) => Grammar::schema(&schema, "format").map(Some),
        Some(_) => Err(ApiError::param("format", "either \"json\" or a JSON schema")),
    }
}

/// How long a model is kept after the request: seconds, or a text such as `5m`; negative for ever. `None` means the
/// server's own setting.
///
/// # Errors
/// 400 for what is neither.
pub(crate) fn keep_alive(value: Option<&Value>) -> Result<Option<Duration>, ApiError> {
    let wrong = || ApiError::param("keep_alive", "seconds, or a text such as \"5m\"");
    let seconds = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(seconds)) => seconds.as_f64().ok_or_else(wrong)?,
        Some(Value::String(text)) => {
            let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let unit = match &text[digits.len()..] {
                "" | "s" => 1.0,
                "ms" => 0.001,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
            digits.parse::<f64>().map_err(|_| wrong())? * unit
        }
        Some(_) => return Err(wrong()),
    };
    let forever = Duration::from_secs(u64::from(u32::MAX));
    Ok(Some(if seconds < 0.0 { forever } else { Duration::try_from_secs_f64(seconds).unwrap_or(forever) }))
}
