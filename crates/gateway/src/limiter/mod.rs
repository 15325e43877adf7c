//! Who may ask how much: requests and tokens a minute, requests a day, requests at a time, a budget of tokens.
//!
//! What counts requests is taken before a request is read, what counts tokens when its prompt is known: then its tokens
//! and those that it may generate at most are taken, and when it has ended the difference is given back. In one instance
//! all of this is under one lock a key; several instances share it through Redis ([`shared`]), where each of the two
//! steps is one round trip. What is known of the past comes back from the usage records at a start.

mod address;
mod meter;
mod rules;
mod shared;
mod standing;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use address::Addresses;
pub(crate) use meter::Meter;
pub use rules::Limits;
pub(crate) use rules::{Kind, Rule};
use shared::Shared;
pub(crate) use standing::{Full, Standing};

use crate::auth::settings::Outage;
use crate::error::ApiError;
use crate::ids;

/// What decides: this instance's memory, or Redis.
pub(crate) struct Limiter {
    shared: Option<Shared>,
    outage: Outage,
    /// Whether Redis answered the last question.
    shared_answers: AtomicBool,
}

/// What was taken, and stands in the window until it is settled or too old.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Milliseconds since 1970, by the clock of whoever counted.
    at: u64,
    cost: u64,
    /// Where it was counted.
    is_shared: bool,
    /// How it stands with each of the rules.
    pub(crate) standings: Vec<Standing>,
}

impl Limiter {
    /// A limiter of one instance, or with Redis one of many.
    ///
    /// # Errors
    /// The address of Redis is none.
    pub(crate) fn new(redis: Option<&str>, outage: Outage) -> Result<Self, String> {
        let shared = redis.map(Shared::new).transpose()?;
        Ok(Self { shared, outage, shared_answers: AtomicBool::new(true) })
    }

    /// Whether Redis answered when it was asked last; `None` without Redis.
    pub(crate) fn shared_answers(&self) -> Option<bool> {
        self.shared.as_ref().map(|_| self.shared_answers.load(Ordering::Relaxed))
    }

    /// Asks Redis whether it is there, so that its return is noticed while nobody asks for anything.
    pub(crate) async fn look(&self) {
        if let Some(shared) = &self.shared {
            self.shared_answers.store(shared.answers().await, Ordering::Relaxed);
        }
    }

    /// Takes `cost` under all of these rules, or nothing.
    ///
    /// # Errors
    /// 429 that says what is used up; 503 when Redis is gone and the configuration says to refuse then.
    pub(crate) async fn take(&self, meter: &Meter, rules: &[Rule], cost: u64) -> Result<Taken, ApiError> {
        if rules.is_empty() {
            return Ok(Taken { at: 0, cost: 0, is_shared: false, standings: Vec::new() });
        }
        if let Some(shared) = &self.shared {
            match self.heard(shared.take(meter.name(), rules, cost).await)? {
                Some(Ok(taken)) => return Ok(taken),
                Some(Err(full)) => return Err(full.into()),
                None => {}
            }
        }
        meter.take(rules, cost, ids::now_millis()).map_err(ApiError::from)
    }

    /// Takes one of the places for requests at a time, until the guard is dropped.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) async fn enter(&self, meter: &Arc<Meter>, places: Option<u64>) -> Result<Place, ApiError> {
        let Some(places) = places else { return Ok(Place(None)) };
        if let Some(shared) = &self.shared {
            match self.heard(shared.enter(meter.name(), places).await)? {
                Some(Some(lease)) => return Ok(Place(Some(Held::Shared(shared.clone(), lease)))),
                Some(None) => return Err(Full::places(places).into()),
                None => {}
            }
        }
        if meter.enter(places) {
            Ok(Place(Some(Held::Own(meter.clone()))))
        } else {
            Err(Full::places(places).into())
        }
    }

    /// What was taken turned out to be `actual`.
    pub(crate) fn settle(&self, meter: &Meter, rules: &[Rule], taken: &Taken, actual: u64) {
        if rules.is_empty() || taken.cost == actual {
            return;
        }
        match &self.shared {
            Some(shared) if taken.is_shared => shared.settle(meter.name(), rules, taken, actual),
            _ => meter.settle(taken.at, taken.cost, actual, ids::now_millis()),
        }
    }

    /// What Redis said; `None` when it is gone and this instance decides alone.
    fn heard<T>(&self, said: Result<T, redis::RedisError>) -> Result<Option<T>, ApiError> {
        self.shared_answers.store(said.is_ok(), Ordering::Relaxed);
        match (said, self.outage) {
            (Ok(said), _) => Ok(Some(said)),
            (Err(_), Outage::Open) => Ok(None),
            (Err(_), Outage::Closed) => {
                Err(ApiError::unavailable("The limits cannot be checked: Redis does not answer"))
            }
        }
    }
}

/// A place among the requests at a time.
pub(crate) struct Place(Option<Held>);

enum Held {
    Own(Arc<Meter>),
    Shared(Shared, String),
}

impl Drop for Place {
    fn drop(&mut self) {
        match self.0.take() {
            Some(Held::Own(meter)) => meter.leave(),
            Some(Held::Shared(shared, lease)) => shared.leave(lease),
            None => {}
        }
    }
}
