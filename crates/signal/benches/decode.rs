//! How fast requests become batches, on one core: `cargo bench -p lacuna-signal --bench decode`.
//!
//! Every line is measured in the same run, round by round in turn, so that a busy machine slows
//! all alike; the figure is each one's best round.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, FixedSizeBinaryBuilder, Int64Builder, RecordBatch, StringViewBuilder, UInt8Builder,
};
use bytes::Bytes;
use lacuna_signal::otlp::{decode, decode_json};
use lacuna_signal::{Batch, SignalKind};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event};
use prost::Message;

const ROUNDS: usize = 40;

/// A small generator of numbers (splitmix64): the data is the same in every run.
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

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8 | 1).collect()
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

/// A span of an HTTP server or a Kafka consumer with 10 to 12 attributes, about 1 KB.
fn span(random: &mut Random) -> Span {
    let start = 1_700_000_000_000_000_000 + random.below(1_000_000_000_000);
    let n = random.below(40);
    let uuid = |random: &mut Random| format!("{:016x}-{:016x}", random.next(), random.next());
    let server = random.below(2) == 0;
    let mut attributes = if server {
        vec![
            text("http.request.method", "POST"),
            text("http.route", format!("/v1/batches/{{id}}/files/{n}")),
            attribute("http.response.status_code", Value::IntValue(200 + n as i64)),
            text("url.path", format!("/v1/batches/{}/files/{n}", uuid(random))),
            text("url.scheme", "https"),
            text("server.address", "file-service.production.svc.cluster.local"),
            attribute("server.port", Value::IntValue(8443)),
            text("client.address", format!("10.1.{n}.{}", random.below(256))),
            text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
            text("network.protocol.version", "1.1"),
        ]
    } else {
        vec![
            text("messaging.system", "kafka"),
            text("messaging.destination.name", format!("orders.content.provisioned.v{n}")),
            text("messaging.operation.name", "process"),
            text("messaging.consumer.group.name", "order-lifecycle-service"),
            attribute("messaging.kafka.offset", Value::IntValue(random.below(1 << 40) as i64)),
            attribute("kafka.partition", Value::IntValue(n as i64)),
            text("event_type", "orders.content.provisioned.v1"),
            text("event_id", uuid(random)),
            text("code.function.name", "order_lifecycle::consumer::handle_provisioned"),
            attribute("retry", Value::BoolValue(false)),
        ]
    };
    attributes.push(text("correlation_id", uuid(random)));
    if n.is_multiple_of(3) {
        attributes.push(text("batch_id", uuid(random)));
    }
    let events = if n.is_multiple_of(8) {
        vec![Event {
            time_unix_nano: start + 10,
            name: "exception".into(),
            attributes: vec![
                text("exception.type", "io::Error"),
                text("exception.message", "the connection was reset by its peer"),
            ],
            dropped_attributes_count: 0,
        }]
    } else {
        vec![]
    };
    Span {
        trace_id: random.bytes(16),
        span_id: random.bytes(8),
        parent_span_id: random.bytes(8),
        flags: 0x101,
        name: if server { format!("POST /v1/{n}") } else { format!("process orders.v{n}") },
        kind: if server { 2 } else { 5 },
        start_time_unix_nano: start,
        end_time_unix_nano: start + random.below(1_000_000_000),
        attributes,
        events,
        status: Some(Status { message: String::new(), code: 0 }),
        ..Default::default()
    }
}

/// A request as a Collector sends it: several services, each with `spans` spans.
fn request(random: &mut Random, services: usize, spans: usize) -> ExportTraceServiceRequest {
    let resource = |random: &mut Random, service: usize| Resource {
        attributes: vec![
            text("service.name", format!("service-number-{service}")),
            text("service.version", "1.14.2"),
            text("service.instance.id", format!("{:032x}", random.next())),
            text("deployment.environment.name", "production"),
            text("host.name", format!("node-{service}.eu-west-1.compute.internal")),
            text("telemetry.sdk.name", "opentelemetry"),
            text("telemetry.sdk.language", "rust"),
            text("telemetry.sdk.version", "0.33.0"),
        ],
        ..Default::default()
    };
    ExportTraceServiceRequest {
        resource_spans: (0..services)
            .map(|service| ResourceSpans {
                resource: Some(resource(random, service)),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "http-and-kafka".into(),
                        version: "1.0".into(),
                        ..Default::default()
                    }),
                    spans: (0..spans).map(|_| span(random)).collect(),
                    schema_url: "https://opentelemetry.io/schemas/1.44.0".into(),
                }],
                schema_url: String::new(),
            })
            .collect(),
    }
}

