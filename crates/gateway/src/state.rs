//! What all routes share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;

use crate::batch::batches::Running;
use crate::batch::store::Store;
use crate::config::Config;
use crate::in_flight::InFlight;
use crate::metrics::Metrics;
use crate::models::Models;

/// What all routes share.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) models: Models,
    pub(crate) config: Arc<Config>,
    pub(crate) metrics: Arc<Metrics>,
    /// Files and batches, where they are kept.
    pub(crate) store: Option<Store>,
    pub(crate) batches: Running,
    pub(crate) started: Instant,
    pub(crate) in_flight: InFlight,
    draining: AtomicBool,
}

/// What sends requests of its own through the routes needs.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) app: App,
    /// All routes of plain HTTP.
    pub(crate) api: Router,
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    pub(crate) fn new(config: Config, store: Option<Store>) -> Self {
        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::new());
        Self(Arc::new(Inner {
            models: Models::new(config.clone(), metrics.clone()),
            config,
            metrics,
            store,
            batches: Running::default(),
            started: Instant::now(),
            in_flight: InFlight::new(),
            draining: AtomicBool::new(false),
        }))
    }
}

impl Inner {
    /// From now on no request is taken.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the server is about to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
