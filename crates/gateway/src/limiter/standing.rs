//! How it stands with a limit, as a client is told.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::rules::{Kind, Rule};
use crate::error::ApiError;

/// A limit and what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) kind: Kind,
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    /// Milliseconds until all of it is free again, if nothing more is asked.
    pub(crate) reset: u64,
}

impl Standing {
    /// Writes `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`. Where there are two limits, that of the minute is
    /// told, as OpenAI does, unless the other one has less left.
    pub(crate) fn tell(all: &[Self], headers: &mut HeaderMap) {
        for tokens in [false, true] {
            let fitting = all.iter().filter(|standing| standing.kind.counts_tokens() == tokens);
            let Some(standing) = fitting.min_by_key(|standing| standing.remaining) else { continue };
            let unit = if tokens { "tokens" } else { "requests" };
            let values = [
                ("limit", standing.limit.to_string()),
                ("remaining", standing.remaining.to_string()),
                ("reset", duration(standing.reset)),
            ];
            for (what, value) in values {
                let name = HeaderName::try_from(format!("x-ratelimit-{what}-{unit}"));
                if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                    headers.insert(name, value);
                }
            }
        }
    }
}

/// A time as OpenAI writes it: `17ms`, `1s`, `6m0s`, `23h59m0s`.
fn duration(millis: u64) -> String {
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let seconds = millis.div_ceil(1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A limit that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    words: &'static str,
    limit: u64,
    /// What was asked, if it is more than the limit ever gives.
    too_much: Option<u64>,
    standing: Option<Standing>,
    /// Milliseconds until it is worth asking again; unknown when somebody else must end first.
    wait: Option<u64>,
}

impl Full {
    /// This rule is; `wait` is `None` when `cost` will never fit.
    pub(super) fn rule(rule: &Rule, cost: u64, standing: Standing, wait: Option<u64>) -> Self {
        let too_much = wait.is_none().then_some(cost);
        Self { words: rule.kind.words(), limit: rule.limit, too_much, standing: Some(standing), wait }
    }

    /// All places are taken.
    pub(super) fn places(limit: u64) -> Self {
        Self { words: "requests at a time", limit, too_much: None, standing: None, wait: None }
    }

    /// An address has asked too often.
    pub(super) fn address(limit: u64, wait: u64) -> Self {
        let words = "requests per minute from one address";
        Self { words, limit, too_much: None, standing: None, wait: Some(wait) }
    }
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        let Full { words, limit, too_much, standing, wait } = full;
        let message = match (too_much, wait) {
            (Some(cost), _) => format!(
                "Request too large: the limit is {limit} {words} and this request needs {cost}. Ask for fewer tokens \
                 (max_tokens) or shorten the prompt"
            ),
            (None, Some(wait)) => {
                format!("Rate limit reached: {limit} {words}. Please try again in {}", duration(wait))
            }
            (None, None) => format!("Rate limit reached: {limit} {words}. Please try again later"),
        };
        let code = if words == Kind::Budget.words() { "insufficient_quota" } else { "rate_limit_exceeded" };
        let wait = wait.map(|wait| Duration::from_secs(wait.div_ceil(1000).max(1)));
        Self::rate_limited(code, message, wait, standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_openai_does() {
        for (millis, text) in
            [(0, "0ms"), (17, "17ms"), (1000, "1s"), (1001, "2s"), (60_000, "1m0s"), (86_340_000, "23h59m0s")]
        {
            assert_eq!(duration(millis), text);
        }
    }

    #[test]
    fn of_two_limits_the_tighter_one_is_told() {
        let standing = |kind, remaining| Standing { kind, limit: 100, remaining, reset: 60_000 };
        let mut headers = HeaderMap::new();
        Standing::tell(&[standing(Kind::MinuteRequests, 9), standing(Kind::DayRequests, 3)], &mut headers);
        assert_eq!(headers["x-ratelimit-remaining-requests"], "3");
        assert_eq!(headers["x-ratelimit-reset-requests"], "1m0s");
        assert!(!headers.contains_key("x-ratelimit-limit-tokens"));
    }
}
