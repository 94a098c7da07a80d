//! The decoder, held against requests that prost encoded.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use lacuna_signal::otlp::{DecodeError, Limits, decode, decode_with};
use lacuna_signal::rows::{LogRows, SpanRows};
use lacuna_signal::schema::{OVERFLOW, Scope};
use lacuna_signal::{SignalKind, Value};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

fn kv(key: &str, value: Any) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    kv(key, Any::StringValue(value.to_owned()))
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "checkout-service-with-a-long-name")],
                ..Default::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "lib".into(),
                    version: "1.0".into(),
                    attributes: vec![kv("stable", Any::BoolValue(true))],
                    ..Default::default()
                }),
                spans,
                schema_url: "https://opentelemetry.io/schemas/1.44.0".into(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn span(id: u8, attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: vec![id; 8],
        name: format!("operation with a long name {id}"),
        kind: 3,
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 1_500,
        attributes,
        ..Default::default()
    }
}

fn decode_spans(request: &ExportTraceServiceRequest) -> lacuna_signal::otlp::Decoded {
    decode(SignalKind::Spans, Bytes::from(request.encode_to_vec())).unwrap()
}

#[test]
fn a_span_keeps_everything_it_had() {
    let mut full = span(
        1,
        vec![
            text("http.route", "/v1/batches/{id}/files"),
            kv("kafka.offset", Any::IntValue(-3)),
            kv("ratio", Any::DoubleValue(0.5)),
            kv("raw", Any::BytesValue(vec![0, 255])),
            kv(
                "list",
                Any::ArrayValue(ArrayValue {
                    values: vec![
                        AnyValue { value: Some(Any::IntValue(1)) },
                        AnyValue { value: None },
                        AnyValue { value: Some(Any::StringValue("a\"b".into())) },
                    ],
                }),
            ),
        ],
    );
    full.parent_span_id = vec![9; 8];
    full.trace_state = "vendor=value".into();
    full.flags = 0x101;
    full.status = Some(Status { code: 2, message: "Transaction discarded".into() });
    full.dropped_attributes_count = 4;
    full.events = vec![Event {
        time_unix_nano: 1_200,
        name: "exception".into(),
        attributes: vec![
            text("exception.type", "io::Error"),
            kv("attempt", Any::IntValue(2)),
            kv("ok", Any::BoolValue(false)),
        ],
        dropped_attributes_count: 1,
    }];
    full.links = vec![Link {
        trace_id: vec![8; 16],
        span_id: vec![6; 8],
        trace_state: "a=b".into(),
        attributes: vec![text("messaging.operation.name", "send")],
        dropped_attributes_count: 0,
        flags: 1,
    }];
    let decoded = decode_spans(&request(vec![span(2, vec![]), full]));
    assert!(decoded.rejected.is_empty());
    let batch = decoded.batch;
    let rows = SpanRows::new(&batch);
    assert_eq!(batch.num_rows(), 2);
    assert_eq!(rows.name(1), "operation with a long name 1");
    assert_eq!(rows.service(0), Some("checkout-service-with-a-long-name"));
    assert_eq!((rows.kind(1), rows.start(1), rows.duration(1)), (3, 1_000, 500));
    assert_eq!(rows.parent_span_id(1).unwrap().to_string(), "0909090909090909");
    assert_eq!(rows.parent_span_id(0), None);
    assert_eq!((rows.status_code(1), rows.status_message(1)), (2, Some("Transaction discarded")));
    assert_eq!((rows.trace_state(1), rows.flags(1)), (Some("vendor=value"), 0x101));
    assert_eq!((rows.scope_name(0), rows.scope_version(0)), (Some("lib"), Some("1.0")));

    let attributes: Vec<_> = batch.attributes(Scope::Span).of_row(1).collect();
    let list = r#"{"arrayValue":{"values":[{"intValue":"1"},{},{"stringValue":"a\"b"}]}}"#;
    assert_eq!(
        attributes,
        vec![
            ("http.route", Value::Str("/v1/batches/{id}/files")),
            ("kafka.offset", Value::Int(-3)),
            ("list", Value::Any(list)),
            ("ratio", Value::Double(0.5)),
            ("raw", Value::Bytes(&[0, 255])),
        ]
    );
    assert_eq!(batch.attributes(Scope::Span).of_row(0).count(), 0);
    let stable = batch.attribute(Scope::Instrumentation, "stable");
    assert_eq!(stable.get(0), Some(Value::Bool(true)));

    let event = rows.events(1).next().unwrap();
    assert_eq!((event.name, event.time, event.dropped_attributes), ("exception", 1_200, 1));
    let event_attributes: Vec<_> = event.attributes.unwrap().iter().collect();
    assert_eq!(
        event_attributes,
        vec![
            ("exception.type", Value::Str("io::Error")),
            ("attempt", Value::Int(2)),
            ("ok", Value::Bool(false)),
        ]
    );
    let link = rows.links(1).next().unwrap();
    assert_eq!((link.span_id.to_string().as_str(), link.flags), ("0606060606060606", 1));
    assert_eq!(rows.events(0).count() + rows.links(0).count(), 0);
}

