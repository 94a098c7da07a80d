//! Telemetry to send, made and encoded by OpenTelemetry's own types.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
pub use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest as TraceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

pub const SECOND: u64 = 1_000_000_000;
pub const MILLI: u64 = 1_000_000;

/// Nanoseconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

fn text(value: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) })
}

pub fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: text(value), ..KeyValue::default() }
}

fn resource(service: &str) -> Option<Resource> {
    Some(Resource { attributes: vec![attribute("service.name", service)], ..Resource::default() })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "outside".to_owned(), ..InstrumentationScope::default() })
}

/// A span of 5 ms, alone in its trace: trace and span id are made of `id`.
pub fn span(id: u64, name: &str, start: u64, attributes: &[(&str, &str)]) -> Span {
    Span {
        trace_id: trace_id(id).to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        name: name.to_owned(),
        kind: 1,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 5 * MILLI,
        attributes: attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
        ..Span::default()
    }
}

/// The trace of [`span`] `id`.
pub fn trace_id(id: u64) -> u128 {
    0xabcd << 64 | u128::from(id)
}

/// Spans of one service.
pub fn traces(service: &str, spans: Vec<Span>) -> TraceRequest {
    let scope_spans = vec![ScopeSpans { scope: scope(), spans, ..ScopeSpans::default() }];
    let resource = resource(service);
    let resource_spans = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
    TraceRequest { resource_spans: vec![resource_spans] }
}

pub fn log(body: &str, attributes: &[(&str, &str)]) -> LogRecord {
    LogRecord {
        time_unix_nano: now(),
        observed_time_unix_nano: now(),
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: text(body),
        attributes: attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
        ..LogRecord::default()
    }
}

/// Log records of one service.
pub fn logs(service: &str, log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records, ..ScopeLogs::default() }];
    let resource = resource(service);
    let resource_logs = ResourceLogs { resource, scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource_logs] }
}

fn point(value: number_data_point::Value) -> NumberDataPoint {
    NumberDataPoint {
        start_time_unix_nano: now() - SECOND,
        time_unix_nano: now(),
        value: Some(value),
        attributes: vec![attribute("queue", "essays")],
        ..NumberDataPoint::default()
    }
}

/// A gauge and a sum, one point each.
pub fn metrics(service: &str, name: &str) -> ExportMetricsServiceRequest {
    let named = |suffix: &str, data| Metric {
        name: format!("{name}.{suffix}"),
        unit: "1".to_owned(),
        data: Some(data),
        ..Metric::default()
    };
    let sum = Sum {
        data_points: vec![point(number_data_point::Value::AsInt(7))],
        aggregation_temporality: AggregationTemporality::Cumulative as i32,
        is_monotonic: true,
    };
    let gauge = Gauge { data_points: vec![point(number_data_point::Value::AsDouble(0.5))] };
    let metrics =
        vec![named("depth", metric::Data::Gauge(gauge)), named("taken", metric::Data::Sum(sum))];
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, ..ScopeMetrics::default() }];
    let resource = resource(service);
    let resource_metrics =
        ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }
}

/// The encodings of OTLP/HTTP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    pub const ALL: [Self; 2] = [Self::Protobuf, Self::Json];

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    pub fn encode<M: Message + serde::Serialize>(self, message: &M) -> Vec<u8> {
        match self {
            Self::Protobuf => message.encode_to_vec(),
            Self::Json => serde_json::to_vec(message).unwrap(),
        }
    }
}

/// Compresses as a `Content-Encoding` says.
pub fn compress(encoding: &str, body: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    match encoding {
        "identity" => body.to_vec(),
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::encode_all(body, 3).unwrap(),
        other => panic!("no compression {other}"),
    }
}

/// `google.rpc.Status` as protobuf, without its details.
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Headers of a request.
pub fn headers(encoding: Encoding, compression: &str) -> Vec<(&'static str, &str)> {
    let mut headers = vec![("content-type", encoding.content_type())];
    if compression != "identity" {
        headers.push(("content-encoding", compression));
    }
    headers
}
