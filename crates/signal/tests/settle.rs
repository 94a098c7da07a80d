//! What is kept of a request under limits, held against the request by prost.

#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use bytes::Bytes;
use lacuna_signal::otlp::to_json::to_json;
use lacuna_signal::otlp::{Decoded, Limits, SETTLED_MORE, decode, decode_with, receive};
use lacuna_signal::rows::LogRows;
use lacuna_signal::{Batch, SignalKind};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value as V,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;
use prost::Message;
use serde_json::Value;

const RECEIVED: i64 = 1_700_000_000_123_456_789;

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(V::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn three() -> Vec<KeyValue> {
    vec![text("a", "1"), text("b", "2"), text("c", "3")]
}

/// The batch as OTLP/JSON, without the counts of dropped attributes.
fn json(batch: &Batch) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.remove("droppedAttributesCount");
                members.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::from_slice(&to_json(batch).unwrap()).unwrap();
    strip(&mut value);
    value
}

/// Receives `body`, and checks what holds of every request.
fn check(kind: SignalKind, body: &Bytes, limits: &Limits) -> (Bytes, Decoded) {
    let (kept, decoded) = receive(kind, body.clone(), limits, RECEIVED).unwrap();
    assert!(kept.len() <= body.len() + SETTLED_MORE);
    // What a later start reads, without limits, is what was acknowledged.
    let again = decode(kind, kept.clone()).unwrap();
    assert_eq!(to_json(&again.batch).unwrap(), to_json(&decoded.batch).unwrap());
    // No limit has anything to do with it any more.
    let again = decode_with(kind, kept.clone(), limits).unwrap().rejected;
    assert_eq!((again.attributes, again.truncated), (0, 0));
    let first = decode_with(kind, body.clone(), limits).unwrap();
    let counts = |r: &lacuna_signal::otlp::Rejected| (r.items, r.attributes, r.truncated, r.links);
    assert_eq!(counts(&decoded.rejected), counts(&first.rejected));
    (kept, decoded)
}

/// Regression: attributes beyond the limit were counted in the answer alone.
#[test]
fn dropped_attributes_are_in_the_counts_of_what_they_belonged_to() {
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        start_time_unix_nano: 1,
        attributes: three(),
        dropped_attributes_count: 40,
        events: vec![Event { attributes: three(), ..Default::default() }, Event::default()],
        links: vec![Link {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            attributes: three(),
            dropped_attributes_count: u32::MAX,
            ..Default::default()
        }],
        ..Default::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: three(), ..Default::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope { attributes: three(), ..Default::default() }),
                spans: vec![span],
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    let limits = Limits { attributes: 1, ..Limits::default() };
    let body = Bytes::from(request.encode_to_vec());
    let (kept, decoded) = check(SignalKind::Spans, &body, &limits);
    assert_eq!(decoded.rejected.attributes, 10);
    let kept = ExportTraceServiceRequest::decode(kept).unwrap();
    let resource = &kept.resource_spans[0];
    assert_eq!(resource.resource.as_ref().unwrap().dropped_attributes_count, 2);
    let scope = &resource.scope_spans[0];
    assert_eq!(scope.scope.as_ref().unwrap().dropped_attributes_count, 2);
    let span = &scope.spans[0];
    assert_eq!((span.attributes.len(), span.dropped_attributes_count), (1, 42));
    let events = span.events.iter().map(|event| event.dropped_attributes_count);
    assert_eq!(events.collect::<Vec<_>>(), [2, 0]);
    assert_eq!(span.links[0].dropped_attributes_count, u32::MAX);
}

