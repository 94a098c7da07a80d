//! Sending a load as a number of exporters would, and timing each acknowledgement.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ValueEnum;
use http::StatusCode;

use crate::error::BenchError;
use crate::generate::Workload;
use crate::grpc::{self, Exporter};
use crate::http1::Http1;
use crate::server::Server;
use crate::stats::Samples;

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with protobuf bodies.
    Http,
}

/// Which signals are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Signals {
    /// Spans only.
    Traces,
    /// Spans, with them the log records of the same flows, and now and then metrics.
    All,
}

/// How a load is sent.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The wire.
    pub transport: Transport,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// Connections.
    pub connections: usize,
    /// Requests under way at once on each connection.
    pub in_flight: usize,
    /// First request of the load to send.
    pub first: u64,
    /// The request to stop before.
    pub end: u64,
    /// Spans per second to keep to; `None`: as fast as acknowledged.
    pub rate: Option<u64>,
    /// What to send.
    pub signals: Signals,
}

/// What was sent and acknowledged.
#[derive(Debug, Default)]
pub struct Sent {
    /// Spans.
    pub spans: u64,
    /// Log records.
    pub logs: u64,
    /// Metric points.
    pub points: u64,
    /// Bytes of OTLP protobuf before compression.
    pub bytes: u64,
    /// From sending a trace request to its acknowledgement, refusals and waits included.
    pub latency: Samples,
    /// Times that the server said that it was busy.
    pub refused: u64,
    /// From the first request to the last acknowledgement.
    pub took: Duration,
}

impl Sent {
    fn absorb(&mut self, other: Self) {
        self.spans += other.spans;
        self.logs += other.logs;
        self.points += other.points;
        self.bytes += other.bytes;
        self.latency.append(other.latency);
        self.refused += other.refused;
    }
}

enum Wire {
    Grpc(Exporter),
    Http(Http1, bool),
}

impl Wire {
    /// Sends once; `false` if the server is busy.
    async fn send(&mut self, path: &'static str, body: Bytes) -> Result<bool, BenchError> {
        match self {
            Self::Grpc(exporter) => match exporter.export(path, body).await {
                Ok(_) => Ok(true),
                Err(BenchError::Grpc(status))
                    if status.code() == tonic::Code::ResourceExhausted =>
                {
                    Ok(false)
                }
                Err(error) => Err(error),
            },
            Self::Http(connection, gzip) => {
                let path = match path {
                    grpc::TRACES => "/v1/traces",
                    grpc::LOGS => "/v1/logs",
                    _ => "/v1/metrics",
                };
                let body = if *gzip { compressed(&body)? } else { body };
                match connection.post(path, body, *gzip).await? {
                    (StatusCode::OK, _) => Ok(true),
                    (StatusCode::TOO_MANY_REQUESTS, _) => Ok(false),
                    (status, body) => Err(BenchError::Wrong(format!(
                        "{path} was answered {status}: {}",
                        String::from_utf8_lossy(&body)
                    ))),
                }
            }
        }
    }
}

fn compressed(body: &[u8]) -> Result<Bytes, BenchError> {
    let mut gzip = flate2::write::GzEncoder::new(
        Vec::with_capacity(body.len() / 4),
        flate2::Compression::default(),
    );
    gzip.write_all(body)?;
    Ok(Bytes::from(gzip.finish()?))
}

/// Sends requests `plan.first..plan.end` of `load` to `server`.
pub async fn send(load: &Arc<Workload>, server: &Server, plan: Plan) -> Result<Sent, BenchError> {
    let mut wires = Vec::new();
    for _ in 0..plan.connections {
        let exporter = match plan.transport {
            Transport::Grpc => Some(Exporter::connect(server.grpc, plan.gzip).await?),
            Transport::Http => None,
        };
        for _ in 0..plan.in_flight {
            wires.push(match &exporter {
                // Requests of one HTTP/2 connection run at once; HTTP/1.1 has one each.
                Some(exporter) => Wire::Grpc(exporter.clone()),
                None => Wire::Http(Http1::connect(server.http).await?, plan.gzip),
            });
        }
    }
    let next = Arc::new(AtomicU64::new(plan.first));
    let begun = Instant::now();
    let tasks: Vec<_> = wires
        .into_iter()
        .map(|wire| tokio::spawn(worker(Arc::clone(load), wire, plan, Arc::clone(&next), begun)))
        .collect();
    let mut sent = Sent::default();
    for task in tasks {
        let done = task.await.map_err(|error| BenchError::Wrong(error.to_string()))??;
        sent.absorb(done);
    }
    sent.took = begun.elapsed();
    Ok(sent)
}

async fn worker(
    load: Arc<Workload>,
    mut wire: Wire,
    plan: Plan,
    next: Arc<AtomicU64>,
    begun: Instant,
) -> Result<Sent, BenchError> {
    let mut sent = Sent::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.end {
            return Ok(sent);
        }
        let (body, spans) = load.traces(number);
        if let Some(rate) = plan.rate {
            // Requests differ in size: what is due is all that was sent before.
            let before = load.spans_of(number) - load.spans_of(plan.first);
            let due = before as f64 / rate as f64;
            tokio::time::sleep_until((begun + Duration::from_secs_f64(due)).into()).await;
        }
        sent.bytes += body.len() as u64;
        let at = Instant::now();
        sent.refused += until_taken(&mut wire, grpc::TRACES, body).await?;
        sent.latency.push(at.elapsed());
        sent.spans += spans;
        if plan.signals == Signals::All {
            let (body, records) = load.logs(number);
            sent.bytes += body.len() as u64;
            sent.refused += until_taken(&mut wire, grpc::LOGS, body).await?;
            sent.logs += records;
            if number.is_multiple_of(20) {
                let (body, points) = load.metrics(number);
                sent.bytes += body.len() as u64;
                sent.refused += until_taken(&mut wire, grpc::METRICS, body).await?;
                sent.points += points;
            }
        }
    }
}

/// How long an exporter waits after a refusal: what servers usually ask for in `RetryInfo`.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// Sends until the server takes it; how often it did not.
async fn until_taken(wire: &mut Wire, path: &'static str, body: Bytes) -> Result<u64, BenchError> {
    let mut refused = 0;
    while !wire.send(path, body.clone()).await? {
        refused += 1;
        tokio::time::sleep(BUSY_WAIT).await;
    }
    Ok(refused)
}
