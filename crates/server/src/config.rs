//! What a server is told when it starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where the server listens, where it keeps its data and how it behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data folder. One process at a time.
    pub data_dir: PathBuf,
    /// Folder of contract files (`*.yaml`, `*.yml`); `None` for no contracts.
    pub contracts_dir: Option<PathBuf>,
    /// OTLP/gRPC.
    pub otlp_grpc: SocketAddr,
    /// OTLP/HTTP.
    pub otlp_http: SocketAddr,
    /// Query APIs (Jaeger, findings), health and own metrics.
    pub query: SocketAddr,
    /// Largest OTLP request in bytes, before and after decompression.
    pub max_request: usize,
    /// How far out of order events may come without changing a verdict.
    pub lateness: Duration,
    /// After this long without any event, deadlines follow the clock instead of the events.
    pub idle: Duration,
    /// How much stored history the contracts are checked against again on start.
    pub replay: Duration,
    /// How often changed contract files are looked for.
    pub reload_every: Duration,
}

impl Config {
    /// The usual ports on loopback, with data in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            data_dir: data_dir.into(),
            contracts_dir: None,
            otlp_grpc: local(4317),
            otlp_http: local(4318),
            query: local(16686),
            max_request: 64 << 20,
            lateness: Duration::from_secs(30),
            idle: Duration::from_secs(10),
            replay: Duration::from_secs(24 * 3600),
            reload_every: Duration::from_secs(2),
        }
    }

    /// As [`Config::new`], on ports that the system chooses.
    pub fn on_free_ports(data_dir: impl Into<PathBuf>) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { otlp_grpc: any, otlp_http: any, query: any, ..Self::new(data_dir) }
    }
}
