//! `/metrics`: what a server did, in the OpenMetrics text format. Labels are bounded: routes of the router, names of the
//! configuration, status codes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use engine::scheduler::{Event, Stepped, Usage};
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::access::Access;
use crate::engine_thread::Gauges;
use crate::error::ApiError;
use crate::models::Slot;
use crate::state::App;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

/// Buckets of times, from `first` seconds on, each twice as long as the one before.
#[derive(Clone)]
struct Buckets {
    first: f64,
    n: u16,
}

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(self.first, 2.0, self.n))
    }
}

type Times<L> = Family<L, Histogram, Buckets>;

/// All metrics of a server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RouteLabels, Counter>,
    request_seconds: Times<RouteLabels>,
    prompt_tokens: Family<ModelLabels, Counter>,
    cached_tokens: Family<ModelLabels, Counter>,
    completion_tokens: Family<ModelLabels, Counter>,
    cancelled: Family<ModelLabels, Counter>,
    refused: Family<ModelLabels, Counter>,
    first_token: Times<ModelLabels>,
    inter_token: Times<ModelLabels>,
    queue_seconds: Times<ModelLabels>,
    batch_tokens: Times<ModelLabels>,
    running: Family<ModelLabels, Gauge>,
    waiting: Family<ModelLabels, Gauge>,
    kv_pages: Family<ModelLabels, Gauge>,
    kv_pages_remembered: Family<ModelLabels, Gauge>,
    kv_pages_limit: Family<ModelLabels, Gauge>,
    loaded: Family<ModelLabels, Gauge>,
    usage_pending: Gauge,
    database_up: Gauge,
    redis_up: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let times = |first, n| Family::new_with_constructor(Buckets { first, n });
        let mut metrics = Self {
            registry: Registry::with_prefix("edgellm"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(Buckets { first: 0.001, n: 18 }),
            prompt_tokens: Family::default(),
            cached_tokens: Family::default(),
            completion_tokens: Family::default(),
            cancelled: Family::default(),
            refused: Family::default(),
            first_token: times(0.001, 18),
            inter_token: times(0.000_5, 14),
            queue_seconds: times(0.000_1, 20),
            batch_tokens: times(1.0, 9),
            running: Family::default(),
            waiting: Family::default(),
            kv_pages: Family::default(),
            kv_pages_remembered: Family::default(),
            kv_pages_limit: Family::default(),
            loaded: Family::default(),
            usage_pending: Gauge::default(),
            database_up: Gauge::default(),
            redis_up: Gauge::default(),
        };
        let m = &mut metrics;
        let r = &mut m.registry;
        r.register("requests", "Requests by route and status", m.requests.clone());
        r.register("request_seconds", "Time to the head of the answer", m.request_seconds.clone());
        r.register("prompt_tokens", "Tokens of prompts", m.prompt_tokens.clone());
        r.register("cached_prompt_tokens", "Tokens of prompts that were known", m.cached_tokens.clone());
        r.register("completion_tokens", "Tokens generated", m.completion_tokens.clone());
        r.register("cancelled", "Jobs whose client has gone", m.cancelled.clone());
        r.register("refused", "Jobs that were not taken", m.refused.clone());
        r.register(
            "time_to_first_token_seconds",
            "From the arrival to the first token",
            m.first_token.clone(),
        );
        r.register("inter_token_seconds", "From token to token", m.inter_token.clone());
        r.register("queue_seconds", "From the arrival to the first step", m.queue_seconds.clone());
        r.register("batch_tokens", "Tokens of a step", m.batch_tokens.clone());
        r.register("running", "Sequences that run", m.running.clone());
        r.register("waiting", "Sequences that wait", m.waiting.clone());
        r.register("kv_pages", "Pages of keys and values in use", m.kv_pages.clone());
        r.register("kv_pages_remembered", "Pages kept for prompts to come", m.kv_pages_remembered.clone());
        r.register("kv_pages_limit", "Pages that there may be", m.kv_pages_limit.clone());
        r.register("model_loaded", "Whether a model is loaded", m.loaded.clone());
        r.register("usage_pending", "Usage records on their way to the database", m.usage_pending.clone());
        r.register("database_up", "Whether the database of keys and usage answers", m.database_up.clone());
        r.register("redis_up", "Whether the Redis of the limits answers", m.redis_up.clone());
        metrics
    }

    /// Models that are gone have nothing left.
    pub(crate) fn forget(&self, gone: &[Arc<Slot>]) {
        gone.iter().for_each(|slot| self.set_gauges(&slot.source.name, None));
    }

    /// What stands behind a server that asks who is there.
    fn set_access(&self, access: &Access) {
        self.usage_pending.set(i64::try_from(access.journal.pending()).unwrap_or(i64::MAX));
        self.database_up.set(access.database_answers().into());
        self.redis_up.set(access.limiter.shared_answers().unwrap_or(false).into());
    }

    /// The metrics of one model, for its thread.
    pub(crate) fn of_model(&self, name: &str) -> ModelMetrics {
        let labels = ModelLabels { model: name.to_owned() };
        let counter = |family: &Family<ModelLabels, Counter>| family.get_or_create_owned(&labels);
        let times = |family: &Times<ModelLabels>| family.get_or_create_owned(&labels);
        ModelMetrics {
            prompt_tokens: counter(&self.prompt_tokens),
            cached_tokens: counter(&self.cached_tokens),
            completion_tokens: counter(&self.completion_tokens),
            cancelled: counter(&self.cancelled),
            refused: counter(&self.refused),
            first_token: times(&self.first_token),
            inter_token: times(&self.inter_token),
            queue_seconds: times(&self.queue_seconds),
            batch_tokens: times(&self.batch_tokens),
        }
    }

    fn set_gauges(&self, name: &str, gauges: Option<&Gauges>) {
        let labels = ModelLabels { model: name.to_owned() };
        let set = |family: &Family<ModelLabels, Gauge>, value: usize| {
            family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let idle = Gauges::default();
        set(&self.loaded, usize::from(gauges.is_some()));
        let gauges = gauges.unwrap_or(&idle);
        let all = [
            (&self.running, &gauges.running),
            (&self.waiting, &gauges.waiting),
            (&self.kv_pages, &gauges.pages),
            (&self.kv_pages_remembered, &gauges.remembered_pages),
            (&self.kv_pages_limit, &gauges.page_limit),
        ];
        all.into_iter().for_each(|(family, gauge)| set(family, gauge.load(Ordering::Relaxed)));
    }
}

