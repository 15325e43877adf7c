//! What all routes share.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedRwLockReadGuard, RwLock, watch};

use crate::config::Config;
use crate::models::Models;

/// What all routes share.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) models: Models,
    pub(crate) config: Arc<Config>,
    pub(crate) started: Instant,
    draining: watch::Sender<bool>,
    /// Held by each connection that is no longer HTTP.
    sessions: Arc<RwLock<()>>,
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    pub(crate) fn new(config: Config) -> Self {
        let config = Arc::new(config);
        Self(Arc::new(Inner {
            models: Models::new(config.clone()),
            config,
            started: Instant::now(),
            draining: watch::Sender::new(false),
            sessions: Arc::default(),
        }))
    }
}

impl Inner {
    /// From now on no request is taken.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether the server is about to stop.
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Tells when the server is about to stop.
    pub(crate) fn drained(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Keeps the server from stopping, within its grace period, until it is dropped.
    pub(crate) async fn session(&self) -> OwnedRwLockReadGuard<()> {
        self.sessions.clone().read_owned().await
    }

    /// Waits until no session is left.
    pub(crate) async fn sessions_over(&self) {
        drop(self.sessions.write().await);
    }
}