fn logs_of(records: Vec<LogRecord>) -> Bytes {
    let scope_logs = vec![ScopeLogs { log_records: records, ..Default::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec().into()
}

/// Regression: a log record without any time was kept at 1970.
#[test]
fn a_log_record_without_a_time_has_that_of_its_receipt() {
    let at = |time, observed| LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: observed,
        attributes: three(),
        ..Default::default()
    };
    let body = logs_of(vec![at(0, 0), at(5, 0), at(0, 6), at(7, 8)]);
    for attributes in [2, usize::MAX] {
        let limits = Limits { attributes, ..Limits::default() };
        let (_, decoded) = check(SignalKind::Logs, &body, &limits);
        assert_eq!(decoded.rejected.untimed, 0);
        let rows = LogRows::new(&decoded.batch);
        let times: Vec<_> = (0..4).map(|row| (rows.time(row), rows.observed(row))).collect();
        let expected = [(RECEIVED, Some(RECEIVED)), (5, None), (6, Some(6)), (7, Some(8))];
        assert_eq!(times, expected);
    }
    // With times of their own, nothing is written anew.
    let body = logs_of(vec![at(5, 0)]);
    let (kept, _) = check(SignalKind::Logs, &body, &Limits::default());
    assert_eq!(kept.as_ptr(), body.as_ptr());
}

/// Guarantees: what is unreadable stays so, at the same place, and is told once.
#[test]
fn what_cannot_be_read_is_not_mended() {
    let long = "x".repeat(300);
    let mut spoiled = logs_of(vec![
        LogRecord {
            severity_text: "spoil".into(),
            attributes: vec![text("a", &long)],
            time_unix_nano: 1,
            ..Default::default()
        },
        LogRecord { attributes: vec![text("a", &long)], time_unix_nano: 1, ..Default::default() },
    ])
    .to_vec();
    let at = spoiled.windows(5).position(|bytes| bytes == b"spoil").unwrap();
    spoiled[at] = 0xff;
    // And a field that ends too early.
    spoiled.extend([0x0a, 100, 1]);
    let limits = Limits { attribute_length: 10, ..Limits::default() };
    let (kept, decoded) = check(SignalKind::Logs, &Bytes::from(spoiled), &limits);
    assert_eq!((decoded.batch.num_rows(), decoded.rejected.items), (1, 2));
    assert!(kept.len() < 400);
}

fn limits() -> impl Strategy<Value = Limits> {
    (0..4usize, 0..20usize).prop_map(|(attributes, attribute_length)| Limits {
        attributes,
        attribute_length,
        ..Limits::default()
    })
}

proptest! {
    #[test]
    fn spans_are_kept_as_the_limits_say(request in support::traces(true), limits in limits()) {
        let body = Bytes::from(request.encode_to_vec());
        let (kept, decoded) = check(SignalKind::Spans, &body, &limits);
        let first = decode_with(SignalKind::Spans, body, &limits).unwrap();
        prop_assert_eq!(json(&decoded.batch), json(&first.batch));
        let kept = ExportTraceServiceRequest::decode(kept).unwrap();
        let spans = |request: &ExportTraceServiceRequest| -> Vec<Span> {
            let scopes = request.resource_spans.iter().flat_map(|r| r.scope_spans.clone());
            scopes.flat_map(|scope| scope.spans).collect()
        };
        for (kept, span) in spans(&kept).iter().zip(&spans(&request)) {
            let all = u64::from(span.dropped_attributes_count) + span.attributes.len() as u64;
            let now = u64::from(kept.dropped_attributes_count) + kept.attributes.len() as u64;
            prop_assert_eq!(now, all.min(u64::from(u32::MAX) + kept.attributes.len() as u64));
        }
    }

    #[test]
    fn logs_are_kept_as_the_limits_say(request in support::logs(true), limits in limits()) {
        check(SignalKind::Logs, &request.encode_to_vec().into(), &limits);
    }

    #[test]
    fn points_are_kept_as_the_limits_say(
        request in support::metrics::metrics(true),
        limits in limits(),
    ) {
        let body = Bytes::from(request.encode_to_vec());
        let (_, decoded) = check(SignalKind::Points, &body, &limits);
        let first = decode_with(SignalKind::Points, body, &limits).unwrap();
        prop_assert_eq!(json(&decoded.batch), json(&first.batch));
    }

    #[test]
    fn spoiled_requests_are_kept_as_they_were_told(
        request in support::traces(true),
        limits in limits(),
        spoil in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut body = request.encode_to_vec();
        prop_assume!(!body.is_empty());
        for (at, byte) in spoil {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let body = Bytes::from(body);
        if let Ok((kept, decoded)) = receive(SignalKind::Spans, body.clone(), &limits, RECEIVED) {
            prop_assert!(kept.len() <= body.len() + SETTLED_MORE);
            let again = decode(SignalKind::Spans, kept).unwrap();
            prop_assert_eq!(to_json(&again.batch).unwrap(), to_json(&decoded.batch).unwrap());
        }
    }
}