/// The metrics of one model.
#[derive(Debug)]
pub(crate) struct ModelMetrics {
    prompt_tokens: Counter,
    cached_tokens: Counter,
    completion_tokens: Counter,
    cancelled: Counter,
    refused: Counter,
    first_token: Histogram,
    inter_token: Histogram,
    queue_seconds: Histogram,
    batch_tokens: Histogram,
}

/// When a job came, and when its last token did.
#[derive(Debug)]
pub(crate) struct Clock {
    arrived: Instant,
    last: Option<Instant>,
}

impl Clock {
    /// Of a job that comes now.
    pub(crate) fn start() -> Self {
        Self { arrived: Instant::now(), last: None }
    }
}

impl ModelMetrics {
    /// Something happened to a job.
    pub(crate) fn event(&self, clock: &mut Clock, event: &Event) {
        match event {
            Event::Token { .. } => {
                let now = Instant::now();
                match clock.last.replace(now) {
                    None => self.first_token.observe((now - clock.arrived).as_secs_f64()),
                    Some(last) => self.inter_token.observe((now - last).as_secs_f64()),
                }
            }
            Event::Finished { usage, .. } | Event::Embedded { usage, .. } => self.used(usage),
            Event::Prompt(_) | Event::Failed(_) => {}
        }
    }

    fn used(&self, usage: &Usage) {
        self.prompt_tokens.inc_by(usage.prompt_tokens as u64);
        self.cached_tokens.inc_by(usage.cached_tokens as u64);
        self.completion_tokens.inc_by(usage.completion_tokens as u64);
        self.queue_seconds.observe(usage.queued.as_secs_f64());
    }

    /// A step was run.
    pub(crate) fn step(&self, step: Stepped) {
        self.batch_tokens.observe((step.answers + step.prompt_tokens) as f64);
    }

    /// Clients have gone.
    pub(crate) fn cancelled(&self, jobs: usize) {
        self.cancelled.inc_by(jobs as u64);
    }

    /// A job was not taken.
    pub(crate) fn refused(&self) {
        self.refused.inc();
    }
}

/// Counts requests.
pub(crate) async fn count(
    app: &App,
    request: Request,
    answer: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = answer(request).await;
    app.metrics.answered(route, response.status().as_u16(), started.elapsed());
    response
}

impl Metrics {
    fn answered(&self, route: String, status: u16, time: Duration) {
        let labels = RouteLabels { route, status };
        self.requests.get_or_create(&labels).inc();
        self.request_seconds.get_or_create(&labels).observe(time.as_secs_f64());
    }
}

/// All metrics as text.
pub(crate) async fn show(State(app): State<App>) -> Response {
    for slot in app.models.slots().iter() {
        let gauges = slot.loaded().map(|handle| Arc::clone(&handle.gauges));
        app.metrics.set_gauges(&slot.source.name, gauges.as_deref());
    }
    if let Some(access) = &app.access {
        app.metrics.set_access(access);
    }
    let mut text = String::new();
    if encode(&mut text, &app.metrics.registry).is_err() {
        return ApiError::internal("The metrics cannot be written").into_response();
    }
    let media_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}
