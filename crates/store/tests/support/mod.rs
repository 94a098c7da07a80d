//! Signals for tests, built as OTLP requests and remembered as plain structs.
// Not every test uses all of it, and helpers fail by panicking as tests do.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod faulty;

use bytes::Bytes;
use lacuna_signal::{Batch, SignalKind, SpanId, TraceId};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

#[derive(Debug, Clone, PartialEq)]
pub struct TestSpan {
    pub trace: u128,
    pub span: u64,
    pub parent: u64,
    pub service: String,
    pub name: String,
    pub kind: i32,
    pub start: i64,
    pub duration: i64,
    pub error: bool,
    pub attributes: Vec<(String, Value)>,
    pub link: Option<(u128, u64)>,
    pub event: Option<(String, String)>,
}

impl TestSpan {
    pub fn new(trace: u128, span: u64, service: &str, name: &str, start: i64) -> Self {
        Self {
            trace,
            span,
            parent: 0,
            service: service.to_owned(),
            name: name.to_owned(),
            kind: 1,
            start,
            duration: 1000,
            error: false,
            attributes: Vec::new(),
            link: None,
            event: None,
        }
    }

    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.attributes.push((key.to_owned(), Value::StringValue(value.to_owned())));
        self
    }

    pub fn with_int(mut self, key: &str, value: i64) -> Self {
        self.attributes.push((key.to_owned(), Value::IntValue(value)));
        self
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(k, _)| k == key).and_then(|(_, v)| match v {
            Value::StringValue(text) => Some(text.as_str()),
            _ => None,
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct TestLog {
    pub trace: u128,
    pub span: u64,
    pub service: String,
    pub time: i64,
    pub body: String,
}

pub fn trace_id(id: u128) -> TraceId {
    TraceId(id.to_be_bytes())
}

pub fn span_id(id: u64) -> SpanId {
    SpanId(id.to_be_bytes())
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn resource(service: &str) -> Option<Resource> {
    let name = attribute("service.name", Value::StringValue(service.to_owned()));
    Some(Resource { attributes: vec![name], ..Resource::default() })
}

fn span(span: &TestSpan) -> Span {
    let parent = if span.parent == 0 { Vec::new() } else { span.parent.to_be_bytes().to_vec() };
    Span {
        trace_id: span.trace.to_be_bytes().to_vec(),
        span_id: span.span.to_be_bytes().to_vec(),
        parent_span_id: parent,
        name: span.name.clone(),
        kind: span.kind,
        start_time_unix_nano: span.start as u64,
        end_time_unix_nano: (span.start + span.duration) as u64,
        attributes: span.attributes.iter().map(|(k, v)| attribute(k, v.clone())).collect(),
        status: Some(Status { code: if span.error { 2 } else { 0 }, ..Status::default() }),
        links: span
            .link
            .iter()
            .map(|(trace, span)| Link {
                trace_id: trace.to_be_bytes().to_vec(),
                span_id: span.to_be_bytes().to_vec(),
                ..Link::default()
            })
            .collect(),
        events: span
            .event
            .iter()
            .map(|(key, value)| Event {
                name: "event".to_owned(),
                attributes: vec![attribute(key, Value::StringValue(value.clone()))],
                ..Event::default()
            })
            .collect(),
        ..Span::default()
    }
}

/// The request that carries `spans`, one resource after the other as services change.
pub fn span_request(spans: &[TestSpan]) -> Bytes {
    let mut resources: Vec<ResourceSpans> = Vec::new();
    let mut service = None;
    for one in spans {
        if service != Some(&one.service) {
            service = Some(&one.service);
            let scope = ScopeSpans::default();
            resources.push(ResourceSpans {
                resource: resource(&one.service),
                scope_spans: vec![scope],
                ..ResourceSpans::default()
            });
        }
        resources.last_mut().unwrap().scope_spans[0].spans.push(span(one));
    }
    let request = ExportTraceServiceRequest { resource_spans: resources };
    Bytes::from(request.encode_to_vec())
}

/// The request that carries `logs`.
pub fn log_request(logs: &[TestLog]) -> Bytes {
    let resource_logs = logs
        .iter()
        .map(|log| {
            let id = |zero: bool, bytes: Vec<u8>| if zero { Vec::new() } else { bytes };
            let record = LogRecord {
                time_unix_nano: log.time as u64,
                trace_id: id(log.trace == 0, log.trace.to_be_bytes().to_vec()),
                span_id: id(log.span == 0, log.span.to_be_bytes().to_vec()),
                body: Some(AnyValue { value: Some(Value::StringValue(log.body.clone())) }),
                severity_number: 9,
                ..LogRecord::default()
            };
            ResourceLogs {
                resource: resource(&log.service),
                scope_logs: vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }],
                ..ResourceLogs::default()
            }
        })
        .collect();
    Bytes::from(ExportLogsServiceRequest { resource_logs }.encode_to_vec())
}

pub fn decode(kind: SignalKind, body: &Bytes) -> Batch {
    let decoded = lacuna_signal::otlp::decode(kind, body.clone()).unwrap();
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    decoded.batch
}

/// Stores `spans` and waits until they are durable.
pub fn put_spans(store: &lacuna_store::Store, spans: &[TestSpan]) {
    let body = span_request(spans);
    let batch = decode(SignalKind::Spans, &body);
    store.append_wait(SignalKind::Spans, body, batch).unwrap();
}

/// Stores `logs` and waits until they are durable.
pub fn put_logs(store: &lacuna_store::Store, logs: &[TestLog]) {
    let body = log_request(logs);
    let batch = decode(SignalKind::Logs, &body);
    store.append_wait(SignalKind::Logs, body, batch).unwrap();
}

/// The span ids of `batch`, in order.
pub fn span_ids(batch: &Batch) -> Vec<u64> {
    let rows = lacuna_signal::rows::SpanRows::new(batch);
    (0..batch.num_rows()).map(|row| u64::from_be_bytes(rows.span_id(row).unwrap().0)).collect()
}