#[test]
fn a_bad_span_is_refused_and_its_neighbours_kept() {
    let mut short = span(3, vec![text("k", "v")]);
    short.trace_id = vec![1, 2, 3];
    let mut zero = span(4, vec![]);
    zero.span_id = vec![0; 8];
    let mut late = span(5, vec![]);
    late.end_time_unix_nano = u64::MAX;
    let decoded = decode_spans(&request(vec![span(1, vec![]), short, zero, late, span(2, vec![])]));
    assert_eq!(decoded.batch.num_rows(), 2);
    assert_eq!(decoded.rejected.items, 3);
    let place = "resource_spans[0].scope_spans[0].spans";
    assert_eq!(
        decoded.rejected.reasons,
        vec![
            format!("{place}[1]: trace_id has 3 bytes, expected 16"),
            format!("{place}[2]: span_id is all zero"),
            format!("{place}[3]: end_time_unix_nano is {} ns, later than the year 2262", u64::MAX),
        ]
    );
    assert!(decoded.batch.attribute(Scope::Span, "k").is_absent());
}

#[test]
fn text_that_is_not_utf8_refuses_only_its_span() {
    let good = request(vec![
        span(1, vec![text("k", "good value, long enough")]),
        span(2, vec![text("k", "spoiled value, long")]),
    ]);
    let mut bytes = good.encode_to_vec();
    let at = bytes.windows(7).position(|w| w == b"spoiled").unwrap();
    bytes[at] = 0xff;
    let decoded = decode(SignalKind::Spans, Bytes::from(bytes)).unwrap();
    assert_eq!((decoded.batch.num_rows(), decoded.rejected.items), (1, 1));
    assert!(decoded.rejected.reasons[0].ends_with("spans[1]: a text that is not UTF-8"));
}

#[test]
fn half_a_request_keeps_what_came_before_the_cut() {
    let mut both = request(vec![span(1, vec![])]);
    both.resource_spans.extend(request(vec![span(2, vec![])]).resource_spans);
    let bytes = both.encode_to_vec();
    let decoded =
        decode(SignalKind::Spans, Bytes::from(bytes[..bytes.len() - 3].to_vec())).unwrap();
    assert_eq!(decoded.batch.num_rows(), 1);
    assert_eq!(decoded.rejected.items, 1);
}

#[test]
fn garbage_is_an_error_and_an_empty_request_is_not() {
    let error = decode(SignalKind::Spans, Bytes::from_static(b"hello, this is not protobuf"));
    assert!(matches!(error, Err(DecodeError::Unreadable { .. })), "{error:?}");
    assert_eq!(decode(SignalKind::Spans, Bytes::new()).unwrap().batch.num_rows(), 0);
}

#[test]
fn a_repeated_key_and_invented_keys_overflow_but_are_not_lost() {
    let many = (0..600).map(|i| kv(&format!("k{i:03}"), Any::IntValue(i))).collect();
    let twice = vec![text("k", "first"), text("k", "second")];
    let decoded = decode_spans(&request(vec![span(1, twice), span(2, many)]));
    let batch = decoded.batch;
    assert!(batch.column(OVERFLOW).is_some());
    assert_eq!(batch.attribute(Scope::Span, "k599").get(1), Some(Value::Int(599)));
    assert_eq!(batch.attribute(Scope::Span, "k").get(0), Some(Value::Str("first")));
    let attributes = batch.attributes(Scope::Span);
    assert_eq!(attributes.of_row(1).count(), 600);
    let both: Vec<_> = attributes.of_row(0).collect();
    assert_eq!(both, vec![("k", Value::Str("first")), ("k", Value::Str("second"))]);
}

