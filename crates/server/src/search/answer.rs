//! What a search answers, as JSON: of traces in Grafana Tempo's shape, of log records in our own.
//!
//! Source: Tempo's HTTP API, "Search". The command line reads the same shapes back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lacuna_signal::rows::{LogRows, SpanRows};
use lacuna_signal::schema::Scope;
use lacuna_signal::selector::Columns;
use lacuna_signal::value::base64;
use lacuna_signal::{Batch, Value, semconv};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::find::{FoundTrace, Selected};

/// Tempo's words for the root of a trace whose root has not come.
const NO_ROOT: &str = "<root span not yet received>";
const ERROR: u8 = 2;

/// Traces that were found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TracesAnswer {
    /// The traces, newest first.
    pub traces: Vec<TraceAnswer>,
    /// What it took.
    pub metrics: Metrics,
    /// Whether there may be more.
    #[serde(default)]
    pub cut: bool,
    /// What is missing for another reason.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What a search took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Traces that were read.
    pub inspected_traces: u64,
}

/// A trace in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceAnswer {
    /// 32 hex digits.
    #[serde(rename = "traceID")]
    pub trace_id: String,
    /// Service of the earliest span without a parent.
    pub root_service_name: String,
    /// Its name.
    pub root_trace_name: String,
    /// When the first span began, in decimal.
    pub start_time_unix_nano: String,
    /// From then to the end of the last, rounded down.
    pub duration_ms: u64,
    /// What the query selects: one set.
    pub span_sets: Vec<SpanSet>,
    /// The same, for older clients.
    pub span_set: SpanSet,
    /// Spans by service.
    pub service_stats: BTreeMap<String, ServiceStats>,
}

/// Spans of one service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStats {
    /// Spans.
    pub span_count: u64,
    /// Those with status error.
    pub error_count: u64,
}

/// Spans that a query selects in a trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpanSet {
    /// The first of them.
    pub spans: Vec<SpanAnswer>,
    /// How many there are.
    pub matched: u64,
}

/// A selected span.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpanAnswer {
    /// 16 hex digits.
    #[serde(rename = "spanID")]
    pub span_id: String,
    /// Its name.
    pub name: String,
    /// When it began, in decimal.
    pub start_time_unix_nano: String,
    /// How long it took, in decimal.
    pub duration_nanos: String,
    /// Its service, its status unless that is unset, and the attributes that the query reads, as
    /// OTLP/JSON.
    pub attributes: Vec<Json>,
}

impl TraceAnswer {
    /// What is said of `trace`, with at most `most_spans` of the selected spans.
    pub(super) fn of(trace: &FoundTrace, columns: &Columns, most_spans: usize) -> Self {
        let spans = SpanRows::new(&trace.spans);
        let all = 0..trace.spans.num_rows();
        let roots = all.clone().filter(|row| spans.parent_span_id(*row).is_none());
        let root = roots.min_by_key(|row| spans.start(*row));
        let start = all.clone().map(|row| spans.start(row)).min().unwrap_or_default();
        let mut end = all.clone().map(|row| spans.end(row)).max().unwrap_or_default();
        let mut service_stats: BTreeMap<String, ServiceStats> = BTreeMap::new();
        for row in all {
            let name = spans.service(row).unwrap_or_default();
            if !service_stats.contains_key(name) {
                service_stats.insert(name.to_owned(), ServiceStats::default());
            }
            if let Some(service) = service_stats.get_mut(name) {
                service.span_count += 1;
                service.error_count += u64::from(spans.status_code(row) == ERROR);
            }
        }
        let span_set = match &trace.selected {
            Selected::Rows(rows) => SpanSet {
                spans: rows
                    .iter()
                    .take(most_spans)
                    .map(|row| SpanAnswer::of(&trace.spans, *row, columns))
                    .collect(),
                matched: rows.len() as u64,
            },
            Selected::Spans { spans, matched } => {
                let found = SpanRows::new(spans);
                end = (0..spans.num_rows()).map(|row| found.end(row)).fold(end, i64::max);
                let rows = 0..spans.num_rows().min(most_spans);
                let spans = rows.map(|row| SpanAnswer::of(spans, row, columns)).collect();
                SpanSet { spans, matched: *matched }
            }
        };
        let of_root = |text: &dyn Fn(usize) -> String| root.map_or(NO_ROOT.to_owned(), text);
        Self {
            trace_id: trace.id.to_string(),
            root_service_name: of_root(&|row| spans.service(row).unwrap_or_default().to_owned()),
            root_trace_name: of_root(&|row| spans.name(row).to_owned()),
            start_time_unix_nano: start.max(0).to_string(),
            duration_ms: u64::try_from(end.saturating_sub(start)).unwrap_or(0) / 1_000_000,
            span_sets: vec![span_set.clone()],
            span_set,
            service_stats,
        }
    }
}

