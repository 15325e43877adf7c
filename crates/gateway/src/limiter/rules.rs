//! What is limited.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
/// Days of a budget whose period is not said.
const BUDGET_DAYS: u64 = 30;

/// The limits of a key. What is left out is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests in any minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Tokens of prompts and answers in any minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Requests in any 24 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_day: Option<u64>,
    /// Requests at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_requests: Option<u64>,
    /// Tokens in any `budget_days` days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_budget: Option<u64>,
    /// Days of the budget, 30 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_days: Option<u64>,
}

/// What a rule counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    MinuteRequests,
    DayRequests,
    MinuteTokens,
    Budget,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] =
        [Self::MinuteRequests, Self::DayRequests, Self::MinuteTokens, Self::Budget];

    /// Its place among all.
    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// As Redis knows it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MinuteRequests => "rpm",
            Self::DayRequests => "rpd",
            Self::MinuteTokens => "tpm",
            Self::Budget => "budget",
        }
    }

    /// As a client is told.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::MinuteRequests => "requests per minute",
            Self::DayRequests => "requests per day",
            Self::MinuteTokens => "tokens per minute",
            Self::Budget => "tokens of the budget",
        }
    }

    pub(crate) fn counts_tokens(self) -> bool {
        matches!(self, Self::MinuteTokens | Self::Budget)
    }
}

/// At most `limit` in any `span` milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) kind: Kind,
    pub(crate) limit: u64,
    pub(crate) span: u64,
}

impl Limits {
    /// These, and where they leave something open, the other ones.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(other.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(other.tokens_per_minute),
            requests_per_day: self.requests_per_day.or(other.requests_per_day),
            parallel_requests: self.parallel_requests.or(other.parallel_requests),
            token_budget: self.token_budget.or(other.token_budget),
            budget_days: self.budget_days.or(other.budget_days),
        }
    }

    /// What is wrong with them, if something is.
    pub fn fault(&self) -> Option<&'static str> {
        let too_much = |limit: Option<u64>| limit.is_some_and(|limit| limit > 1 << 50);
        let all =
            [self.requests_per_minute, self.tokens_per_minute, self.requests_per_day, self.parallel_requests];
        if all.into_iter().chain([self.token_budget]).any(too_much) {
            return Some("a limit is at most 2^50");
        }
        if self.budget_days.is_some_and(|days| !(1..=366).contains(&days)) {
            return Some("budget_days is from 1 to 366");
        }
        None
    }

    /// The rules that count requests.
    pub(crate) fn of_requests(&self) -> Vec<Rule> {
        let rules = [
            (Kind::MinuteRequests, self.requests_per_minute, MINUTE),
            (Kind::DayRequests, self.requests_per_day, DAY),
        ];
        Self::set(rules)
    }

    /// The rules that count tokens.
    pub(crate) fn of_tokens(&self) -> Vec<Rule> {
        let period = self.budget_days.unwrap_or(BUDGET_DAYS) * DAY;
        let rules =
            [(Kind::MinuteTokens, self.tokens_per_minute, MINUTE), (Kind::Budget, self.token_budget, period)];
        Self::set(rules)
    }

    fn set(rules: [(Kind, Option<u64>, u64); 2]) -> Vec<Rule> {
        let rule = |(kind, limit, span): (Kind, Option<u64>, u64)| Some(Rule { kind, limit: limit?, span });
        rules.into_iter().filter_map(rule).collect()
    }
}
