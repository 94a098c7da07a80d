//! A trace of very many spans goes out whole, in pieces.

use lacuna_signal::{Batch, SignalKind};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use crate::harness::{Server, batch};
use crate::source::MemorySource;

const SPANS: u64 = 20_000;

#[tokio::test]
async fn twenty_thousand_spans() {
    let span = |n: u64| Span {
        trace_id: vec![0xaa; 16],
        span_id: n.to_be_bytes().to_vec(),
        parent_span_id: if n == 1 { Vec::new() } else { (n / 2).to_be_bytes().to_vec() },
        name: format!("operation {}", n % 50),
        kind: 1,
        start_time_unix_nano: 1_700_000_000_000_000_000 + n,
        end_time_unix_nano: 1_700_000_001_000_000_000,
        attributes: (0..10)
            .map(|k| KeyValue {
                key: format!("attribute.{k}"),
                value: Some(AnyValue { value: Some(Value::StringValue(format!("value {n}"))) }),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let scope_spans =
        vec![ScopeSpans { spans: (1..=SPANS).map(span).collect(), ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    let request = ExportTraceServiceRequest { resource_spans };
    let spans = batch(SignalKind::Spans, request.encode_to_vec());
    let server = Server::over(MemorySource { spans, logs: Batch::empty(SignalKind::Logs) });

    let id = "aa".repeat(16);
    let v1 = server.get(&format!("/api/traces/{id}")).await.data();
    assert_eq!(v1[0]["spans"].as_array().unwrap().len() as u64, SPANS);
    let v3 = server.get(&format!("/api/v3/traces/{id}")).await.json();
    let spans = v3["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len() as u64, SPANS);
}
