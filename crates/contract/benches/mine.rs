//! How fast mining reads: a million events of generated traffic, on one core.
//!
//! `cargo bench -p lacuna-contract --bench mine [-- EVENTS]` prints seconds of processor time for
//! reading and for proposing. The traffic is orders that pass through six services, five spans and
//! two log records each, with ids as attributes and in texts, among as many events that belong to
//! nothing. Batches are decoded beforehand, so it is the miner alone that is timed.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people, run by hand"
)]

use std::time::Instant;

use bytes::Bytes;
use lacuna_contract::mine::{MineOptions, Miner};
use lacuna_signal::{Batch, SignalKind};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

const EPOCH: u64 = 1_700_000_000_000_000_000;
const MS: u64 = 1_000_000;
/// Orders whose events are in one batch.
const BATCH: u64 = 400;

/// The steps of an order: service, name, span kind, how long after its beginning, how long.
const STEPS: [(&str, &str, i32, u64, u64); 5] = [
    ("shop", "POST /orders", 2, 0, 30),
    ("shop", "send order.placed", 4, 20, 3),
    ("bank", "process order.placed", 5, 40, 25),
    ("store", "process order.paid", 5, 90, 40),
    ("mail", "process order.packed", 5, 160, 12),
];

/// A small generator that is the same everywhere (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn resource(service: &str) -> Option<Resource> {
    Some(Resource { attributes: vec![text("service.name", service)], ..Resource::default() })
}

fn span(name: &str, kind: i32, start: u64, length: u64, random: &mut Random) -> Span {
    Span {
        trace_id: [random.next().to_be_bytes(), random.next().to_be_bytes()].concat(),
        span_id: random.next().to_be_bytes().to_vec(),
        name: name.to_owned(),
        kind,
        start_time_unix_nano: start,
        end_time_unix_nano: start + length * MS,
        attributes: vec![
            text("http.request.method", "POST"),
            text("server.address", format!("host-{}", random.next() % 20)),
            text("thread.id", (random.next() % 64).to_string()),
        ],
        ..Span::default()
    }
}

/// The events of orders `from..to`: two batches, of spans and of log records.
fn batches(from: u64, to: u64, random: &mut Random) -> [Batch; 2] {
    let mut spans: Vec<(&str, Vec<Span>)> =
        ["shop", "bank", "store", "mail", "web"].map(|service| (service, Vec::new())).into();
    let mut logs = Vec::new();
    for i in from..to {
        let (at, id) = (EPOCH + i * 5 * MS, format!("{:016x}", i.wrapping_mul(0x9e37_79b9)));
        let trace = [random.next().to_be_bytes(), random.next().to_be_bytes()].concat();
        for (service, name, kind, after, length) in STEPS {
            let wobble = random.next() % 10;
            let mut step = span(name, kind, at + (after + wobble) * MS, length, random);
            step.trace_id.clone_from(&trace);
            step.attributes.push(text("order.id", id.clone()));
            let list = spans.iter_mut().find(|(known, _)| *known == service);
            list.unwrap().1.push(step);
        }
        for _ in 0..5 {
            let name = ["GET /", "GET /price", "GET /health"][(random.next() % 3) as usize];
            let mut idle = span(name, 2, at, 2, random);
            idle.attributes.push(text("session.id", format!("{:x}", random.next() % 5_000)));
            spans[4].1.push(idle);
        }
        for (service, after, body) in [
            ("store", 95, format!("Packed order {id}, {} items left", i % 900)),
            ("mail", 170, format!("receipt sent order_id={id} to user{}", i % 5_000)),
        ] {
            let body = Some(AnyValue { value: Some(any_value::Value::StringValue(body)) });
            let time_unix_nano = at + after * MS;
            let trace_id = trace.clone();
            logs.push((
                service,
                LogRecord { time_unix_nano, trace_id, body, ..Default::default() },
            ));
        }
    }
    let resource_spans = spans.into_iter().map(|(service, spans)| ResourceSpans {
        resource: resource(service),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    });
    let resource_logs = logs.into_iter().map(|(service, record)| ResourceLogs {
        resource: resource(service),
        scope_logs: vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    });
    let spans = ExportTraceServiceRequest { resource_spans: resource_spans.collect() };
    let logs = ExportLogsServiceRequest { resource_logs: resource_logs.collect() };
    [(SignalKind::Spans, spans.encode_to_vec()), (SignalKind::Logs, logs.encode_to_vec())].map(
        |(kind, body)| {
            let decoded = lacuna_signal::otlp::decode(kind, Bytes::from(body)).unwrap();
            decoded.batch.compact().unwrap()
        },
    )
}

/// Processor time of this process so far, seconds: on a busy machine, the wall clock tells of others.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn main() {
    let wanted = std::env::args().skip(1).find_map(|arg| arg.parse::<u64>().ok());
    let events = wanted.unwrap_or(1_000_000);
    let orders = events / 12;
    let mut random = Random(7);
    let mut traffic = Vec::new();
    for from in (0..orders).step_by(BATCH as usize) {
        traffic.extend(batches(from, (from + BATCH).min(orders), &mut random));
    }
    let rows: usize = traffic.iter().map(Batch::num_rows).sum();
    let mut miner = Miner::new(MineOptions::default());
    let (wall, start) = (Instant::now(), processor_time());
    traffic.iter().for_each(|batch| miner.observe(batch));
    let read = processor_time();
    let proposals = miner.propose();
    let end = processor_time();
    println!("{rows} events, {orders} keys, {} proposals", proposals.len());
    println!(
        "{:.2} s of processor time: {:.2} s reading ({:.0} events/s), {:.2} s proposing; {:.2} s by the clock",
        end - start,
        read - start,
        rows as f64 / (read - start).max(0.01),
        end - read,
        wall.elapsed().as_secs_f64()
    );
    for proposal in &proposals {
        println!("{:<12} {} of {}: {}", proposal.kind, proposal.held, proposal.n, proposal.name);
    }
}
