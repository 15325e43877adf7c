//! What one key has used, counted in this instance.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Taken;
use super::rules::{Kind, Rule};
use super::standing::{Full, Standing};
use super::window::Window;

/// The counters of a key, or of a key and a model.
#[derive(Debug)]
pub(crate) struct Meter {
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// One for each kind of rule, made when it is first counted.
    windows: [Option<Box<Window>>; Kind::ALL.len()],
    running: u64,
}

impl State {
    /// The window of a rule. One over another span, as after a change of the budget's period, begins anew.
    fn window(&mut self, rule: &Rule) -> &mut Window {
        let fresh = || Box::new(Window::new(rule.span));
        let window = self.windows[rule.kind.index()].get_or_insert_with(fresh);
        if window.span() != rule.span {
            **window = Window::new(rule.span);
        }
        window
    }

    fn standing(&mut self, rule: &Rule, now: u64) -> Standing {
        let window = self.window(rule);
        let remaining = rule.limit.saturating_sub(window.used(now));
        Standing { kind: rule.kind, limit: rule.limit, remaining, reset: window.reset(now) }
    }
}

impl Meter {
    /// Nothing was used.
    pub(crate) fn new(name: String) -> Self {
        Self { name, state: Mutex::default() }
    }

    /// What Redis counts it under.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `cost` under all rules, or nothing.
    ///
    /// # Errors
    /// The first rule under which it does not fit.
    pub(super) fn take(&self, rules: &[Rule], cost: u64, now: u64) -> Result<Taken, Full> {
        let mut state = self.state();
        for rule in rules {
            let window = state.window(rule);
            if window.used(now) + cost > rule.limit {
                let wait = window.wait(now, rule.limit, cost);
                return Err(Full::rule(rule, cost, state.standing(rule, now), wait));
            }
        }
        for rule in rules {
            state.window(rule).add(now, cost);
        }
        let standings = rules.iter().map(|rule| state.standing(rule, now)).collect();
        Ok(Taken { at: now, cost, is_shared: false, standings })
    }

    /// Tokens that were taken turned out to be `actual`.
    pub(super) fn settle(&self, then: u64, taken: u64, actual: u64, now: u64) {
        let mut state = self.state();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.counts_tokens()) {
            if let Some(window) = &mut state.windows[kind.index()] {
                window.settle(then, taken, actual, now);
            }
        }
    }

    /// Counts what was used before this instance began.
    pub(crate) fn remember(&self, rule: &Rule, at: u64, cost: u64) {
        self.state().window(rule).add(at, cost);
    }

    /// Whether nothing is counted any more.
    pub(crate) fn is_idle(&self, now: u64) -> bool {
        let mut state = self.state();
        state.running == 0 && state.windows.iter_mut().flatten().all(|window| window.used(now) == 0)
    }

    /// Takes one of so many places; false when all are taken.
    pub(super) fn enter(&self, places: u64) -> bool {
        let mut state = self.state();
        let is_free = state.running < places;
        state.running += u64::from(is_free);
        is_free
    }

    /// Leaves it.
    pub(super) fn leave(&self) {
        self.state().running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Limits;
    use super::*;

    #[test]
    fn under_many_threads_exactly_the_limit_is_taken() {
        let limits =
            Limits { requests_per_minute: Some(10), requests_per_day: Some(1000), ..Limits::default() };
        for round in 0..20 {
            let meter = Arc::new(Meter::new("key".to_owned()));
            let threads = (0..64).map(|_| {
                let meter = meter.clone();
                std::thread::spawn(move || meter.take(&limits.of_requests(), 1, 1_000_000 + round).is_ok())
            });
            let threads: Vec<_> = threads.collect();
            let admitted =
                threads.into_iter().filter(|_| true).map(|t| t.join().unwrap()).filter(|ok| *ok).count();
            assert_eq!(admitted, 10);
        }
    }

    #[test]
    fn what_one_rule_refuses_is_counted_under_none() {
        let limits = Limits { tokens_per_minute: Some(100), token_budget: Some(30), ..Limits::default() };
        let (meter, rules) = (Meter::new("key".to_owned()), limits.of_tokens());
        let first = meter.take(&rules, 20, 1_000_000).unwrap();
        assert!(meter.take(&rules, 20, 1_000_000).is_err(), "the budget");
        assert_eq!(first.standings[0].remaining, 80);
        meter.settle(first.at, first.cost, 5, 1_000_500);
        let again = meter.take(&rules, 20, 1_001_000).unwrap();
        assert_eq!(again.standings.iter().map(|s| s.remaining).collect::<Vec<_>>(), [75, 5]);
        assert_eq!(meter.take(&rules, 101, 1_001_000).unwrap_err(), {
            // The window looks back over its minute and the second that is being filled.
            let standing = Standing { kind: Kind::MinuteTokens, limit: 100, remaining: 75, reset: 61_000 };
            Full::rule(&rules[0], 101, standing, None)
        });
    }

    #[test]
    fn places_are_left_again() {
        let meter = Meter::new("key".to_owned());
        assert!(meter.enter(2) && meter.enter(2) && !meter.enter(2));
        meter.leave();
        assert!(meter.enter(2));
    }
}