impl SpanAnswer {
    fn of(trace: &Batch, row: usize, columns: &Columns) -> Self {
        let spans = SpanRows::new(trace);
        let mut attributes = Vec::new();
        let mut attribute =
            |key: &str, value: Json| attributes.push(json!({"key": key, "value": value}));
        let text = |text: &str| json!({"stringValue": text});
        attribute(semconv::SERVICE_NAME, text(spans.service(row).unwrap_or_default()));
        match spans.status_code(row) {
            0 => {}
            ERROR => attribute("status", text("error")),
            _ => attribute("status", text("ok")),
        }
        for (scope, key) in &columns.attributes {
            if (*scope, key.as_str()) == (Scope::Resource, semconv::SERVICE_NAME) {
                continue;
            }
            if let Some(value) = trace.attribute(*scope, key).get(row) {
                attribute(key, any_value(value));
            }
        }
        Self {
            span_id: spans.span_id(row).map(|id| id.to_string()).unwrap_or_default(),
            name: spans.name(row).to_owned(),
            start_time_unix_nano: spans.start(row).max(0).to_string(),
            duration_nanos: spans.duration(row).max(0).to_string(),
            attributes,
        }
    }
}

/// A value as OTLP/JSON writes it.
pub fn any_value(value: Value<'_>) -> Json {
    match value {
        Value::Str(text) => json!({"stringValue": text}),
        Value::Int(value) => json!({"intValue": value.to_string()}),
        Value::Double(value) if value.is_finite() => json!({"doubleValue": value}),
        Value::Double(_) => json!({"doubleValue": value.to_text()}),
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Bytes(bytes) => json!({"bytesValue": base64(bytes)}),
        Value::Base64(text) => json!({"bytesValue": text}),
        Value::Any(text) => {
            serde_json::from_str(text).unwrap_or_else(|_| json!({"stringValue": text}))
        }
    }
}

/// Log records that were found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogsAnswer {
    /// The records, newest first.
    pub logs: Vec<LogAnswer>,
    /// Whether there are more.
    pub cut: bool,
    /// What is missing for another reason.
    pub warnings: Vec<String>,
}

/// A log record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogAnswer {
    /// When it was written.
    pub time: Timestamp,
    /// 1 to 24; 0 if it is not known.
    pub severity: u8,
    /// As the emitter names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity_text: Option<String>,
    /// Resource attribute `service.name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Its text; OTLP/JSON of what is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Name of an event log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_name: Option<String>,
    /// 32 hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// 16 hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Its resource's, as text.
    pub resource: BTreeMap<String, String>,
}

impl LogAnswer {
    /// The records of `logs`, in their order.
    pub fn all(logs: &Batch) -> Vec<Self> {
        Self::each(logs).collect()
    }

    /// The same, one by one.
    pub fn each(logs: &Batch) -> impl Iterator<Item = Self> {
        let rows = LogRows::new(logs);
        let (own, resource) = (logs.attributes(Scope::Log), logs.attributes(Scope::Resource));
        let text = |(key, value): (&str, Value<'_>)| (key.to_owned(), value.to_text());
        let record = move |row| Self {
            time: Timestamp::from_nanosecond(rows.time(row).into()).unwrap_or_default(),
            severity: rows.severity(row),
            severity_text: rows.severity_text(row).map(str::to_owned),
            service: rows.service(row).map(str::to_owned),
            body: rows.body(row).map(str::to_owned),
            event_name: rows.event_name(row).map(str::to_owned),
            trace_id: rows.trace_id(row).map(|id| id.to_string()),
            span_id: rows.span_id(row).map(|id| id.to_string()),
            attributes: own.of_row(row).map(text).collect(),
            resource: resource.of_row(row).map(text).collect(),
        };
        (0..logs.num_rows()).map(record)
    }
}
