//! A line of JSON for each request. What was asked, what was answered and who has which key is not in it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use chrono::{SecondsFormat, Utc};
use serde_json::json;

/// Which requests are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// None.
    Off,
    /// Those that the server could not answer (5xx).
    Error,
    /// Those that were refused too (4xx).
    Warn,
    /// All.
    Info,
}

/// Where lines go; the function must not block for long.
#[derive(Clone)]
pub struct Log {
    /// Which requests are told.
    pub level: Level,
    /// Takes a line.
    pub sink: Arc<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("level", &self.level).finish_non_exhaustive()
    }
}

/// Whose request it was: goes from the layer that knows to the one that tells.
#[derive(Clone)]
pub(crate) struct Who(pub(crate) Arc<str>);

/// What is told of a request.
pub(crate) struct Told<'r> {
    pub(crate) id: &'r str,
    pub(crate) method: &'r Method,
    /// The route as the router has it: the path itself may hold anything.
    pub(crate) route: &'r str,
    pub(crate) status: StatusCode,
    pub(crate) who: Option<&'r Who>,
    /// From its arrival to the head of its answer.
    pub(crate) time: Duration,
}

impl Log {
    /// Tells of a request whose answer begins.
    pub(crate) fn request(&self, told: &Told<'_>) {
        let (level, word) = match told.status.as_u16() {
            500.. => (Level::Error, "error"),
            400.. => (Level::Warn, "warn"),
            _ => (Level::Info, "info"),
        };
        if level > self.level {
            return;
        }
        let line = json!({
            "time": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            "level": word,
            "request_id": told.id,
            "method": told.method.as_str(),
            "route": told.route,
            "status": told.status.as_u16(),
            "ms": told.time.as_micros() as f64 / 1000.0,
            "subject": told.who.map(|who| &*who.0),
        });
        (self.sink)(&line.to_string());
    }
}