/// The usual way: prost's structs, then Arrow's builders, a column an attribute key. Numbers and
/// the other types become text here, so it does less than [`decode`].
fn by_builders(body: &[u8]) -> RecordBatch {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut trace_id = FixedSizeBinaryBuilder::new(16);
    let mut span_id = FixedSizeBinaryBuilder::new(8);
    let mut name = StringViewBuilder::new();
    let mut kind = UInt8Builder::new();
    let (mut start, mut duration) = (Int64Builder::new(), Int64Builder::new());
    let mut attributes: HashMap<String, (StringViewBuilder, usize)> = HashMap::new();
    let mut row = 0;
    for resource in request.resource_spans {
        let shared = resource.resource.unwrap_or_default().attributes;
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            trace_id.append_value(&span.trace_id).unwrap();
            span_id.append_value(&span.span_id).unwrap();
            name.append_value(&span.name);
            kind.append_value(span.kind as u8);
            start.append_value(span.start_time_unix_nano as i64);
            duration.append_value((span.end_time_unix_nano - span.start_time_unix_nano) as i64);
            for attribute in shared.iter().chain(&span.attributes) {
                if !attributes.contains_key(&attribute.key) {
                    attributes.insert(attribute.key.clone(), Default::default());
                }
                let (column, len) = attributes.get_mut(&attribute.key).unwrap();
                while *len < row {
                    column.append_null();
                    *len += 1;
                }
                match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
                    Some(Value::StringValue(text)) => column.append_value(text),
                    Some(Value::IntValue(value)) => column.append_value(value.to_string()),
                    _ => column.append_value("?"),
                }
                *len += 1;
            }
            row += 1;
        }
    }
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("trace_id".into(), Arc::new(trace_id.finish())),
        ("span_id".into(), Arc::new(span_id.finish())),
        ("name".into(), Arc::new(name.finish())),
        ("kind".into(), Arc::new(kind.finish())),
        ("start".into(), Arc::new(start.finish())),
        ("duration".into(), Arc::new(duration.finish())),
    ];
    for (key, (mut column, len)) in attributes {
        (len..row).for_each(|_| column.append_null());
        columns.push((format!("a.{key}"), Arc::new(column.finish())));
    }
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Runs all of `work` in turn and prints the best time of each against the first's.
fn compare(title: &str, items: usize, bytes: usize, work: &mut [(&str, &mut dyn FnMut())]) {
    let mut best = vec![Duration::MAX; work.len()];
    for _ in 0..ROUNDS {
        for ((_, run), best) in work.iter_mut().zip(&mut best) {
            let start = Instant::now();
            run();
            *best = (*best).min(start.elapsed());
        }
    }
    println!("{title}: {items} items, {bytes} bytes");
    for ((name, _), time) in work.iter().zip(&best) {
        let seconds = time.as_secs_f64();
        println!(
            "  {name:<34} {:>10.0} items/s {:>8.0} MB/s   {:>5.2} x the first",
            items as f64 / seconds,
            bytes as f64 / seconds / 1e6,
            best[0].as_secs_f64() / seconds,
        );
    }
}

fn main() {
    let mut random = Random(7);
    for (services, spans) in [(8, 512), (1, 64)] {
        let request = request(&mut random, services, spans);
        let body = Bytes::from(request.encode_to_vec());
        let json = serde_json::to_vec(&request).unwrap();
        let items = services * spans;
        compare(
            "protobuf",
            items,
            body.len(),
            &mut [
                ("prost, structs only", &mut || {
                    black_box(ExportTraceServiceRequest::decode(&body[..]).unwrap());
                }),
                ("prost, then Arrow builders", &mut || {
                    black_box(by_builders(&body));
                }),
                ("lacuna, straight into Arrow", &mut || {
                    black_box(decode(SignalKind::Spans, body.clone()).unwrap());
                }),
            ],
        );
        compare(
            "JSON",
            items,
            json.len(),
            &mut [
                ("serde_json, structs only", &mut || {
                    let request: ExportTraceServiceRequest = serde_json::from_slice(&json).unwrap();
                    black_box(request);
                }),
                ("lacuna, to protobuf", &mut || {
                    black_box(decode_json(SignalKind::Spans, &json).unwrap());
                }),
                ("lacuna, to protobuf to Arrow", &mut || {
                    let (body, _) = decode_json(SignalKind::Spans, &json).unwrap();
                    black_box(decode(SignalKind::Spans, body).unwrap());
                }),
            ],
        );
    }
    let batches: Vec<Batch> = (0..1000)
        .map(|_| {
            let body = Bytes::from(request(&mut random, 1, 20).encode_to_vec());
            decode(SignalKind::Spans, body).unwrap().batch
        })
        .collect();
    let bytes = batches.iter().map(Batch::memory_size).sum();
    let joined = Batch::concat(SignalKind::Spans, &batches).unwrap();
    compare(
        "1000 batches of 20 spans",
        20_000,
        bytes,
        &mut [
            ("concat", &mut || {
                black_box(Batch::concat(SignalKind::Spans, &batches).unwrap());
            }),
            ("compact what was joined", &mut || {
                black_box(joined.compact().unwrap());
            }),
        ],
    );
}
