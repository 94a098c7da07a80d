//! `lacuna serve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lacuna_server::{Config, RequestLimits, Server};
use lacuna_signal::otlp::MAX_BODY;
use miette::IntoDiagnostic;

use crate::client::Tls;
use crate::sizes::bytes;
use crate::times::duration;
use crate::{Failure, Outcome, output, report};

/// Options of `lacuna serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder that keeps the data. One process at a time.
    #[arg(long, value_name = "DIR", env = "LACUNA_DATA", default_value = "lacuna-data")]
    data: PathBuf,
    /// Folder of contract files (*.yaml, *.yml), reloaded when they change.
    #[arg(long, value_name = "DIR", env = "LACUNA_CONTRACTS")]
    contracts: Option<PathBuf>,
    /// Address that all ports listen on. Anything but loopback lets others in: there is no login.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Port or address of OTLP/gRPC.
    #[arg(long, value_name = "PORT|ADDR", default_value = "4317")]
    otlp_grpc: PortOrAddr,
    /// Port or address of OTLP/HTTP.
    #[arg(long, value_name = "PORT|ADDR", default_value = "4318")]
    otlp_http: PortOrAddr,
    /// Port or address of the query APIs, health and metrics.
    #[arg(long, value_name = "PORT|ADDR", default_value = "16686")]
    query: PortOrAddr,
    /// Origin of web pages that may send OTLP/HTTP from a browser, such as https://shop.example,
    /// or `*` for any; may be given several times. Without it, no page of another origin can.
    #[arg(long, value_name = "ORIGIN", env = "LACUNA_CORS_ORIGIN", value_delimiter = ',',
          value_parser = origin)]
    cors_origin: Vec<String>,
    #[command(flatten)]
    limits: Limits,
    /// How far out of order events may come without changing a verdict, such as 30s or 2m.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    lateness: Duration,
    /// After this long without any event, deadlines follow the clock.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    idle: Duration,
    /// Open obligations of all contracts; beyond that those due first are given up and counted.
    #[arg(long, value_name = "N", env = "LACUNA_MAX_OPEN", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_open: u32,
    /// A finding is over when an outcome came for what began this long or longer after the last
    /// violation (twice the contract's deadline, if that is longer).
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = some_time)]
    resolve_after: Duration,
    /// How much stored history the contracts are checked against again after a restart.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    replay: Duration,
    /// How often the monitor writes down what it knows, for the next start.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    checkpoint: Duration,
    /// Base URL of an Alertmanager to tell of findings, such as http://localhost:9093; may be
    /// given several times.
    #[arg(long, value_name = "URL", value_parser = http_url)]
    alertmanager: Vec<String>,
    /// How often Alertmanagers are told again of what is still open.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    resend: Duration,
    /// URL to which every finding is sent as JSON when it opens and when it is resolved; may be
    /// given several times.
    #[arg(long, value_name = "URL", value_parser = http_url)]
    webhook: Vec<String>,
    #[command(flatten)]
    tls: Tls,
    /// Where people reach the query port, for links in alerts, such as https://lacuna.example.
    #[arg(long, value_name = "URL", value_parser = base_url)]
    external_url: Option<String>,
}

/// What is taken and kept at most.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// Largest OTLP request as it comes, compressed or not; at most 256MiB.
    #[arg(long, value_name = "SIZE", env = "LACUNA_MAX_BODY", default_value = "64MiB",
          value_parser = request_size)]
    max_body: usize,
    /// Largest OTLP request after decompression; at most 256MiB.
    #[arg(long, value_name = "SIZE", env = "LACUNA_MAX_DECOMPRESSED", default_value = "64MiB",
          value_parser = request_size)]
    max_decompressed: usize,
    /// Attributes of one span, log record, point, resource or scope; those after are dropped.
    #[arg(long, value_name = "N", env = "LACUNA_MAX_ATTRIBUTES", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_attributes: u32,
    /// Size of one attribute's text; a longer one is cut.
    #[arg(long, value_name = "SIZE", env = "LACUNA_MAX_ATTRIBUTE_LENGTH", default_value = "64KiB",
          value_parser = request_size)]
    max_attribute_length: usize,
    /// Connections to one port that are open at a time; one more is closed at once.
    #[arg(long, value_name = "N", env = "LACUNA_MAX_CONNECTIONS", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// Memory for telemetry; senders are told to wait when it is full.
    #[arg(long, value_name = "SIZE", env = "LACUNA_MEMORY_LIMIT", default_value = "1GiB",
          value_parser = memory)]
    memory_limit: Option<u64>,
    /// Disk for the data folder; senders are told to wait when it is full.
    #[arg(long, value_name = "SIZE", env = "LACUNA_DISK_LIMIT", value_parser = bytes)]
    disk_limit: Option<u64>,
    /// Remove what is older than this, such as 7d.
    #[arg(long, value_name = "DURATION", env = "LACUNA_RETENTION_AGE", value_parser = duration)]
    retention_age: Option<Duration>,
    /// Remove the oldest while there is more than this, such as 100GiB.
    #[arg(long, value_name = "SIZE", env = "LACUNA_RETENTION_BYTES", value_parser = bytes)]
    retention_bytes: Option<u64>,
}

