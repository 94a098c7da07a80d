//! `lacuna-bench query`: how fast things are found among many spans of a day.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use crate::common::{Common, Room, now_nanos};
use crate::error::BenchError;
use crate::generate::{SentFlow, SentTrace, Shape, Workload};
use crate::http1::Http1;
use crate::ingest::disk;
use crate::print::{figure, grouped, heading};
use crate::send::{Plan, Signals, Transport, send};
use crate::server::Server;
use crate::space;
use crate::stats::Samples;

/// Options of `query`.
#[derive(Debug, Args)]
pub struct Query {
    #[command(flatten)]
    common: Common,
    /// Spans to send before asking.
    #[arg(long, default_value_t = 10_000_000)]
    spans: u64,
    /// Hours of event time that they are spread over.
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// Spans a request.
    #[arg(long, default_value_t = 8192)]
    batch: usize,
    /// How often each question is asked.
    #[arg(long, default_value_t = 300)]
    rounds: u64,
    /// Spans per second to keep to while sending.
    #[arg(long)]
    rate: Option<u64>,
}

const HOUR_MICROS: u64 = 3_600_000_000;

/// Asks the Jaeger API and checks the answers against what was sent.
pub struct Asker {
    http: Http1,
}

impl Asker {
    /// Connects to a query port.
    pub async fn connect(port: u16) -> Result<Self, BenchError> {
        Ok(Self { http: Http1::connect(port).await? })
    }

    async fn get(&mut self, path: &str) -> Result<(Duration, u16, Value), BenchError> {
        let at = Instant::now();
        let (status, body) = self.http.get(path).await?;
        let took = at.elapsed();
        let value = serde_json::from_slice(&body)
            .map_err(|error| BenchError::Wrong(format!("{path} answered {status}: {error}")))?;
        Ok((took, status.as_u16(), value))
    }

    /// A trace by its id: how long it took, and whether all of its spans are there.
    pub async fn trace(&mut self, sent: &SentTrace) -> Result<(Duration, bool), BenchError> {
        let path = format!("/api/traces/{}", hex::encode(sent.id));
        let (took, _, answer) = self.get(&path).await?;
        let spans = answer.pointer("/data/0/spans").and_then(Value::as_array);
        Ok((took, spans.is_some_and(|spans| spans.len() == sent.spans as usize)))
    }

    /// How many spans of a trace are found by its id; those that were sent twice count once.
    pub async fn spans(&mut self, sent: &SentTrace) -> Result<usize, BenchError> {
        let path = format!("/api/traces/{}", hex::encode(sent.id));
        let (_, _, answer) = self.get(&path).await?;
        let spans = answer.pointer("/data/0/spans").and_then(Value::as_array);
        let ids = spans.into_iter().flatten().filter_map(|span| span.get("spanID")?.as_str());
        Ok(ids.collect::<std::collections::HashSet<_>>().len())
    }

    /// A search: how long it took, and the ids of the traces that were found.
    async fn search(&mut self, search: &Search<'_>) -> Result<(Duration, Vec<String>), BenchError> {
        let tags: String = format!("{{\"{}\":\"{}\"}}", search.key, search.value)
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        let path = format!(
            "/api/traces?service={}&tags={tags}&start={}&end={}&limit={}",
            search.service, search.start, search.end, search.limit
        );
        let (took, status, answer) = self.get(&path).await?;
        let data = answer.get("data").and_then(Value::as_array);
        let Some(data) = data.filter(|_| status == 200) else {
            return Err(BenchError::Wrong(format!("{path} answered {status}: {answer}")));
        };
        let ids = data.iter().filter_map(|trace| trace.get("traceID")?.as_str());
        Ok((took, ids.map(str::to_owned).collect()))
    }
}

/// The figure `name` of the `/metrics` of a server that is asked at `port`; 0 if it is not there.
pub async fn metric(port: u16, name: &str) -> Result<f64, BenchError> {
    let (_, body) = Http1::connect(port).await?.get("/metrics").await?;
    let text = String::from_utf8_lossy(&body);
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(lines.next().and_then(|value| value.trim().parse().ok()).unwrap_or(0.0))
}

