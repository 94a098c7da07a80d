//! Starting and stopping a server.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use lacuna_contract::{ContractSet, LoadErrors};
use lacuna_store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::connections::Counted;
use crate::gate::Gate;
use crate::ingest::Ingest;
use crate::live::Live;
use crate::otlp::{cors, grpc, http};
use crate::telemetry::Telemetry;
use crate::{api, jaeger, notify, search};

/// HTTP/2 flow-control windows of a connection, least and most: what a sender may send that nobody has
/// read yet. A stream has a quarter. The protocol's default of 64 KiB would stop a sender of 1 MiB
/// batches sixteen times a batch.
const CONNECTION_WINDOW: (u64, u64) = (1 << 20, 16 << 20);

/// Connections that are still busy this long after a stop are cut.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Why a server did not start. One line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A port is taken, or an address is not this machine's.
    #[error("cannot listen on {addr} for {what}: {source}; choose another with {flag}")]
    Listen {
        /// What would have listened.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// The command-line flag that changes it.
        flag: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The contracts cannot be used. Each error has its own report.
    #[error("{}: the contracts cannot be used", dir.display())]
    Contracts {
        /// The folder of contract files.
        dir: PathBuf,
        /// What is wrong, file by file.
        #[source]
        errors: Box<LoadErrors>,
    },
    /// A channel cannot be used.
    #[error(transparent)]
    Channel(#[from] notify::ChannelError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// A running server. Dropping it stops nothing; call [`Server::stop`].
pub struct Server {
    /// Where OTLP/gRPC is taken.
    pub otlp_grpc: SocketAddr,
    /// Where OTLP/HTTP is taken.
    pub otlp_http: SocketAddr,
    /// Where queries are answered.
    pub query: SocketAddr,
    store: Store,
    live: Arc<Live>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("query", &self.query).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens the store, loads the contracts and listens. All ports answer when this returns; what
    /// the contracts need of history is read meanwhile ([`Server::ready`]).
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let contracts = match &config.contracts_dir {
            None => ContractSet::default(),
            Some(dir) => ContractSet::load_dir(dir).map_err(|errors| StartError::Contracts {
                dir: dir.clone(),
                errors: Box::new(errors),
            })?,
        };
        if let (Some(age), Some(dir)) = (config.retention_age, &config.contracts_dir) {
            let errors = contracts.beyond_retention(age);
            if !errors.is_empty() {
                let errors = Box::new(LoadErrors { errors });
                return Err(StartError::Contracts { dir: dir.clone(), errors });
            }
        }
        // Ports first: that another server runs is the likeliest mistake, and the cheapest to see.
        let (grpc_listener, otlp_grpc) =
            listen("OTLP/gRPC", config.otlp_grpc, "--otlp-grpc").await?;
        let (http_listener, otlp_http) =
            listen("OTLP/HTTP", config.otlp_http, "--otlp-http").await?;
        let (query_listener, query) = listen("queries", config.query, "--query").await?;

        for url in config.alertmanagers.iter().chain(&config.webhooks) {
            notify::check_url(url)?;
        }
        let base = match &config.external_url {
            Some(url) => notify::check_base(url)?,
            None => format!("http://{query}"),
        };
        let store = Store::open(&config.data_dir, config.store_options())?;
        let telemetry = Arc::new(Telemetry::default());
        let live =
            Live::start(&config, contracts, &store, &telemetry).map_err(StartError::Thread)?;
        let ingest = Ingest::new(store.clone(), live.clone(), Arc::clone(&telemetry), &config);

        let (stop, stopped) = watch::channel(false);
        let channels = notify::start(&config, &live, &telemetry, &base, &stopped)?;
        let gate = Gate::default();
        let most = config.max_connections;
        let counted = |listener, port| Counted::new(listener, most, telemetry.connections(port));
        let grpc_listener = counted(grpc_listener, "otlp_grpc");
        let http_listener = counted(http_listener, "otlp_http");
        let query_listener = counted(query_listener, "query");
        let receiver = cors::allow(http::router(ingest.clone()), &config.cors_origins);
        let kept = config.retention_age;
        let routes = api::router(store.clone(), Arc::clone(&live), telemetry, &base, kept)
            .merge(crate::export::router(store.clone()))
            .merge(crate::explain::router(store.clone(), Arc::clone(&live)))
            .merge(jaeger::JaegerApi::new(Arc::new(store.clone())).with_gate(gate.clone()).router())
            .merge(crate::series::router(store.clone(), gate.clone()))
            .merge(search::router(store.clone(), gate));
        let mut tasks = channels;
        tasks.extend([
            serve_grpc(grpc_listener, ingest, config.memory_limit, stopped.clone()),
            serve_http(http_listener, receiver, stopped.clone()),
            serve_http(query_listener, routes, stopped),
        ]);
        Ok(Self { otlp_grpc, otlp_http, query, store, live, stop, tasks })
    }

    /// Returns when the monitor knows what it has to know of the past.
    pub async fn ready(&self) {
        self.live.ready().await;
    }

    /// The store that the server keeps its data in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The live contract monitor.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Stops listening, lets running requests end, and closes the store.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        self.live.desk().close_streams();
        for mut task in self.tasks {
            if tokio::time::timeout(STOP_GRACE, &mut task).await.is_err() {
                task.abort();
            }
        }
        let (live, store) = (self.live, self.store);
        let closed = tokio::task::spawn_blocking(move || {
            live.stop();
            // Not needed for what was acknowledged, but the next start has no log to read.
            if let Err(error) = store.flush() {
                tracing::warn!(%error, "rows stay in the log; the next start reads them");
            }
            store.close();
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "the store did not close cleanly; its log will be replayed");
        }
    }
}

async fn listen(
    what: &'static str,
    addr: SocketAddr,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let error = |source| StartError::Listen { what, addr, flag, source };
    let listener = TcpListener::bind(addr).await.map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    Ok((listener, bound))
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the server is gone, which is a stop too.
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn serve_grpc(
    listener: Counted,
    ingest: Ingest,
    memory: Option<u64>,
    stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let (least, most) = CONNECTION_WINDOW;
    let connections = listener.stream();
    let window = memory.map_or(most, |bytes| (bytes / 64).clamp(least, most)) as u32;
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(window / 4)
        .initial_connection_window_size(window)
        .max_frame_size(1 << 20)
        .add_service(grpc::TraceService::new(ingest.clone()))
        .add_service(grpc::LogsService::new(ingest.clone()))
        .add_service(grpc::MetricsService::new(ingest))
        .serve_with_incoming_shutdown(connections, until(stopped));
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "OTLP/gRPC has stopped");
        }
    })
}

fn serve_http(listener: Counted, routes: Router, stopped: watch::Receiver<bool>) -> JoinHandle<()> {
    let server = axum::serve(listener, routes).with_graceful_shutdown(until(stopped));
    tokio::spawn(async move {
        if let Err(error) = server.into_future().await {
            tracing::error!(%error, "an HTTP listener has stopped");
        }
    })
}
