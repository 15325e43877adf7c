//! The accept loop: connections, their time limits, and the end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
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
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::access::Access;
use crate::auth::Peer;
use crate::batch::batches;
use crate::batch::store::Store;
use crate::config::{Config, Reload};
use crate::connection::Timed;
use crate::limits;
use crate::router::{gate, router};
use crate::state::App;
use crate::tls::acceptor;
use crate::trace::Trace;

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
    /// Keys, limits or usage cannot be kept.
    #[error("{0}")]
    Access(String),
    /// The collector of traces cannot be used.
    #[error("traces: {0}")]
    Trace(String),
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

/// Between two looks at models that nobody asks for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// For connections to be closed in order, when all is answered.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
    let tls = config.tls.as_ref().map(acceptor).transpose()?;
    let store = config.data.as_ref().map(|folder| open_store(folder)).transpose()?;
    let access = match &config.access {
        Some(access) => Some(Access::open(access).await.map_err(ServeError::Access)?),
        None => None,
    };
    let trace = config.trace.as_ref().map(Trace::start).transpose().map_err(ServeError::Trace)?;
    let app = App::new(config, store, access, trace);
    if let Some(access) = &app.access {
        access.start();
    }
    if let Some(reload) = app.config.reload.clone() {
        tokio::spawn(follow(app.clone(), reload));
    }
    let gate = gate(app.clone());
    batches::resume(&gate);
    let server = Server {
        routes: router(gate),
        tls,
        http: http(),
        slots: Arc::new(Semaphore::new(limits::CONNECTIONS)),
    };
    let connections = GracefulShutdown::new();
    let mut loading = std::pin::pin!(load_default(&app));
    let mut shutdown = std::pin::pin!(shutdown);
    let mut loaded = false;
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            result = &mut loading, if !loaded => { loaded = true; result? }
            _ = housekeeping.tick() => app.models.unload_idle(),
            () = server.accept(&listener, &connections) => {}
        }
    }
    app.drain();
    // Whoever asks now is told so, until the last request that runs has its answer.
    let deadline = tokio::time::sleep(grace);
    let mut deadline = std::pin::pin!(deadline);
    let mut last = std::pin::pin!(app.in_flight.none());
    loop {
        tokio::select! {
            () = &mut last => break,
            () = &mut deadline => break,
            () = server.accept(&listener, &connections) => {}
        }
    }
    drop(listener);
    // Connections without a request are closed at once; what is left is cut off.
    let _ = tokio::time::timeout(LAST_WORDS, connections.shutdown()).await;
    if let Some(access) = &app.access {
        access.end().await;
    }
    if let Some(trace) = &app.trace {
        trace.end().await;
    }
    Ok(())
}

/// Takes over each new configuration.
async fn follow(app: App, mut reload: watch::Receiver<Reload>) {
    while reload.changed().await.is_ok() {
        let new = reload.borrow_and_update().clone();
        app.reload(new).await;
    }
}

/// What connections are served with.
struct Server {
    routes: Router,
    tls: Option<TlsAcceptor>,
    http: Builder<TokioExecutor>,
    slots: Arc<Semaphore>,
}

fn http() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits::HEAD_TIME).max_buf_size(limits::HEAD);
    let mut http2 = http.http2();
    http2.timer(TokioTimer::new()).max_header_list_size(limits::HEAD as u32);
    http2.keep_alive_interval(limits::PING).keep_alive_timeout(limits::PING);
    http
}

impl Server {
    /// Takes the next connection, once there is room for one more, and serves it by itself.
    async fn accept(&self, listener: &TcpListener, connections: &GracefulShutdown) {
        // The semaphore is never closed.
        let Ok(permit) = self.slots.clone().acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            return tokio::time::sleep(ACCEPT_PAUSE).await;
        };
        // Tokens are small and must not wait for each other; a socket that refuses is served as it is.
        let _ = stream.set_nodelay(true);
        let (routes, http, watcher) = (self.routes.clone(), self.http.clone(), connections.watcher());
        let tls = self.tls.clone();
        tokio::spawn(async move {
            match tls {
                None => serve_connection(stream, peer, routes, &http, watcher).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(limits::HEAD_TIME, tls.accept(stream)).await
                    {
                        serve_connection(stream, peer, routes, &http, watcher).await;
                    }
                }
            }
            drop(permit);
        });
    }
}

fn open_store(folder: &Path) -> Result<Store, ServeError> {
    Store::open(folder).map_err(|source| ServeError::Data { folder: folder.to_owned(), source })
}

async fn load_default(app: &App) -> Result<(), ServeError> {
    app.models.get(None).await.map(drop).map_err(|error| ServeError::Model(error.message))
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    routes: Router,
    http: &Builder<TokioExecutor>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let routes = routes.clone();
        request.extensions_mut().insert(Peer(peer.ip()));
        async move { Ok::<_, Infallible>(routes.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http.serve_connection_with_upgrades(TokioIo::new(Timed::new(stream)), service);
    // A connection that breaks is the client's affair.
    let _ = watcher.watch(connection).await;
}