struct Search<'a> {
    service: &'a str,
    key: &'a str,
    value: &'a str,
    start: u64,
    end: u64,
    limit: u32,
}

impl Query {
    /// Measures and prints.
    pub async fn run(self) -> Result<(), BenchError> {
        let hours = self.hours * 3_600_000_000_000;
        let begin = now_nanos().saturating_sub(hours);
        let mut shape =
            Shape { seed: self.common.seed, spans_per_request: self.batch, begin, step: 0 };
        let requests = Workload::new(shape).requests_for(self.spans);
        shape.step = hours / requests.max(1);
        let load = Arc::new(Workload::new(shape));
        let room = self.common.room()?;
        let server = self.common.start(&room).await?;
        let plan = Plan {
            transport: Transport::Grpc,
            gzip: false,
            connections: 4,
            in_flight: 2,
            first: 0,
            end: requests,
            rate: self.rate,
            signals: Signals::Traces,
        };
        let sent = send(&load, &server, plan).await?;
        heading(&format!(
            "query: {} spans over {} h of event time",
            grouped(sent.spans as f64),
            self.hours
        ));
        figure("sent in", format!("{:.1} s", sent.took.as_secs_f64()));
        figure("memory peak", format!("{:.0} MiB", server.peak_memory()?));
        self.fresh(&load, &server, requests).await?;
        let quiet = Duration::from_secs(self.common.quiet);
        let calm =
            space::settled(room.data(), &server, quiet, Duration::from_secs(self.common.settle));
        if !calm.await? {
            figure("background work", "not done in the time given");
        }
        disk("on disk", room.data(), sent.spans);
        figure(
            "memory peak, now",
            format!("{:.0} MiB, {:.0} MiB", server.peak_memory()?, server.memory()?),
        );
        let server = self.cold(server, &load, requests, &room).await?;
        self.warm(&load, &server, requests).await?;
        figure(
            "memory peak, now",
            format!("{:.0} MiB, {:.0} MiB", server.peak_memory()?, server.memory()?),
        );
        server.kill().await
    }

    /// The `n`-th flow to ask about: spread over the whole time.
    fn flow(&self, load: &Workload, requests: u64, n: u64) -> SentFlow {
        let number = n.wrapping_mul(0x9e37_79b9) % requests.saturating_sub(1).max(1);
        load.sent_flow(number, n.wrapping_mul(31))
    }

    /// Whether what was acknowledged is found by the next query.
    async fn fresh(
        &self,
        load: &Arc<Workload>,
        server: &Server,
        requests: u64,
    ) -> Result<(), BenchError> {
        let mut asker = Asker::connect(server.query).await?;
        let (mut times, mut first) = (Samples::default(), 0);
        let rounds = 50;
        // Each round's flows are whole once the next request is there too.
        for number in requests..requests + rounds {
            let plan = Plan {
                transport: Transport::Grpc,
                gzip: false,
                connections: 1,
                in_flight: 1,
                first: number,
                end: number + 1,
                rate: None,
                signals: Signals::Traces,
            };
            send(load, server, plan).await?;
            let flow = load.sent_flow(number - 1, number);
            let at = Instant::now();
            let mut whole = true;
            for trace in &flow.traces {
                whole &= asker.trace(trace).await?.1;
            }
            times.push(at.elapsed() / flow.traces.len().max(1) as u32);
            first += u64::from(whole);
        }
        figure(
            "acknowledged -> found whole by the first query",
            format!("{first} of {rounds}; that query {}", times.summary()),
        );
        Ok(())
    }

    /// First questions after a start with nothing of the files in memory.
    async fn cold(
        &self,
        server: Server,
        load: &Workload,
        requests: u64,
        room: &Room,
    ) -> Result<Server, BenchError> {
        server.stop().await?;
        space::forget_pages(room.data())?;
        let server = self.common.start(room).await?;
        figure("start on this folder", format!("{:.2} s", server.started_in.as_secs_f64()));
        let mut asker = Asker::connect(server.query).await?;
        let (mut times, mut missed) = (Samples::default(), 0);
        for n in 0..self.rounds.min(100) {
            // Each round forgets again: the server itself stays warm, its files do not.
            space::forget_pages(room.data())?;
            let flow = self.flow(load, requests, n + 1_000_000);
            let (took, whole) = asker.trace(&flow.traces[0]).await?;
            times.push(took);
            missed += u64::from(!whole);
        }
        figure("trace by id, files not in memory", format!("{}{}", times.summary(), wrong(missed)));
        Ok(server)
    }

