//! What a server is told when it starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lacuna_signal::otlp::{Limits, SETTLED_MORE};
use lacuna_store::Options;

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
    /// What is taken of a request at most.
    pub limits: RequestLimits,
    /// Connections to one port that are open at a time. One more is closed at once.
    pub max_connections: usize,
    /// Origins whose pages may send OTLP/HTTP from a browser: `*` for all, none unless asked for.
    pub cors_origins: Vec<String>,
    /// Memory for telemetry, in bytes: rows that are not in segments yet, and requests on their way.
    /// What does not fit is refused for the moment. `None`: the store's usual budget.
    pub memory_limit: Option<u64>,
    /// All files together, in bytes. What does not fit is refused for the moment.
    pub disk_limit: Option<u64>,
    /// What is older is removed.
    pub retention_age: Option<Duration>,
    /// The oldest is removed while segments have more bytes than this.
    pub retention_bytes: Option<u64>,
    /// How far out of order events may come without changing a verdict.
    pub lateness: Duration,
    /// After this long without any event, deadlines follow the clock instead of the events.
    pub idle: Duration,
    /// Open obligations of all contracts together. Beyond that those due first are given up and
    /// counted.
    pub max_open: usize,
    /// A finding is over when an obligation was fulfilled that began this much or more after the
    /// last violation; twice the contract's deadline if that is longer.
    pub resolve_after: Duration,
    /// How much stored history the contracts are checked against again on start.
    pub replay: Duration,
    /// How often changed contract files are looked for.
    pub reload_every: Duration,
    /// How often the monitor writes down what it knows.
    pub checkpoint_every: Duration,
    /// Base URLs of Alertmanagers that are told of findings.
    pub alertmanagers: Vec<String>,
    /// How often Alertmanagers are told again of what is still open.
    pub resend: Duration,
    /// URLs to which every finding is sent when it opens and when it is resolved.
    pub webhooks: Vec<String>,
    /// File of certificates (PEM) that are trusted beside the system's, for channels over `https`.
    pub tls_ca_file: Option<PathBuf>,
    /// Where people reach the query port; `None`: its address.
    pub external_url: Option<String>,
}

/// What is taken of an OTLP request at most. Each is counted when it takes effect
/// (`lacuna_ingest_limited_total`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes as they come, compressed or not. A larger request is refused.
    pub body: usize,
    /// Bytes after decompression. A larger request is refused.
    pub decompressed: usize,
    /// Attributes of one span, log record, point, resource or scope. Those after are dropped.
    pub attributes: usize,
    /// Bytes of one attribute's text or bytes. A longer one is cut.
    pub attribute_length: usize,
}

impl Default for RequestLimits {
    /// 64 MiB, 1024 attributes of 64 KiB: far beyond what instrumentation sends on purpose.
    fn default() -> Self {
        Self {
            body: 64 << 20,
            decompressed: 64 << 20,
            attributes: 1024,
            attribute_length: 64 << 10,
        }
    }
}

impl RequestLimits {
    /// What the decoder keeps to.
    pub(crate) fn of_decoder(&self) -> Limits {
        Limits {
            body: self.decompressed,
            attributes: self.attributes,
            attribute_length: self.attribute_length,
        }
    }
}

impl Config {
    /// The store's options.
    pub(crate) fn store_options(&self) -> Options {
        let mut options = Options::default();
        // A request may be noted with the time at which it came.
        options.frame_bytes = self.limits.decompressed.saturating_add(SETTLED_MORE);
        options.disk_bytes = self.disk_limit;
        options.retain_for = self.retention_age;
        options.retain_bytes = self.retention_bytes;
        if let Some(limit) = self.memory_limit {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            // Three eighths of it for rows and for requests from their admission on; the rest is for
            // writing and merging segments, for answers (a quarter), and for what the allocator holds
            // back.
            options.memory_bytes = limit / 8 * 3;
            options.query_bytes = limit / 4;
            options.flush_bytes = options.flush_bytes.min(limit / 16 * 3);
            options.queue_bytes = options.queue_bytes.min(limit / 8);
        }
        options
    }

    /// The usual ports on loopback, with data in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            data_dir: data_dir.into(),
            contracts_dir: None,
            otlp_grpc: local(4317),
            otlp_http: local(4318),
            query: local(16686),
            limits: RequestLimits::default(),
            max_connections: 4096,
            cors_origins: Vec::new(),
            memory_limit: None,
            disk_limit: None,
            retention_age: None,
            retention_bytes: None,
            lateness: Duration::from_secs(30),
            idle: Duration::from_secs(10),
            max_open: lacuna_contract::Options::default().max_open,
            resolve_after: lacuna_contract::Options::default().resolve_after,
            replay: Duration::from_secs(24 * 3600),
            reload_every: Duration::from_secs(2),
            checkpoint_every: Duration::from_secs(10),
            alertmanagers: Vec::new(),
            resend: Duration::from_secs(60),
            webhooks: Vec::new(),
            tls_ca_file: None,
            external_url: None,
        }
    }

    /// The names of all channels on which findings are told: the kind, a space, the URL.
    pub fn channels(&self) -> Vec<String> {
        let alertmanagers = self.alertmanagers.iter().map(|url| format!("alertmanager {url}"));
        alertmanagers.chain(self.webhooks.iter().map(|url| format!("webhook {url}"))).collect()
    }

    /// As [`Config::new`], on ports that the system chooses.
    pub fn on_free_ports(data_dir: impl Into<PathBuf>) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { otlp_grpc: any, otlp_http: any, query: any, ..Self::new(data_dir) }
    }
}
