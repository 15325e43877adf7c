//! The accept loop: connections, their time limits, and the end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::config::Config;
use crate::limits;
use crate::router::router;
use crate::state::App;

/// Why a server could not be run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The default model could not be loaded.
    #[error("{0}")]
    Model(String),
    /// Certificate or key cannot be used.
    #[error("{file}: {problem}", file = file.display())]
    Tls {
        /// Which file.
        file: std::path::PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Files and batches cannot be kept.
    #[error("{folder}: {source}", folder = folder.display())]
    Data {
        /// Where.
        folder: std::path::PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// After a failure to accept, which is the system's lack of something, it gets this long to recover.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` is ready, then lets running requests finish for at most the grace period.
///
/// # Errors
/// The default model cannot be loaded; see [`ServeError`].
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let grace = config.grace;
    let app = App::new(config);
    let routes = router(app.clone());
    let connections = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits::HEAD_TIME).max_buf_size(limits::HEAD);
    http.http2().timer(TokioTimer::new()).max_header_list_size(limits::HEAD as u32);
    let mut loading = std::pin::pin!(load_default(&app));
    let mut shutdown = std::pin::pin!(shutdown);
    let mut loaded = false;
    let mut housekeeping = tokio::time::interval(Duration::from_secs(5));
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            result = &mut loading, if !loaded => { loaded = true; result?; continue }
            _ = housekeeping.tick() => { app.models.unload_idle(); continue }
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, permit)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (routes, http, watcher) = (routes.clone(), http.clone(), connections.watcher());
        tokio::spawn(async move {
            serve_connection(stream, routes, &http, watcher).await;
            drop(permit);
        });
    }
    app.drain();
    drop(listener);
    // A client that does not finish in time is cut off: that is what the grace period is for.
    let _ = tokio::time::timeout(grace, async {
        connections.shutdown().await;
        app.sessions_over().await;
    })
    .await;
    Ok(())
}

async fn load_default(app: &App) -> Result<(), ServeError> {
    app.models.get(None).await.map(drop).map_err(|error| ServeError::Model(error.message))
}

/// A connection, once there is room for one more.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = slots.clone().acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    // Tokens are small and must not wait for each other; a socket that refuses is served as it is.
    let _ = stream.set_nodelay(true);
    Some((stream, permit))
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
    http: &Builder<TokioExecutor>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let routes = routes.clone();
        async move { Ok::<_, Infallible>(routes.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service);
    // A connection that breaks is the client's affair.
    let _ = watcher.watch(connection).await;
}