    async fn warm(
        &self,
        load: &Workload,
        server: &Server,
        requests: u64,
    ) -> Result<(), BenchError> {
        let mut asker = Asker::connect(server.query).await?;
        let (mut times, mut missed) = (Samples::default(), 0);
        // One round unmeasured brings the files into memory.
        for n in 0..2 * self.rounds {
            let flow = self.flow(load, requests, n % self.rounds);
            let trace = &flow.traces[n as usize % flow.traces.len()];
            let (took, whole) = asker.trace(trace).await?;
            missed += u64::from(!whole);
            if n >= self.rounds {
                times.push(took);
            }
        }
        figure("trace by id, warm", format!("{}{}", times.summary(), wrong(missed)));

        for (name, window) in [("1 h", HOUR_MICROS), ("24 h", 24 * HOUR_MICROS)] {
            self.correlation(&mut asker, load, requests, name, window).await?;
        }
        for (key, value, service) in [
            ("error.type", "ConflictError", "order-service"),
            ("http.response.status_code", "500", "edge-gateway"),
            ("db.redis.hit", "false", "catalog-service"),
            ("messaging.destination.partition.id", "7", "payment-service"),
            ("correlation_id", "00000000-0000-4000-8000-000000000000", "order-service"),
        ] {
            let (mut times, mut found) = (Samples::default(), 0);
            for n in 0..self.rounds {
                let middle = self.flow(load, requests, n).begin / 1000;
                let (start, end) = (middle - HOUR_MICROS / 2, middle + HOUR_MICROS / 2);
                let search = Search { service, key, value, start, end, limit: 20 };
                let (took, ids) = asker.search(&search).await?;
                times.push(took);
                found += ids.len() as u64;
            }
            let each = found as f64 / self.rounds as f64;
            figure(
                &format!("{key}={}, 1 h", &value[..value.len().min(13)]),
                format!("{}  {each:.1} traces", times.summary()),
            );
        }
        for (name, path) in [
            ("services", "/api/services"),
            ("operations of a service", "/api/services/order-service/operations"),
        ] {
            let (mut times, mut entries) = (Samples::default(), 0);
            for _ in 0..self.rounds {
                let (took, _, answer) = asker.get(path).await?;
                times.push(took);
                entries = answer.get("data").and_then(Value::as_array).map_or(0, Vec::len);
            }
            figure(name, format!("{}  {entries} entries", times.summary()));
        }
        Ok(())
    }

    async fn correlation(
        &self,
        asker: &mut Asker,
        load: &Workload,
        requests: u64,
        name: &str,
        window: u64,
    ) -> Result<(), BenchError> {
        let (mut times, mut missed) = (Samples::default(), 0);
        for n in 0..self.rounds {
            let flow = self.flow(load, requests, n + 500_000);
            let middle = flow.begin / 1000;
            let search = Search {
                service: flow.service,
                key: "correlation_id",
                value: &flow.correlation,
                start: middle.saturating_sub(window / 2),
                end: middle + window / 2,
                limit: 100,
            };
            let (took, ids) = asker.search(&search).await?;
            times.push(took);
            let sent: Vec<String> = flow.traces.iter().map(|t| hex::encode(t.id)).collect();
            let right = !ids.is_empty() && ids.iter().all(|id| sent.contains(id));
            missed += u64::from(!right);
        }
        figure(
            &format!("correlation id, {name} of {} h", self.hours),
            format!("{}{}", times.summary(), wrong(missed)),
        );
        Ok(())
    }
}

fn wrong(missed: u64) -> String {
    if missed == 0 { String::new() } else { format!("  WRONG ANSWERS: {missed}") }
}
