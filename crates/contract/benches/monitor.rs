//! How fast 50 contracts read a realistic mix, on one core, with a million obligations open.
//!
//! `cargo bench -p lacuna-contract --bench monitor [-- OPEN EVENTS]` prints bytes an open
//! obligation and events a second of processor time. Batches are decoded beforehand, so it is the
//! monitor alone that is timed. Most events match nothing; each contract's two sides take 1 % of all events
//! together (0.02 % an operation), as 50 outcomes in a system of many services would. After that, for
//! every kind of contract, outcomes as spans and as log records: bytes a key while it is open and when
//! it has its outcome, and events a second; of one key with very many events too.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people, run by hand"
)]

use std::time::Instant;

use bytes::Bytes;
use lacuna_contract::{ContractSet, Monitor, Options};
use lacuna_signal::{Batch, SignalKind};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

const CONTRACTS: u64 = 50;
const BATCH: usize = 8_192;
const EPOCH: u64 = 1_700_000_000_000_000_000;

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

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn int(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::IntValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn uuid(random: &mut Random) -> String {
    let (a, b) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

fn span(name: String, key: String, time: u64, random: &mut Random) -> Span {
    let length = random.below(5_000_000);
    Span {
        trace_id: [random.next().to_be_bytes(), random.next().to_be_bytes()].concat(),
        span_id: random.next().to_be_bytes().to_vec(),
        parent_span_id: random.next().to_be_bytes().to_vec(),
        name,
        kind: 2,
        start_time_unix_nano: time,
        end_time_unix_nano: time + length,
        attributes: vec![
            text("correlation_id", key),
            text("http.request.method", "POST"),
            text("url.path", "/v1/things/of/some/length"),
            int("http.response.status_code", 200),
            text("server.address", "things.internal"),
            int("server.port", 8080),
            text("result", if random.below(20) == 0 { "failure" } else { "success" }),
        ],
        status: Some(Status { code: i32::from(random.below(50) == 0) * 2, message: String::new() }),
        ..Span::default()
    }
}

fn decode(spans: Vec<Span>) -> Batch {
    let mut resource_spans = Vec::new();
    let mut spans = spans.into_iter().peekable();
    let mut service = 0;
    while spans.peek().is_some() {
        service += 1;
        resource_spans.push(ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", format!("service-{}", service % 20))],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans: spans.by_ref().take(64).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        });
    }
    let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    lacuna_signal::otlp::decode(SignalKind::Spans, Bytes::from(body)).unwrap().batch
}

fn contracts() -> ContractSet {
    let mut text = String::from("contracts:\n");
    for i in 0..CONTRACTS {
        text.push_str(&format!(
            "  - name: c{i}\n    \
             when: '{{ name = \"kafka.consume.thing.number.{i}.happened.v1\" && status != error }}'\n    \
             expect: '{{ name = \"redis.transaction.outcome_{i}\" && span.result = \"success\" }}'\n    \
             key: [span.correlation_id]\n    within: 10m\n"
        ));
    }
    ContractSet::parse("bench", &text).unwrap()
}

/// Processor time of this thread, seconds: what the machine's other users do does not count.
fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Resident memory, bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn main() {
    let numbers: Vec<u64> =
        std::env::args().filter_map(|a| a.replace('_', "").parse().ok()).collect();
    let open = numbers.first().copied().unwrap_or(1_000_000);
    let events = numbers.get(1).copied().unwrap_or(1_000_000);
    let mut random = Random(7);
    let options = Options { max_open: usize::MAX, max_keys: usize::MAX, ..Options::default() };
    let mut monitor = Monitor::new(&contracts(), options);

    // What decoding takes and gives back is the allocator's from here on, not the monitor's.
    drop(decode(
        (0..BATCH as u64)
            .map(|i| {
                let name = format!("warm.up.{i}");
                let key = uuid(&mut random);
                span(name, key, EPOCH, &mut random)
            })
            .collect(),
    ));
    let mut took = 0.0;
    let before = resident();
    let mut made = 0;
    while made < open {
        let spans = (0..(BATCH as u64).min(open - made)).map(|i| {
            let name = format!("kafka.consume.thing.number.{}.happened.v1", i % CONTRACTS);
            let key = uuid(&mut random);
            let mut span = span(name, key, EPOCH + made * 1_000, &mut random);
            span.status = None;
            span
        });
        let batch = decode(spans.collect());
        made += batch.num_rows() as u64;
        let start = processor();
        monitor.observe(&batch);
        took += processor() - start;
    }
    let counted: u64 = monitor.status().iter().map(|status| status.health.memory).sum();
    println!("open obligations      {}", monitor.open());
    println!("opened a second       {:.0}", open as f64 / took);
    println!(
        "bytes an obligation   {:.1} counted, {:.1} resident",
        counted as f64 / open as f64,
        (resident().saturating_sub(before)) as f64 / open as f64
    );

    let start = processor();
    let bytes = monitor.checkpoint();
    println!("checkpoint            {} bytes in {:.3} s", bytes.len(), processor() - start);
    let start = processor();
    let options = Options { max_open: usize::MAX, max_keys: usize::MAX, ..Options::default() };
    let restored = Monitor::restore(&contracts(), options, &bytes).unwrap();
    println!("restored              {} open in {:.3} s", restored.open(), processor() - start);
    drop((restored, bytes));

    let mut batches = Vec::new();
    let mut keys: Vec<String> = Vec::new();
    let mut done = 0;
    while done < events {
        let spans = (0..BATCH as u64).map(|i| {
            let pick = random.below(10_000);
            let (name, key) = if pick < 50 {
                keys.push(uuid(&mut random));
                let i = keys.len() as u64 % CONTRACTS;
                (
                    format!("kafka.consume.thing.number.{i}.happened.v1"),
                    keys[keys.len() - 1].clone(),
                )
            } else if pick < 100 && !keys.is_empty() {
                let at = random.below(keys.len() as u64) as usize;
                let i = (at as u64 + 1) % CONTRACTS;
                (format!("redis.transaction.outcome_{i}"), keys[at].clone())
            } else {
                (
                    format!("{} /v1/resource/{}", ["GET", "POST"][(pick % 2) as usize], pick % 300),
                    uuid(&mut random),
                )
            };
            span(name, key, EPOCH + 1_000_000_000 + (done + i) * 1_000, &mut random)
        });
        let batch = decode(spans.collect());
        done += batch.num_rows() as u64;
        batches.push(batch);
    }
    let start = processor();
    batches.iter().for_each(|batch| monitor.observe(batch));
    let seconds = processor() - start;
    println!("events                {done} in batches of {BATCH}");
    println!("events a second       {:.0}", done as f64 / seconds);
    println!("open after            {}", monitor.open());
    let start = Instant::now();
    let findings = monitor.findings().len();
    println!("findings              {findings} in {:.3} s", start.elapsed().as_secs_f64());
    kinds(&mut random);
}

/// Kinds of contract: what it is called here, and what its file says beside its sides.
const KINDS: [(&str, &str); 9] = [
    ("response", "within: 10m"),
    ("response of an event", "per: event\n    within: 10m"),
    ("response with where", "within: 10m\n    where: 'expect.status = when.status'"),
    ("precedence", "kind: precedence\n    within: 10m"),
    ("absence", "kind: absence\n    within: 10m"),
    ("exactly 1", "kind: exactly\n    within: 10m"),
    ("exactly 2", "kind: exactly\n    count: 2\n    within: 10m"),
    ("balance", "kind: balance\n    within: 10m"),
    ("heartbeat", "kind: heartbeat\n    every: 10m"),
];

/// Events of a side come so many nanoseconds apart.
const MILLI: usize = 1_000_000;

/// Keys of each kind.
const KEYS: u64 = 100_000;

fn log_records(keys: &[String], time: u64) -> Batch {
    let log_records = keys.iter().zip((time..).step_by(MILLI)).map(|(key, time)| LogRecord {
        time_unix_nano: time,
        severity_number: 9,
        body: Some(AnyValue {
            value: Some(any_value::Value::StringValue("the outcome has come".to_owned())),
        }),
        attributes: vec![text("correlation_id", key), text("thing", "of some length")],
        ..LogRecord::default()
    });
    let resource_logs = vec![ResourceLogs {
        resource: Some(Resource {
            attributes: vec![text("service.name", "service-1")],
            ..Resource::default()
        }),
        scope_logs: vec![ScopeLogs { log_records: log_records.collect(), ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    }];
    let body = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    lacuna_signal::otlp::decode(SignalKind::Logs, Bytes::from(body)).unwrap().batch
}

fn kinds(random: &mut Random) {
    println!("{:<24} bytes a key: open, with outcome; events a second", "kind");
    let keys: Vec<String> = (0..KEYS).map(|_| uuid(random)).collect();
    let one = vec!["one".to_owned(); KEYS as usize];
    let spans = |name: &str, keys: &[String], from: u64, random: &mut Random| -> Vec<Batch> {
        let times = keys.iter().zip((EPOCH + from..).step_by(MILLI));
        let spans = times.map(|(key, time)| span(name.to_owned(), key.clone(), time, random));
        let spans: Vec<Span> = spans.collect();
        spans.chunks(BATCH).map(|chunk| decode(chunk.to_vec())).collect()
    };
    let causes = spans("cause", &keys, 0, random);
    let outcomes = spans("outcome", &keys, 1_000_000_000, random);
    let logs: Vec<Batch> = (0u64..)
        .zip(keys.chunks(BATCH))
        .map(|(i, keys)| log_records(keys, EPOCH + 1_000_000_000 + i * (BATCH * MILLI) as u64))
        .collect();
    let crowd = [spans("cause", &one, 0, random), spans("outcome", &one, 1_000_000_000, random)];
    for (what, text) in KINDS {
        for (by, outcome, second) in [
            ("spans", "{ name = \"outcome\" }", &outcomes),
            ("logs", "log { body = \"the outcome has come\" }", &logs),
        ] {
            if by == "logs" && text.contains("where") {
                continue;
            }
            let key = "key: {when: [span.correlation_id], expect: [.correlation_id]}";
            let (seconds, open, done) = run(text, outcome, key, &causes, second);
            println!(
                "{:<24} {open:6.1} {done:6.1} {:12.0}",
                format!("{what}, {by}"),
                2.0 * KEYS as f64 / seconds
            );
        }
        let key = "key: [span.correlation_id]";
        let (seconds, ..) = run(text, "{ name = \"outcome\" }", key, &crowd[0], &crowd[1]);
        let a_second = 2.0 * KEYS as f64 / seconds;
        println!("{:<24} {:>27.0}", format!("{what}, one key"), a_second);
    }
}

/// Seconds of processor time, and bytes a key after the first batches and after the second.
fn run(
    text: &str,
    outcome: &str,
    key: &str,
    causes: &[Batch],
    outcomes: &[Batch],
) -> (f64, f64, f64) {
    let cause = "{ name = \"cause\" }";
    let (sides, key) = match text.contains("balance") {
        true => (
            format!("left: 'count {cause}'\n    right: 'count {outcome}'"),
            key.replace("when:", "left:").replace("expect:", "right:"),
        ),
        false => (format!("when: '{cause}'\n    expect: '{outcome}'"), key.to_owned()),
    };
    let text = format!("contracts:\n  - name: c\n    {text}\n    {sides}\n    {key}\n");
    let set =
        ContractSet::parse("bench", &text).unwrap_or_else(|errors| panic!("{text}\n{errors}"));
    let mut monitor = Monitor::new(&set, Options::default());
    let start = processor();
    causes.iter().for_each(|batch| monitor.observe(batch));
    let took = processor() - start;
    let bytes = |monitor: &Monitor| monitor.status()[0].health.memory as f64 / KEYS as f64;
    let open = bytes(&monitor);
    let start = processor();
    outcomes.iter().for_each(|batch| monitor.observe(batch));
    let took = took + processor() - start;
    (took, open, bytes(&monitor))
}