impl Limits {
    fn of_requests(&self) -> RequestLimits {
        RequestLimits {
            body: self.max_body,
            decompressed: self.max_decompressed,
            attributes: self.max_attributes as usize,
            attribute_length: self.max_attribute_length,
        }
    }
}

fn request_size(text: &str) -> Result<usize, String> {
    let size = bytes(text)?;
    let within = usize::try_from(size).ok().filter(|size| *size <= MAX_BODY);
    within.ok_or_else(|| format!("at most {}MiB can be decoded", MAX_BODY >> 20))
}

/// Less memory than this is used up by the process itself.
const LEAST_MEMORY: u64 = 64 << 20;

fn memory(text: &str) -> Result<u64, String> {
    let size = bytes(text)?;
    if size < LEAST_MEMORY { Err("at least 64MiB are needed".to_owned()) } else { Ok(size) }
}

/// A port on the common address, or a full address.
#[derive(Debug, Clone, Copy)]
enum PortOrAddr {
    Port(u16),
    Addr(SocketAddr),
}

impl PortOrAddr {
    fn on(self, ip: IpAddr) -> SocketAddr {
        match self {
            Self::Port(port) => SocketAddr::new(ip, port),
            Self::Addr(addr) => addr,
        }
    }
}

impl std::str::FromStr for PortOrAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self::Port).or_else(|_| text.parse().map(Self::Addr)).map_err(|_| {
            "expected a port such as 4317 or an address such as 0.0.0.0:4317".to_owned()
        })
    }
}

/// A duration that is not zero.
fn some_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(time) }
}

/// A URL that findings can be sent to.
fn http_url(text: &str) -> Result<String, String> {
    match lacuna_server::notify::check_url(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// An origin of web pages.
fn origin(text: &str) -> Result<String, String> {
    lacuna_server::check_origin(text).map(|()| text.to_owned())
}

/// A URL that links can begin with.
fn base_url(text: &str) -> Result<String, String> {
    lacuna_server::notify::check_base(text).map_err(|error| error.to_string())
}

/// Runs until a signal asks it to end.
pub async fn run(args: Args) -> Result<Outcome, Failure> {
    init_logs();
    let config = Config {
        contracts_dir: args.contracts,
        otlp_grpc: args.otlp_grpc.on(args.listen),
        otlp_http: args.otlp_http.on(args.listen),
        query: args.query.on(args.listen),
        limits: args.limits.of_requests(),
        max_connections: args.limits.max_connections as usize,
        cors_origins: args.cors_origin,
        memory_limit: args.limits.memory_limit,
        disk_limit: args.limits.disk_limit,
        retention_age: args.limits.retention_age,
        retention_bytes: args.limits.retention_bytes,
        lateness: args.lateness,
        idle: args.idle,
        max_open: args.max_open as usize,
        resolve_after: args.resolve_after,
        replay: args.replay,
        checkpoint_every: args.checkpoint,
        alertmanagers: args.alertmanager,
        resend: args.resend,
        webhooks: args.webhook,
        tls_ca_file: args.tls.tls_ca_file,
        external_url: args.external_url,
        ..Config::new(args.data)
    };
    let server = Server::start(config).await.map_err(report::start)?;
    output::line(&format!("OTLP/gRPC  {}", server.otlp_grpc));
    output::line(&format!("OTLP/HTTP  http://{}", server.otlp_http));
    output::line(&format!("queries    http://{}", server.query));
    output::line(&format!("contracts  {}", server.live().monitor().contracts().count()));
    let mut asked = std::pin::pin!(end_asked_for());
    let ended = tokio::select! {
        // First, so that a signal is waited for before anybody is told that the server is ready.
        biased;
        done = &mut asked => Some(done),
        () = server.ready() => None,
    };
    match ended {
        Some(done) => done?,
        None => {
            output::line("ready");
            asked.await?;
        }
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(Outcome::Clean)
}

fn init_logs() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("LACUNA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(output::colour_on_stderr())
        .with_writer(std::io::stderr)
        .init();
}

/// Waits for Ctrl-C or, where it exists, SIGTERM.
pub async fn end_asked_for() -> Result<(), Failure> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).into_diagnostic()?;
        tokio::select! {
            done = tokio::signal::ctrl_c() => done.into_diagnostic()?,
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.into_diagnostic()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_addresses() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let on = |text: &str| text.parse::<PortOrAddr>().map(|p| p.on(ip).to_string());
        assert_eq!(on("4317"), Ok("127.0.0.1:4317".to_owned()));
        assert_eq!(on("0.0.0.0:1"), Ok("0.0.0.0:1".to_owned()));
        assert!(on("x").is_err());
    }
}
