//! Measures the store alone: `measure DIR [MILLIONS OF SPANS]`. The generator's cost is not in the
//! figures: requests are made before the clock starts, a block at a time.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lacuna_signal::selector::Selector;
use lacuna_signal::{SignalKind, TraceId};
use lacuna_store::{Options, Store, TimeRange};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

const DAY: u64 = 24 * 3600 * 1_000_000_000;
const START: u64 = 1_780_000_000_000_000_000;
const SPANS_A_TRACE: u64 = 12;
const SPANS_A_REQUEST: u64 = 504;

/// SplitMix64.
fn random(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn trace_of(number: u64) -> [u8; 16] {
    (u128::from(random(number * 2)) << 64 | u128::from(random(number * 2 + 1))).to_be_bytes()
}

fn correlation_of(trace: u64) -> String {
    let x = random(trace ^ 0xc0ffee);
    format!(
        "{:08x}-{:04x}-4{:03x}-a000-{:012x}",
        x >> 32,
        x >> 16 & 0xffff,
        x & 0xfff,
        x & 0xffff_ffff_ffff
    )
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn int(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::IntValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn span(trace: u64, i: u64, start: u64) -> Span {
    let x = random(trace * 31 + i);
    let route =
        ["/v1/batches/{id}", "/v1/files", "/v1/orders/{id}/items", "/health"][(x % 4) as usize];
    let mut attributes = vec![
        text("correlation_id", correlation_of(trace)),
        text("http.request.method", ["GET", "POST", "PUT"][(x % 3) as usize]),
        text("http.route", route),
        int("http.response.status_code", [200, 200, 200, 404, 500][(x % 5) as usize]),
        text("url.path", format!("/v1/orders/{}/items", x % 100_000)),
        text("server.address", format!("service-{}.default.svc.cluster.local", x % 20)),
        int("server.port", 8080),
        text(
            "user_agent.original",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/149.0",
        ),
        text("user.id", format!("user-{}", x >> 8 & 0xffff)),
        text("network.protocol.version", "1.1"),
    ];
    if i % 4 == 3 {
        attributes.push(text("messaging.destination.name", format!("orders.v{}", x % 3)));
        attributes.push(int("messaging.kafka.offset", (trace * 4 + i) as i64));
    }
    Span {
        trace_id: trace_of(trace).to_vec(),
        span_id: random(trace * 100 + i).to_be_bytes().to_vec(),
        parent_span_id: if i == 0 {
            Vec::new()
        } else {
            random(trace * 100 + (i - 1) / 2).to_be_bytes().to_vec()
        },
        name: format!("{} {route}", ["GET", "POST", "PUT"][(x % 3) as usize]),
        kind: (x % 5) as i32 + 1,
        start_time_unix_nano: start + i * 700_000 + x % 300_000,
        end_time_unix_nano: start + i * 700_000 + x % 300_000 + 500_000 + x % 90_000_000,
        attributes,
        status: Some(Status { code: i32::from(x.is_multiple_of(100)) * 2, ..Status::default() }),
        ..Span::default()
    }
}

/// Request `number`: spans of 42 traces, by service.
fn request(number: u64, total: u64) -> Bytes {
    let traces = SPANS_A_REQUEST / SPANS_A_TRACE;
    let step = DAY / (total / SPANS_A_TRACE).max(1);
    let mut services: Vec<ResourceSpans> = (0..SPANS_A_TRACE)
        .map(|service| ResourceSpans {
            resource: Some(Resource {
                attributes: vec![
                    text("service.name", format!("service-{service}")),
                    text("service.version", "1.42.0"),
                    text(
                        "k8s.pod.name",
                        format!("service-{service}-6c5d8f7b9-{:05x}", service * 77),
                    ),
                    text("host.name", format!("node-{}.internal", service % 5)),
                    text("deployment.environment.name", "production"),
                ],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "io.opentelemetry.http".to_owned(),
                    ..InstrumentationScope::default()
                }),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        })
        .collect();
    for trace in number * traces..(number + 1) * traces {
        for (i, service) in services.iter_mut().enumerate() {
            service.scope_spans[0].spans.push(span(trace, i as u64, START + trace * step));
        }
    }
    Bytes::from(ExportTraceServiceRequest { resource_spans: services }.encode_to_vec())
}

fn quantiles(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    println!("{what:<44} p50 {:>9.3?}  p99 {:>9.3?}  max {:>9.3?}", at(0.5), at(0.99), at(1.0));
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0) / 1024
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "/tmp/lacuna-measure".to_owned());
    let millions: f64 = args.next().and_then(|a| a.parse().ok()).unwrap_or(1.0);
    let total = (millions * 1e6) as u64 / SPANS_A_REQUEST * SPANS_A_REQUEST;
    let store = Store::open(&dir, Options::default()).unwrap();
    let (mut wall, mut spent, mut raw, mut decode) =
        (Duration::ZERO, Duration::ZERO, 0u64, Duration::ZERO);
    let requests = total / SPANS_A_REQUEST;
    let block = 200;
    for first in (0..requests).step_by(block as usize) {
        let bodies: Vec<Bytes> =
            (first..(first + block).min(requests)).map(|n| request(n, total)).collect();
        raw += bodies.iter().map(|b| b.len() as u64).sum::<u64>();
        let (begun, cpu_before) = (Instant::now(), cpu());
        let (sender, receiver) = mpsc::channel();
        let decoding = Arc::new(AtomicU64::new(0));
        let count = bodies.len();
        for body in bodies {
            let start = Instant::now();
            let batch = lacuna_signal::otlp::decode(SignalKind::Spans, body.clone()).unwrap().batch;
            decoding.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            loop {
                let answered = sender.clone();
                let (tell, told) = mpsc::sync_channel(1);
                store.append(SignalKind::Spans, body.clone(), batch.clone(), move |result| {
                    let busy = result.is_err();
                    let _ = tell.try_send(busy);
                    if !busy {
                        let _ = answered.send(());
                    }
                });
                // A refusal comes at once, on this thread.
                if told.try_recv() != Ok(true) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        for _ in 0..count {
            receiver.recv().unwrap();
        }
        decode += Duration::from_nanos(decoding.load(Ordering::Relaxed));
        wall += begun.elapsed();
        spent += cpu() - cpu_before;
    }
    println!("spans {total}, {:.0} B of OTLP each", raw as f64 / total as f64);
    println!(
        "durable ingest: {:.0} spans/s wall, {:.0} spans/s of one core (decoding {:.0} spans/s)",
        total as f64 / wall.as_secs_f64(),
        total as f64 / spent.as_secs_f64(),
        total as f64 / decode.as_secs_f64()
    );
    println!("resident {} MiB, {:?}", resident(), store.counters());
    let (begun, before) = (Instant::now(), cpu());
    store.flush().unwrap();
    println!("flush {:.2?}", begun.elapsed());
    let stats = store.stats();
    println!(
        "segments {} before merging, {:.1} B/span",
        stats.kinds[0].segments,
        stats.segment_bytes as f64 / total as f64
    );
    let begun = Instant::now();
    store.compact().unwrap();
    println!("compact {:.2?}, cpu with flush {:.2?}", begun.elapsed(), cpu() - before);
    let stats = store.stats();
    println!(
        "segments {}, {:.1} B/span, resident {} MiB",
        stats.kinds[0].segments,
        stats.segment_bytes as f64 / total as f64,
        resident()
    );
    let traces = total / SPANS_A_TRACE;
    let sample = |n: u64| (0..n).map(move |i| random(i + 7) % traces);
    for round in ["first", "again"] {
        let time = |n: u64, mut run: Box<dyn FnMut(u64) -> usize>, least: usize| -> Vec<Duration> {
            let before = cpu();
            let times = sample(n)
                .map(|trace| {
                    let begun = Instant::now();
                    let found = run(trace);
                    let took = begun.elapsed();
                    assert!(found >= least, "found {found}");
                    took
                })
                .collect();
            print!("[{:>7.2?} of one core each] ", (cpu() - before) / n as u32);
            times
        };
        let s = store.clone();
        quantiles(
            &format!("trace by id ({round})"),
            time(
                300,
                Box::new(move |t| s.trace(TraceId(trace_of(t)), None).unwrap().items.num_rows()),
                12,
            ),
        );
        let s = store.clone();
        quantiles(
            "correlation id, whole day",
            time(
                200,
                Box::new(move |t| {
                    let selector = format!("{{ span.correlation_id = \"{}\" }}", correlation_of(t));
                    s.find_traces(&Selector::parse(&selector).unwrap(), TimeRange::ALL, 20)
                        .unwrap()
                        .items
                        .len()
                }),
                1,
            ),
        );
        let hour = |t: u64| {
            let start = (START + t % 23 * DAY / 24) as i64;
            TimeRange::new(start, start + (DAY / 24) as i64)
        };
        let s = store.clone();
        quantiles(
            "user.id (1 of 65536), one hour",
            time(
                100,
                Box::new(move |t| {
                    let selector = format!("{{ span.user.id = \"user-{}\" }}", t & 0xffff);
                    s.find_traces(&Selector::parse(&selector).unwrap(), hour(t), 20)
                        .unwrap()
                        .items
                        .len()
                }),
                0,
            ),
        );
        let s = store.clone();
        quantiles(
            "service and status = error, one hour",
            time(
                50,
                Box::new(move |t| {
                    let selector = format!(
                        "{{ resource.service.name = \"service-{}\" && status = error }}",
                        t % 12
                    );
                    s.find_traces(&Selector::parse(&selector).unwrap(), hour(t), 20)
                        .unwrap()
                        .items
                        .len()
                }),
                0,
            ),
        );
        let s = store.clone();
        quantiles(
            "duration > 89.9 ms, one hour",
            time(
                50,
                Box::new(move |t| {
                    s.find_traces(&Selector::parse("{ duration > 89900us }").unwrap(), hour(t), 20)
                        .unwrap()
                        .items
                        .len()
                }),
                0,
            ),
        );
    }
    let begun = Instant::now();
    let services = store.services(TimeRange::ALL, 1000).unwrap().items.len();
    println!("services ({services}) {:.2?}", begun.elapsed());
    let begun = Instant::now();
    let edges = store.edges(TimeRange::ALL, usize::MAX).unwrap().items;
    println!("edges of everything ({}) {:.2?}", edges.edges.len(), begun.elapsed());
    println!("resident {} MiB", resident());
    drop(store);
    let begun = Instant::now();
    let store = Store::open(&dir, Options::default()).unwrap();
    println!("open {:.2?}, {:?}", begun.elapsed(), store.recovery().rows);
}