#[test]
fn one_key_with_two_types_is_two_columns_and_one_attribute() {
    let decoded = decode_spans(&request(vec![
        span(1, vec![text("retry", "yes")]),
        span(2, vec![kv("retry", Any::IntValue(1))]),
    ]));
    let retry = decoded.batch.attribute(Scope::Span, "retry");
    assert_eq!((retry.get(0), retry.get(1)), (Some(Value::Str("yes")), Some(Value::Int(1))));
}

#[test]
fn batches_of_different_columns_join_and_compact() {
    let a = decode_spans(&request(vec![span(1, vec![text("a", "only in the first batch")])])).batch;
    let b = decode_spans(&request(vec![span(2, vec![kv("b", Any::DoubleValue(1.0))])])).batch;
    let both = lacuna_signal::Batch::concat(SignalKind::Spans, &[a, b]).unwrap().compact().unwrap();
    assert_eq!(both.num_rows(), 2);
    let value = both.attribute(Scope::Span, "a");
    assert_eq!((value.get(0), value.get(1)), (Some(Value::Str("only in the first batch")), None));
    assert_eq!(both.attribute(Scope::Span, "b").get(1), Some(Value::Double(1.0)));
    lacuna_signal::Batch::try_new(SignalKind::Spans, both.record().clone()).unwrap();
}

