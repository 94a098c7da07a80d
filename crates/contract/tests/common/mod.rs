//! Spans as plain data, and batches of them.
#![allow(dead_code, missing_docs, clippy::unwrap_used, reason = "each test uses a part of it")]

use bytes::Bytes;
use lacuna_contract::ContractSet;
use lacuna_signal::{Batch, SignalKind};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

/// Test times count in milliseconds from here.
pub const EPOCH: i64 = 1_700_000_000_000_000_000;
pub const MS: i64 = 1_000_000;

#[derive(Debug, Clone, PartialEq)]
pub struct Ev {
    pub id: u32,
    pub name: &'static str,
    pub service: &'static str,
    pub key: Option<String>,
    pub amount: Option<i64>,
    /// Milliseconds.
    pub start: i64,
    pub end: i64,
}

pub fn ev(id: u32, name: &'static str, key: &str, start: i64, end: i64) -> Ev {
    Ev { id, name, service: "s", key: Some(key.to_owned()), amount: None, start, end }
}

impl Ev {
    pub fn amount(mut self, amount: i64) -> Self {
        self.amount = Some(amount);
        self
    }

    pub fn from(mut self, service: &'static str) -> Self {
        self.service = service;
        self
    }

    pub fn trace(&self) -> String {
        format!("{:032x}", self.id + 1)
    }
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

pub fn batch(events: &[Ev]) -> Batch {
    let spans: Vec<_> = events.iter().map(|event| (event.clone(), 0, 0)).collect();
    batch_of(&spans)
}

/// Spans with their kinds and the ids of their parents (0: none); a child is in its parent's trace.
pub fn batch_of(spans: &[(Ev, i32, u32)]) -> Batch {
    let text = |text: &str| any_value::Value::StringValue(text.to_owned());
    let resource_spans = spans
        .iter()
        .map(|(event, kind, parent)| {
            let trace = if *parent == 0 { event.id } else { *parent };
            let key = event.key.as_ref().map(|key| attribute("key", text(key)));
            let amount =
                event.amount.map(|amount| attribute("amount", any_value::Value::IntValue(amount)));
            let span = Span {
                trace_id: u128::from(trace + 1).to_be_bytes().to_vec(),
                kind: *kind,
                parent_span_id: match parent {
                    0 => Vec::new(),
                    parent => u64::from(parent + 1).to_be_bytes().to_vec(),
                },
                span_id: u64::from(event.id + 1).to_be_bytes().to_vec(),
                name: event.name.to_owned(),
                start_time_unix_nano: (EPOCH + event.start * MS) as u64,
                end_time_unix_nano: (EPOCH + event.end * MS) as u64,
                attributes: key.into_iter().chain(amount).collect(),
                ..Span::default()
            };
            ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![attribute("service.name", text(event.service))],
                    ..Resource::default()
                }),
                scope_spans: vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }],
                ..ResourceSpans::default()
            }
        })
        .collect();
    let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    lacuna_signal::otlp::decode(SignalKind::Spans, Bytes::from(body)).unwrap().batch
}

/// A log record: time in milliseconds, severity number, event name, text, and attributes.
pub type Record<'a> = (i64, i32, &'a str, &'a str, &'a [(&'a str, &'a str)]);

/// Log records of service `s`.
pub fn logs(records: &[Record<'_>]) -> Batch {
    let text = |text: &str| any_value::Value::StringValue(text.to_owned());
    let records = records.iter().map(|(time, severity, event, body, attributes)| LogRecord {
        time_unix_nano: (EPOCH + time * MS) as u64,
        severity_number: *severity,
        event_name: (*event).to_owned(),
        body: Some(AnyValue { value: Some(text(body)) }),
        attributes: attributes.iter().map(|(key, value)| attribute(key, text(value))).collect(),
        ..LogRecord::default()
    });
    let resource_logs = vec![ResourceLogs {
        resource: Some(Resource {
            attributes: vec![attribute("service.name", text("s"))],
            ..Resource::default()
        }),
        scope_logs: vec![ScopeLogs { log_records: records.collect(), ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    }];
    let body = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    lacuna_signal::otlp::decode(SignalKind::Logs, Bytes::from(body)).unwrap().batch
}

/// One contract named `c`; `body` is its YAML fields, one a line.
pub fn contract(body: &str) -> ContractSet {
    let fields: String = body.lines().map(|line| format!("    {}\n", line.trim())).collect();
    let text = format!("contracts:\n  - name: c\n{fields}");
    ContractSet::parse("test.yaml", &text).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

pub fn time(timestamp: jiff::Timestamp) -> i64 {
    (i64::try_from(timestamp.as_nanosecond()).unwrap() - EPOCH) / MS
}
