//! What all routes share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::access::Access;
use crate::batch::batches::Running;
use crate::batch::store::Store;
use crate::config::{Config, Reload};
use crate::error::ApiError;
use crate::in_flight::InFlight;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::trace::Trace;

/// What all routes share.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) models: Models,
    pub(crate) config: Arc<Config>,
    pub(crate) metrics: Arc<Metrics>,
    /// Who may ask; everybody for `None`.
    pub(crate) access: Option<Arc<Access>>,
    /// Where requests are traced.
    pub(crate) trace: Option<Trace>,
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
    /// Files and batches, where they are kept: those of one owner, if it stands for one.
    pub(crate) store: Option<Store>,
}

impl Gate {
    /// What stands for somebody after the request that has asked for it: his part of the files, and routes that take
    /// requests in his name as long as he may ask.
    pub(crate) fn on_behalf_of(&self, subject: &str, store: Store) -> Self {
        let who = StandIn { app: self.app.clone(), subject: subject.into() };
        let api = self.api.clone().layer(from_fn_with_state(who, stand_in));
        Self { app: self.app.clone(), api, store: Some(store) }
    }
}

/// In whose name requests are sent.
#[derive(Clone)]
struct StandIn {
    app: App,
    subject: Arc<str>,
}

async fn stand_in(State(who): State<StandIn>, mut request: Request, next: Next) -> Response {
    let access = who.app.access.as_ref();
    match access.and_then(|access| access.identity_of(&who.subject)) {
        Some(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        None => ApiError::unauthorized("The key that has asked for this may ask no more").into_response(),
    }
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    pub(crate) fn new(
        config: Config,
        store: Option<Store>,
        access: Option<Arc<Access>>,
        trace: Option<Trace>,
    ) -> Self {
        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::new());
        Self(Arc::new(Inner {
            models: Models::new(config.clone(), metrics.clone()),
            config,
            metrics,
            access,
            trace,
            store,
            batches: Running::default(),
            started: Instant::now(),
            in_flight: InFlight::new(),
            draining: AtomicBool::new(false),
        }))
    }
}

impl Inner {
    /// Takes over what the configuration says now, and loads the model that is the default one now.
    pub(crate) async fn reload(&self, reload: Reload) {
        if let Some(access) = &self.access {
            access.set_limits(reload.limits);
        }
        if !reload.models.is_empty() {
            let gone = self.models.replace(reload.models);
            self.metrics.forget(&gone);
            gone.iter().for_each(|slot| slot.unload());
            // Why it cannot be loaded is told by /health, and to whoever asks for it.
            let _ = self.models.get(None).await;
        }
    }

    /// From now on no request is taken.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the server is about to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