#[test]
fn logs_keep_their_bodies_and_lose_only_invalid_ids() {
    let record = |body: Option<Any>, trace_id: Vec<u8>| LogRecord {
        time_unix_nano: 0,
        observed_time_unix_nano: 42,
        severity_number: 17,
        severity_text: "ERROR".into(),
        body: body.map(|value| AnyValue { value: Some(value) }),
        attributes: vec![text("layer", "framework")],
        trace_id,
        span_id: vec![2; 8],
        event_name: "outcome".into(),
        ..Default::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: None,
            scope_logs: vec![ScopeLogs {
                scope: None,
                log_records: vec![
                    record(Some(Any::StringValue("PROCESSING_SUCCESS".into())), vec![1; 16]),
                    record(Some(Any::IntValue(5)), vec![1; 3]),
                    record(None, vec![]),
                ],
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    };
    let decoded = decode(SignalKind::Logs, Bytes::from(request.encode_to_vec())).unwrap();
    assert!(decoded.rejected.is_empty());
    let rows = LogRows::new(&decoded.batch);
    assert_eq!(rows.body(0), Some("PROCESSING_SUCCESS"));
    assert_eq!(rows.body(1), Some(r#"{"intValue":"5"}"#));
    assert_eq!(rows.body(2), None);
    assert_eq!((rows.time(0), rows.severity(0)), (42, 17));
    assert!(rows.trace_id(0).is_some() && rows.trace_id(1).is_none() && rows.trace_id(2).is_none());
    assert_eq!(decoded.batch.attribute(Scope::Log, "layer").get(2), Some(Value::Str("framework")));
}

#[test]
fn what_is_beyond_the_limits_is_cut_or_dropped_and_counted() {
    let list = ArrayValue { values: vec![AnyValue { value: Some(Any::BoolValue(true)) }; 3] };
    let attributes = vec![
        text("cut", "aéb"),
        kv("raw", Any::BytesValue(vec![1, 2, 3])),
        kv("list", Any::ArrayValue(list)),
        text("kept", "ab"),
        text("fourth", "x"),
    ];
    let request = request(vec![span(1, attributes.clone()), span(2, attributes[3..].to_vec())]);
    let body = Bytes::from(request.encode_to_vec());
    let limits = Limits { attributes: 3, attribute_length: 2, ..Limits::default() };
    let decoded = decode_with(SignalKind::Spans, body.clone(), &limits).unwrap();
    let attributes = decoded.batch.attributes(Scope::Span);
    let found: Vec<_> = attributes.of_row(0).collect();
    // Two bytes would end inside `é`.
    assert_eq!(
        found,
        [("cut", Value::Str("a")), ("kept", Value::Str("ab")), ("raw", Value::Bytes(&[1, 2]))]
    );
    assert_eq!(attributes.of_row(1).count(), 2);
    assert_eq!(decoded.rejected.items, 0);
    // Dropped: the list, which cannot be cut, and the one that came after three. Cut: two of the
    // first span, the service's name, and the names of both spans.
    assert_eq!((decoded.rejected.attributes, decoded.rejected.truncated), (2, 5));
    assert_eq!(decoded.rejected.message(), "2 attributes dropped; 5 values cut");

    let limits = Limits { body: body.len() - 1, ..Limits::default() };
    let error = decode_with(SignalKind::Spans, body.clone(), &limits).unwrap_err();
    assert!(matches!(error, DecodeError::TooLarge { found, .. } if found == body.len()));
}

#[test]
fn an_attribute_of_many_rows_that_finds_no_column_is_written_once() {
    let mut request = request((0..100).map(|i| span(i + 1, vec![])).collect());
    let resource = request.resource_spans[0].resource.as_mut().unwrap();
    resource.attributes = vec![kv("k", Any::IntValue(1)), kv("k", Any::BytesValue(vec![7; 3000]))];
    resource.attributes.push(kv("k", Any::BytesValue(vec![8; 3000])));
    let batch = decode_spans(&request).batch;
    assert!(batch.memory_size() < 200_000, "{}", batch.memory_size());
    let attributes = batch.attributes(Scope::Resource);
    for row in [0, 99] {
        let values: Vec<_> = attributes.of_row(row).map(|(_, value)| value).collect();
        assert_eq!(values.len(), 3);
        assert!(matches!(values[2], Value::Base64(text) if text.len() == 4000));
    }
}

#[test]
fn a_compact_batch_keeps_no_request_alive() {
    let mut first = span(1, vec![text("k", &"v".repeat(50))]);
    first.events = vec![Event {
        name: "an event with a long name".into(),
        attributes: vec![text("key of the event, long", "value of the event, long")],
        ..Default::default()
    }];
    let rest = (2..100).map(|i| span(i, vec![text("big", &"x".repeat(10_000))]));
    let batch = decode_spans(&request(std::iter::once(first).chain(rest).collect())).batch;
    let one = batch.slice(0, 1).compact().unwrap();
    assert!(one.memory_size() < 50_000, "{}", one.memory_size());
    let event = SpanRows::new(&one).events(0).next().unwrap();
    let attributes: Vec<_> = event.attributes.unwrap().iter().collect();
    assert_eq!(event.name, "an event with a long name");
    assert_eq!(attributes, [("key of the event, long", Value::Str("value of the event, long"))]);
}

/// Each of 400 columns had a cell for each of 100,000 spans: 640 MB out of 8 MB. What finds no column
/// now is in the overflow, and nothing is lost.
#[test]
fn many_small_spans_with_many_keys_do_not_become_gigabytes() {
    let keys: Vec<String> = (0..400).map(|key| format!("key.{key}")).collect();
    let spans = (0..100_000usize).map(|i| span(i as u8 | 1, vec![text(&keys[i % 400], "v")]));
    let body = Bytes::from(request(spans.collect()).encode_to_vec());
    let decoded = decode(SignalKind::Spans, body.clone()).unwrap();
    assert!(decoded.rejected.is_empty());
    let cells = decoded.batch.record().num_columns() * decoded.batch.num_rows();
    assert!(cells < 6_000_000, "{cells} cells of {} bytes", body.len());
    let attributes = decoded.batch.attributes(Scope::Span);
    for row in [0, 1, 399, 400, 12_345, 99_999] {
        let found: Vec<_> = attributes.of_row(row).collect();
        assert_eq!(found, [(keys[row % 400].as_str(), Value::Str("v"))]);
    }
}

/// A log record without fields has two bytes and a row has two hundred.
#[test]
fn rows_are_bounded_by_the_bytes_of_their_request() {
    let records = b"\x12\x00".repeat(1 << 17);
    let scope = [&[0x12, 0x80, 0x80, 0x10][..], &records].concat();
    let request = [&[0x0a, 0x84, 0x80, 0x10][..], &scope].concat();
    let decoded = decode(SignalKind::Logs, Bytes::from(request)).unwrap();
    let kept = decoded.batch.num_rows();
    assert!((1 << 16..1 << 17).contains(&kept), "{kept}");
    assert_eq!(decoded.rejected.items, (1 << 17) - kept as u64);
    let reason = &decoded.rejected.reasons[0];
    assert!(reason.ends_with(&format!("a request of this size may have {kept} rows at most")));
}

/// Regression: one link without an id took its span with it.
#[test]
fn a_link_without_an_id_is_left_out_and_its_span_kept() {
    let link = |trace: Vec<u8>, id: Vec<u8>| Link {
        trace_id: trace,
        span_id: id,
        attributes: vec![text("k", "v")],
        ..Default::default()
    };
    let mut full = span(1, vec![]);
    full.dropped_links_count = 4;
    full.links = vec![
        link(vec![], vec![1; 8]),
        link(vec![7; 16], vec![7; 8]),
        link(vec![1; 16], vec![0; 8]),
        link(vec![1; 3], vec![1; 8]),
    ];
    let body = Bytes::from(request(vec![full, span(2, vec![])]).encode_to_vec());
    let decoded = decode(SignalKind::Spans, body).unwrap();
    let rows = SpanRows::new(&decoded.batch);
    let links: Vec<_> = rows.links(0).collect();
    assert_eq!((decoded.batch.num_rows(), links.len()), (2, 1));
    assert_eq!(links[0].trace_id.0, [7; 16]);
    assert_eq!(links[0].attributes.unwrap().iter().count(), 1);
    let dropped = decoded.batch.number_column::<arrow::datatypes::UInt32Type>("dropped_links");
    assert_eq!(dropped.unwrap().values()[..], [7, 0]);
    assert_eq!((decoded.rejected.items, decoded.rejected.links), (0, 3));
    let place = "resource_spans[0].scope_spans[0].spans[0].links";
    assert_eq!(
        decoded.rejected.message(),
        format!(
            "{place}[0]: trace_id has 0 bytes, expected 16; {place}[2]: span_id is all zero; \
             {place}[3]: trace_id has 3 bytes, expected 16; 3 links dropped"
        )
    );
}

/// Regression: limits saw nothing but attributes of items, resources and scopes.
#[test]
fn limits_reach_events_links_names_bodies_and_keys() {
    let mut full = span(1, vec![text(&"k".repeat(257), "v"), text("k", "v")]);
    full.name = "n".repeat(20);
    full.status = Some(Status { message: "m".repeat(20), code: 2 });
    let many = || vec![text("a", &"x".repeat(20)), text("b", "y"), text("c", "z")];
    full.events = vec![Event { name: "e".repeat(20), attributes: many(), ..Default::default() }];
    full.links = vec![Link {
        trace_id: vec![7; 16],
        span_id: vec![7; 8],
        attributes: many(),
        ..Default::default()
    }];
    let mut request = request(vec![full]);
    request.resource_spans[0].resource = None;
    let limits = Limits { attributes: 2, attribute_length: 8, ..Limits::default() };
    let body = Bytes::from(request.encode_to_vec());
    let decoded = decode_with(SignalKind::Spans, body, &limits).unwrap();
    let rows = SpanRows::new(&decoded.batch);
    assert_eq!((rows.name(0), rows.status_message(0)), ("nnnnnnnn", Some("mmmmmmmm")));
    let event = rows.events(0).next().unwrap();
    assert_eq!(event.name, "eeeeeeee");
    for list in [event.attributes, rows.links(0).next().unwrap().attributes] {
        let list: Vec<_> = list.unwrap().iter().collect();
        assert_eq!(list, [("a", Value::Str("xxxxxxxx")), ("b", Value::Str("y"))]);
    }
    assert_eq!(decoded.batch.attributes(Scope::Span).of_row(0).count(), 1);
    assert_eq!((decoded.rejected.attributes, decoded.rejected.truncated), (3, 5));

    let body = |value| LogRecord {
        body: Some(AnyValue { value: Some(value) }),
        time_unix_nano: 1,
        ..Default::default()
    };
    let list = ArrayValue { values: vec![AnyValue { value: Some(Any::BoolValue(true)) }; 3] };
    let log_records = vec![body(Any::StringValue("b".repeat(20))), body(Any::ArrayValue(list))];
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
    let logs = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    let decoded = decode_with(SignalKind::Logs, Bytes::from(logs), &limits).unwrap();
    let rows = LogRows::new(&decoded.batch);
    assert_eq!((rows.body(0), rows.body(1)), (Some("bbbbbbbb"), None));
    assert_eq!((decoded.rejected.attributes, decoded.rejected.truncated), (1, 1));
}
